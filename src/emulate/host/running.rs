//! A running emulated host: its QEMU process and the threads that move bytes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Error, exit_status, find_program, io_error};
use crate::emulate::channel::{self, Kind};

/// What is kept of a console.
const TAIL: usize = 16 << 10;
/// How many of its lines an error shows.
const TAIL_LINES: usize = 30;
/// How long QEMU may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What the threads have found out.
#[derive(Default)]
struct State {
    up: bool,
    exit: Option<ExitStatus>,
    failed: Option<String>,
    /// How QEMU ended.
    qemu: Option<ExitStatus>,
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

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `ready` or the limit; whether it is ready.
    fn wait(&self, limit: Option<Duration>, ready: impl Fn(&State) -> bool) -> (MutexGuard<'_, State>, bool) {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut state = self.lock();
        while !ready(&state) {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return (state, false);
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        (state, true)
    }
}

/// A command that runs in an emulated host. Dropping it ends the machine at once.
pub struct Running {
    /// The command's standard input; dropping it is the end of the input.
    pub stdin: Option<PipeWriter>,
    /// The command's standard output. It must be read, or the command stops when the pipe is full.
    pub stdout: Option<PipeReader>,
    /// The command's standard error. It must be read as well.
    pub stderr: Option<PipeReader>,
    shared: Arc<Shared>,
    /// Frames to the inside; whole ones, so one writer at a time.
    channel: Arc<Mutex<UnixStream>>,
    process: OwnedFd,
    keeper: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts QEMU and the threads.
    pub(super) fn launch(qemu: &Path, arguments: Vec<OsString>) -> Result<Self, Error> {
        let failed = || io_error("starting the emulated host");
        let (channel, inner) = UnixStream::pair().map_err(failed())?;
        let (stdin_reader, stdin) = io::pipe().map_err(failed())?;
        let (stdout, stdout_writer) = io::pipe().map_err(failed())?;
        let (stderr, stderr_writer) = io::pipe().map_err(failed())?;
        let shared = Arc::new(Shared::default());
        let command = command(qemu, arguments, inner.into());
        let (process, keeper) = keep(command, Arc::clone(&shared)).map_err(io_error(qemu.display().to_string()))?;
        let from = channel.try_clone().map_err(failed())?;
        let running = Self {
            stdin: Some(stdin),
            stdout: Some(stdout),
            stderr: Some(stderr),
            shared: Arc::clone(&shared),
            channel: Arc::new(Mutex::new(channel)),
            process,
            keeper: Some(keeper),
        };
        thread::spawn(move || receive(from, stdout_writer, stderr_writer, &shared));
        let to = Arc::clone(&running.channel);
        thread::spawn(move || send_input(stdin_reader, &to));
        Ok(running)
    }

    pub(super) fn wait_until_up(&self, limit: Duration) -> Result<(), Error> {
        let ready = |state: &State| state.up || state.failed.is_some() || state.qemu.is_some();
        let (state, in_time) = self.shared.wait(Some(limit), ready);
        if let Some(why) = &state.failed {
            return Err(Error::Command(why.clone()));
        }
        match state.qemu {
            Some(status) if !state.up => Err(Error::Died { status, when: "before it was up", tail: tail(&state) }),
            _ if in_time => Ok(()),
            _ => Err(Error::TimedOut { what: "up", after: limit, tail: tail(&state) }),
        }
    }

