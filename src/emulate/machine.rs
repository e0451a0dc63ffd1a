//! The QEMU process: started, watched, ended.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What is kept of a console.
const TAIL: usize = 16 << 10;
/// How many of its lines an error shows.
const TAIL_LINES: usize = 30;
/// How long QEMU may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What the threads have found out.
#[derive(Default)]
struct State {
    /// How QEMU ended.
    ended: Option<ExitStatus>,
    console: VecDeque<u8>,
    messages: VecDeque<u8>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A QEMU process. Dropping it kills it.
pub(super) struct Machine {
    shared: Arc<Shared>,
    process: OwnedFd,
    pid: u32,
    watcher: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts QEMU with `channel` as its standard input.
    pub(super) fn launch(qemu: &Path, arguments: Vec<OsString>, channel: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (process, pid, watcher) = watch(command(qemu, arguments, channel), Arc::clone(&shared))?;
        Ok(Machine { shared, process, pid, watcher: Some(watcher) })
    }

    /// Its process's number.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end, at most so long.
    pub(super) fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now().checked_add(limit);
        let mut state = self.shared.lock();
        while state.ended.is_none() {
            let left = deadline?.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ended
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }

    /// SIGTERM (QEMU closes its disks properly), then SIGKILL.
    pub(super) fn end(&self) {
        let _ = pidfd_send_signal(&self.process, Signal::TERM);
        if self.wait(END_PATIENCE).is_none() {
            self.kill();
            let _ = self.wait(END_PATIENCE);
        }
    }

    /// The last lines of its console and of QEMU's messages as text for an error: nothing, or each on a line of its own,
    /// without control characters.
    pub(super) fn tail(&self) -> String {
        let state = self.shared.lock();
        let mut text = String::new();
        for (name, bytes) in [("console", &state.console), ("QEMU", &state.messages)] {
            let bytes: Vec<u8> = bytes.iter().copied().collect();
            let lines: Vec<String> = String::from_utf8_lossy(&bytes)
                .lines()
                .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
                .filter(|line| !line.trim().is_empty())
                .collect();
            if !lines.is_empty() {
                text += &format!("\nlast lines of its {name}:");
            }
            // A panic's reason comes before its many lines of registers.
            let panic = lines.iter().position(|line| line.contains("Kernel panic"));
            for line in lines.iter().skip(panic.unwrap_or(lines.len().saturating_sub(TAIL_LINES))).take(TAIL_LINES) {
                text += "\n  ";
                text += line.trim_end();
            }
        }
        text
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// QEMU in a process group of its own (a terminal's Ctrl-C is for the command inside, as a signal), killed by the kernel
/// when its parent thread dies, where setpriv(1) is there to ask for that. Beyond that, the machine powers itself off
/// when the channel closes.
fn command(qemu: &Path, arguments: Vec<OsString>, channel: OwnedFd) -> Command {
    let mut command = match find_program(Path::new("setpriv")) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(qemu);
            command
        }
        None => Command::new(qemu),
    };
    command.args(arguments).stdin(Stdio::from(channel)).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

/// Spawns the process in a thread that lives as long as it does (the parent-death signal follows the thread), and that
/// collects its console, its messages and its end.
fn watch(mut command: Command, shared: Arc<Shared>) -> io::Result<(OwnedFd, u32, JoinHandle<()>)> {
    let (started, start) = mpsc::channel();
    let watcher = thread::Builder::new().name("emulated-host".into()).spawn(move || {
        let spawned = command.spawn();
        // The parent's copy of the channel's inner end must close, for the other to see QEMU's end.
        drop(command);
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return drop(started.send(Err(error))),
        };
        let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from);
        let _ = started.send(process.map(|process| (process, child.id())));
        drop(started);
        let messages = child.stderr.take();
        let for_messages = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            if let Some(pipe) = messages {
                keep_tail(pipe, |bytes| push(&mut for_messages.lock().messages, bytes));
            }
        });
        if let Some(pipe) = child.stdout.take() {
            keep_tail(pipe, |bytes| push(&mut shared.lock().console, bytes));
        }
        let _ = reader.join();
        let status = child.wait().unwrap_or_default();
        shared.lock().ended = Some(status);
        shared.changed.notify_all();
    })?;
    let (process, pid) = start.recv().map_err(io::Error::other)??;
    Ok((process, pid, watcher))
}

fn keep_tail(mut pipe: impl Read, mut keep: impl FnMut(&[u8])) {
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => keep(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn push(tail: &mut VecDeque<u8>, bytes: &[u8]) {
    tail.extend(bytes);
    let excess = tail.len().saturating_sub(TAIL);
    tail.drain(..excess);
}

/// A program by its path, or by its name on the PATH.
pub(super) fn find_program(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}
