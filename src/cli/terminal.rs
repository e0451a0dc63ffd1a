//! The user's terminal: Ctrl-C counted, and its keys sent to the guest for `--interactive`.

use std::io::{self, IsTerminal, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::host::event::Control;

/// Counts signals as long as it lives.
#[derive(Debug)]
pub struct Interrupts {
    handle: Option<Handle>,
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.close();
        }
    }
}

/// Count SIGINT, SIGTERM and SIGHUP in `count` instead of dying of them.
pub fn count_interrupts(count: &Arc<AtomicU32>) -> Interrupts {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return Interrupts { handle: None } };
    let handle = signals.handle();
    let count = count.clone();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in &mut signals {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    Interrupts { handle: thread.is_ok().then_some(handle) }
}

/// The terminal in raw mode; as it was when this is dropped.
#[derive(Debug)]
pub struct RawTerminal {
    before: Option<Termios>,
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Ctrl-], as telnet and virsh have it.
const ESCAPE: u8 = 0x1d;

/// Send what is typed to the guest's serial console. Ctrl-] counts as two interrupts. Where standard input is no terminal its
/// bytes are sent as they come, and its end counts as `at_end` interrupts.
pub fn connect(orders: Arc<dyn Fn(Control) + Send + Sync>, interrupts: &Arc<AtomicU32>, at_end: u32) -> RawTerminal {
    let before = io::stdin().is_terminal().then(|| tcgetattr(io::stdin()).ok()).flatten();
    if let Some(before) = &before {
        let mut raw = before.clone();
        raw.make_raw();
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
    }
    let is_terminal = before.is_some();
    let interrupts = interrupts.clone();
    // The thread ends with the process: a read from a terminal can't be called off.
    let _ = std::thread::Builder::new().name("terminal".into()).spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(n @ 1..) = io::stdin().lock().read(&mut buffer) {
            if is_terminal && buffer[..n].contains(&ESCAPE) {
                interrupts.fetch_add(2, Ordering::Relaxed);
                return;
            }
            orders(Control::Input { data: buffer[..n].to_vec() });
        }
        interrupts.fetch_add(at_end, Ordering::Relaxed);
    });
    RawTerminal { before }
}