    /// Waits for the command and gives its exit status; the machine is gone then. All output has been written to the
    /// pipes by then. Closes the standard input, as [`std::process::Child::wait`] does. After [`Error::TimedOut`] it
    /// still runs.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        let ready = |state: &State| state.exit.is_some() || state.failed.is_some() || state.qemu.is_some();
        let (state, in_time) = self.shared.wait(limit, ready);
        if !in_time {
            let after = limit.unwrap_or_default();
            return Err(Error::TimedOut { what: "done", after, tail: tail(&state) });
        }
        if state.exit.is_none() && state.failed.is_none() {
            // QEMU is gone; what it sent last may still be on its way through the receiving thread.
            drop(state);
            let (state, told) =
                self.shared.wait(Some(Duration::from_secs(1)), |state| state.exit.is_some() || state.failed.is_some());
            if let (false, Some(status)) = (told, state.qemu) {
                return Err(Error::Died { status, when: "before its command did", tail: tail(&state) });
            }
            drop(state);
        } else {
            drop(state);
        }
        self.end();
        let state = self.shared.lock();
        match (state.exit, &state.failed) {
            (Some(status), _) => Ok(status),
            (None, why) => Err(Error::Command(why.clone().unwrap_or_default())),
        }
    }

    /// Sends the command a signal, for instance SIGINT after a Ctrl-C. [`io::ErrorKind::WouldBlock`] while input that the
    /// command does not take is in the way; [`Self::kill`] always works.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        self.tell(Kind::Signal, &number.to_le_bytes())
    }

    fn tell(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        match self.channel.try_lock() {
            Ok(mut channel) => channel::send(&mut *channel, kind, payload),
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Ends the machine at once.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }

    /// The last lines of the machine's console and of QEMU's messages.
    pub fn console(&self) -> String {
        tail(&self.shared.lock())
    }

    /// Lets the machine go: goodbye, then SIGTERM (QEMU closes its disks properly), then SIGKILL.
    fn end(&mut self) {
        let _ = self.tell(Kind::Bye, &[]);
        let _ = pidfd_send_signal(&self.process, Signal::TERM);
        let (state, ended) = self.shared.wait(Some(END_PATIENCE), |state| state.qemu.is_some());
        drop(state);
        if !ended {
            self.kill();
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        // Threads that read or write for the caller find their ends closed.
        drop((self.stdin.take(), self.stdout.take(), self.stderr.take()));
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
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
fn keep(mut command: Command, shared: Arc<Shared>) -> io::Result<(OwnedFd, JoinHandle<()>)> {
    let (started, start) = mpsc::channel();
    let keeper = thread::Builder::new().name("emulated-host".into()).spawn(move || {
        let spawned = command.spawn();
        // The parent's copy of the channel's inner end must close, for the other to see QEMU's end.
        drop(command);
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return drop(started.send(Err(error))),
        };
        let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
        let _ = started.send(pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from));
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
        shared.update(|state| state.qemu = Some(status));
    })?;
    let process = start.recv().map_err(io::Error::other)??;
    Ok((process, keeper))
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

/// The last lines as text for an error: nothing, or each on a line of its own, without control characters.
fn tail(state: &State) -> String {
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

/// Takes frames apart until the command or the channel ends; either is the end of the output pipes.
fn receive(mut channel: UnixStream, mut stdout: PipeWriter, mut stderr: PipeWriter, shared: &Shared) {
    let mut payload = Vec::new();
    while let Ok(Some(kind)) = channel::receive(&mut channel, &mut payload) {
        match kind {
            Kind::Hello => shared.update(|state| state.up = true),
            // A caller that has closed its end does not want the output.
            Kind::Stdout => drop(stdout.write_all(&payload)),
            Kind::Stderr => drop(stderr.write_all(&payload)),
            Kind::Exit => return shared.update(|state| state.exit = exit_status(&payload)),
            Kind::Failed => {
                return shared.update(|state| state.failed = Some(String::from_utf8_lossy(&payload).into_owned()));
            }
            Kind::Stdin | Kind::StdinEnd | Kind::Signal | Kind::Bye => {}
        }
    }
}

/// Puts the caller's bytes into frames until their end.
fn send_input(mut input: PipeReader, channel: &Mutex<UnixStream>) {
    let send =
        |kind, bytes: &[u8]| channel::send(&mut *channel.lock().unwrap_or_else(PoisonError::into_inner), kind, bytes);
    let mut buffer = vec![0; 32 << 10];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if send(Kind::Stdin, buffer.get(..length).unwrap_or_default()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = send(Kind::StdinEnd, &[]);
}
