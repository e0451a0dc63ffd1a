//! `amiable watch`: `test` again whenever the user-data is saved.
//!
//! Each test is a process of its own, as if it had been typed; a save while one is under way ends it.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::args::TestArgs;
use super::error::{CliError, exit};
use super::progress::Progress;
use super::terminal;

/// How often the file is looked at. An editor's save is several steps; after the first the rest is waited for once as long.
const LOOK: Duration = Duration::from_millis(150);

/// Run the command. It ends with Ctrl-C.
pub fn run(args: &TestArgs, _started: Instant) -> Result<u8, CliError> {
    let file = &args.user_data;
    if file.as_os_str() == "-" {
        return Err(CliError::new(exit::USAGE, "standard input can't be watched").next("amiable watch FILE"));
    }
    let mut seen = stamp(file)
        .ok_or_else(|| CliError::new(exit::USAGE, format!("can't read the user-data {}", file.display())))?;
    let interrupts = Arc::new(AtomicU32::new(0));
    let _handlers = terminal::count_interrupts(&interrupts);
    let progress = Progress::new();
    let mut test = Some(start()?);
    loop {
        if interrupts.load(Ordering::Relaxed) > 0 {
            if let Some(child) = &mut test {
                end(child);
            }
            return Ok(exit::INTERRUPTED);
        }
        if let Some(child) = &mut test
            && let Some(status) = child.try_wait().map_err(|e| CliError::from_error(exit::OTHER, &e))?
        {
            test = None;
            let text = status.code().map_or("by a signal".to_owned(), |code| format!("with status {code}"));
            progress.note(&format!("ended {text}; waiting for {} to change (Ctrl-C ends)", file.display()));
        }
        match stamp(file) {
            Some(now) if now != seen => {
                std::thread::sleep(LOOK);
                seen = stamp(file).unwrap_or(now);
                if let Some(child) = &mut test {
                    end(child);
                }
                progress.note(&format!("{} has changed", file.display()));
                test = Some(start()?);
            }
            // An editor may replace the file: it is away for a moment.
            _ => std::thread::sleep(LOOK),
        }
    }
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// This command line once more, with `test` for `watch`.
fn start() -> Result<Child, CliError> {
    let other = |e: &dyn std::error::Error| CliError::from_error(exit::OTHER, e);
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(verb) = arguments.iter_mut().find(|word| *word == "watch") {
        *verb = "test".into();
    }
    // In a group of its own: Ctrl-C is for this process, which passes it on.
    use std::os::unix::process::CommandExt;
    Command::new(std::env::current_exe().map_err(|e| other(&e))?)
        .args(arguments)
        .process_group(0)
        .spawn()
        .map_err(|e| other(&e))
}

/// End a test at once: two interrupts pull the plug.
fn end(child: &mut Child) {
    for _ in 0..2 {
        let _ = kill_process(Pid::from_child(child), Signal::INT);
        std::thread::sleep(Duration::from_millis(60));
    }
    let _ = child.wait();
}
