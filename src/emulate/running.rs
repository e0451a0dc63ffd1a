//! A command that runs in an emulated host, much like [`std::process::Child`] stands for a child: the caller's end of a
//! stream of the channel, and the threads that move its bytes.

use std::io::{self, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::channel::{self, Failure, Kind, MACHINE};
use super::error::{Error, io_error};
use super::inner::Order;
use super::machine::Machine;
use super::window::{Room, Window};

/// The stream of the one command of a channel that has one.
pub(super) const STREAM: u32 = 1;
/// What a signal that means "at once" is called.
const SIGKILL: i32 = 9;
/// How long QEMU may take to be gone once its end of the channel is.
const GONE_PATIENCE: Duration = Duration::from_secs(10);

/// What the threads have found out.
#[derive(Default)]
struct State {
    /// The machine's version of the protocol.
    up: Option<u32>,
    started: bool,
    exit: Option<ExitStatus>,
    failed: Option<Failure>,
    /// The channel has ended.
    lost: bool,
}

impl State {
    fn over(&self) -> bool {
        self.exit.is_some() || self.failed.is_some() || self.lost
    }
}

/// What the threads share.
struct Link {
    /// Frames to the inside; whole ones, so one writer at a time.
    channel: Mutex<UnixStream>,
    stdin: Window,
    state: Mutex<State>,
    changed: Condvar,
}

impl Link {
    fn send(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        channel::send(&mut *self.channel(), kind, STREAM, payload)
    }

    fn channel(&self) -> MutexGuard<'_, UnixStream> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

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

/// A command that runs in an emulated host. Dropping it ends the command: with its machine, at once, where it has one to
/// itself ([`EmulatedHost`](super::EmulatedHost)); in good order and in its own time in a
/// [`SharedHost`](super::SharedHost).
pub struct Running {
    /// The command's standard input; dropping it is the end of the input.
    pub stdin: Option<PipeWriter>,
    /// The command's standard output. It must be read, or the command stops when the pipe is full.
    pub stdout: Option<PipeReader>,
    /// The command's standard error. It must be read as well.
    pub stderr: Option<PipeReader>,
    link: Arc<Link>,
    /// Where the command has a machine to itself.
    machine: Option<Machine>,
}

impl Running {
    /// Starts the threads over a channel.
    pub(super) fn new(channel: UnixStream, machine: Option<Machine>) -> Result<Self, Error> {
        let failed = || io_error("starting a command in the emulated host");
        let (stdin_reader, stdin) = io::pipe().map_err(failed())?;
        let (stdout, stdout_writer) = io::pipe().map_err(failed())?;
        let (stderr, stderr_writer) = io::pipe().map_err(failed())?;
        let from = channel.try_clone().map_err(failed())?;
        let link = Arc::new(Link {
            channel: Mutex::new(channel),
            stdin: Window::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let for_receiver = Arc::clone(&link);
        thread::spawn(move || receive(from, stdout_writer, stderr_writer, &for_receiver));
        let for_input = Arc::clone(&link);
        thread::spawn(move || send_input(stdin_reader, &for_input));
        Ok(Self { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr), link, machine })
    }

    /// Waits until the machine takes orders.
    pub(super) fn wait_until_up(&self, limit: Duration) -> Result<(), Error> {
        let (state, in_time) = self.link.wait(Some(limit), |state| state.up.is_some() || state.over());
        match state.up {
            Some(channel::VERSION) => Ok(()),
            Some(_) => Err(Error::OtherVersion),
            None if in_time => self.lost(state, "before it was up"),
            None => Err(Error::TimedOut { what: "up", after: limit, tail: self.console() }),
        }
    }

    /// Has the command run.
    pub(super) fn order(&self, order: &Order) -> Result<(), Error> {
        channel::send_value(&mut *self.link.channel(), Kind::Run, STREAM, order)
            .map_err(io_error("sending a command into the emulated host"))
    }

    /// Waits until the command runs.
    pub(super) fn wait_until_started(&self, limit: Duration) -> Result<(), Error> {
        let (mut state, in_time) = self.link.wait(Some(limit), |state| state.started || state.over());
        match state.failed.take() {
            Some(why) => Err(why.into()),
            None if state.started => Ok(()),
            None if in_time => self.lost(state, "before its command ran"),
            None => Err(Error::TimedOut { what: "ready", after: limit, tail: self.console() }),
        }
    }

    /// Waits for the command and gives its exit status; a machine of its own is gone then. All output has been written to
    /// the pipes by then. Closes the standard input, as [`std::process::Child::wait`] does. After [`Error::TimedOut`] it
    /// still runs.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        let (state, in_time) = self.link.wait(limit, State::over);
        if !in_time {
            let after = limit.unwrap_or_default();
            return Err(Error::TimedOut { what: "done", after, tail: self.console() });
        }
        let result = match (state.exit, &state.failed) {
            (Some(status), _) => Ok(status),
            (None, Some(why)) => Err(why.clone().into()),
            (None, None) => return self.lost(state, "before its command did").map(|()| ExitStatus::default()),
        };
        drop(state);
        if let Some(machine) = &self.machine {
            let _ = channel::send(&mut *self.link.channel(), Kind::Bye, MACHINE, &0u32.to_le_bytes());
            machine.end();
        }
        result
    }

    /// The channel has ended too early.
    fn lost(&self, state: MutexGuard<'_, State>, when: &'static str) -> Result<(), Error> {
        drop(state);
        let Some(machine) = &self.machine else { return Err(Error::Lost { when }) };
        match machine.wait(GONE_PATIENCE) {
            Some(status) => Err(Error::Died { status, when, tail: machine.tail() }),
            None => Err(Error::Lost { when }),
        }
    }

    /// Sends the command a signal, for instance SIGINT after a Ctrl-C.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        self.link.send(Kind::Signal, &number.to_le_bytes())
    }

    /// Ends the command at once, and its machine if it has one to itself.
    pub fn kill(&self) {
        match &self.machine {
            Some(machine) => machine.kill(),
            None => drop(self.signal(SIGKILL)),
        }
    }

    /// The last lines of the machine's console and of QEMU's messages, where the command has one to itself.
    pub fn console(&self) -> String {
        self.machine.as_ref().map(Machine::tail).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Threads that read or write for the caller find their ends closed.
        drop((self.stdin.take(), self.stdout.take(), self.stderr.take()));
        drop(self.machine.take());
        let _ = self.link.channel().shutdown(Shutdown::Both);
    }
}

/// Takes frames apart until the command or the channel ends; either is the end of the output pipes.
fn receive(channel: UnixStream, stdout: PipeWriter, stderr: PipeWriter, link: &Arc<Link>) {
    let mut channel = BufReader::with_capacity(64 << 10, channel);
    let (to_stdout, stdout) = write_output(Kind::Stdout, stdout, link);
    let (to_stderr, stderr) = write_output(Kind::Stderr, stderr, link);
    let mut payload = Vec::new();
    let end = loop {
        let Ok(Some(frame)) = channel::receive(&mut channel, &mut payload) else { break None };
        match frame.kind {
            Kind::Hello => link.update(|state| state.up = Some(channel::read_u32(&payload).unwrap_or_default())),
            Kind::Started => link.update(|state| state.started = true),
            // What is under way is bounded by the room that these threads give.
            Kind::Stdout => drop(to_stdout.send(payload.clone())),
            Kind::Stderr => drop(to_stderr.send(payload.clone())),
            Kind::Room => {
                if let Some((Kind::Stdin, bytes)) = channel::read_room(&payload) {
                    link.stdin.give(bytes);
                }
            }
            Kind::Exit | Kind::Failed => break Some(frame.kind),
            _ => {}
        }
    };
    link.stdin.close();
    // All output is in the pipes before anyone hears of the end.
    drop((to_stdout, to_stderr));
    let _ = (stdout.join(), stderr.join());
    link.update(|state| match end {
        Some(Kind::Exit) => match exit_status(&payload) {
            Some(status) => state.exit = Some(status),
            None => state.lost = true,
        },
        Some(_) => {
            let unclear = |_| Failure::Command(String::from_utf8_lossy(&payload).into_owned());
            state.failed = Some(serde_json::from_slice(&payload).unwrap_or_else(unclear));
        }
        None => state.lost = true,
    });
}

/// A thread that writes into one of the caller's pipes, and gives the room back.
fn write_output(kind: Kind, mut pipe: PipeWriter, link: &Arc<Link>) -> (Sender<Vec<u8>>, JoinHandle<()>) {
    let (sender, chunks): (_, Receiver<Vec<u8>>) = mpsc::channel();
    let link = Arc::clone(link);
    let thread = thread::spawn(move || {
        let mut room = Room::default();
        for bytes in chunks {
            // A caller that has closed its end does not want the output.
            let _ = pipe.write_all(&bytes);
            if let Some(bytes) = room.passed(bytes.len()) {
                let _ = link.send(Kind::Room, &channel::room(kind, bytes));
            }
        }
    });
    (sender, thread)
}

/// Puts the caller's bytes into frames until their end, as there is room for them.
fn send_input(mut input: PipeReader, link: &Link) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let mut bytes = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        while !bytes.is_empty() {
            let Some(length) = link.stdin.take(bytes.len()) else { return };
            let (now, later) = bytes.split_at(length.min(bytes.len()));
            if link.send(Kind::Stdin, now).is_err() {
                return;
            }
            bytes = later;
        }
    }
    let _ = link.send(Kind::StdinEnd, &[]);
}

/// The exit status from a wait status as it came over the channel.
fn exit_status(raw: &[u8]) -> Option<ExitStatus> {
    Some(ExitStatus::from_raw(i32::from_le_bytes(raw.try_into().ok()?)))
}

#[cfg(test)]
#[path = "running_tests.rs"]
mod tests;
