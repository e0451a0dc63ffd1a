//! One command from its order to its end.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, waitid, waitpgid,
};

use super::{Order, Server};
use crate::emulate::channel::{self, Failure, Kind};
use crate::emulate::window::{self, Room, Window};

/// How long a command may take after SIGTERM.
const AFTER_SIGTERM: Duration = Duration::from_secs(2);
/// How long a pipe may stay open and silent after the command's end: something that it left behind has it.
const LEFT_OPEN: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    /// The process, as long as it is not buried.
    pid: Option<Pid>,
    ending: bool,
    ended: bool,
}

/// A command that runs or is about to.
pub(super) struct Command {
    stream: u32,
    grace: Duration,
    state: Mutex<State>,
    changed: Condvar,
    /// To the thread that writes the standard input.
    stdin: Mutex<Option<Sender<Vec<u8>>>>,
    /// How many bytes that thread has not written yet.
    held: Arc<AtomicUsize>,
    stdout: Arc<Window>,
    stderr: Arc<Window>,
}

impl Command {
    /// The command, and what comes in for it.
    pub(super) fn new(stream: u32, grace: Duration) -> (Self, Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel();
        let command = Command {
            stream,
            grace,
            state: Mutex::default(),
            changed: Condvar::new(),
            stdin: Mutex::new(Some(sender)),
            held: Arc::default(),
            stdout: Arc::default(),
            stderr: Arc::default(),
        };
        (command, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame for this command.
    pub(super) fn obey(self: &Arc<Self>, kind: Kind, payload: &[u8]) {
        match kind {
            Kind::Stdin => self.input(payload),
            Kind::StdinEnd => self.end_input(),
            Kind::Signal => {
                let number = <[u8; 4]>::try_from(payload).map(i32::from_le_bytes).unwrap_or_default();
                if let Some(signal) = Signal::from_named_raw(number) {
                    self.signal(signal);
                }
            }
            Kind::Room => match channel::read_room(payload) {
                Some((Kind::Stdout, bytes)) => self.stdout.give(bytes),
                Some((Kind::Stderr, bytes)) => self.stderr.give(bytes),
                _ => {}
            },
            Kind::Leave => self.end(self.grace, true),
            _ => {}
        }
    }

    fn input(&self, bytes: &[u8]) {
        let held = self.held.fetch_add(bytes.len(), Ordering::Relaxed).saturating_add(bytes.len());
        if held > window::SIZE {
            // The sender does not keep to the window: nothing more is taken from it.
            return self.end_input();
        }
        if let Some(sender) = &*self.stdin.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = sender.send(bytes.to_vec());
        }
    }

    fn end_input(&self) {
        drop(self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn signal(&self, signal: Signal) {
        // The process is not buried while this lock is held, so its number is its own.
        if let Some(pid) = self.lock().pid {
            let _ = if signal == Signal::KILL { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        }
    }

    /// Ends the command: its input first, then SIGTERM, then SIGKILL. `forget` drops its output.
    pub(super) fn end(self: &Arc<Self>, grace: Duration, forget: bool) {
        if forget {
            self.stdout.close();
            self.stderr.close();
        }
        self.end_input();
        if std::mem::replace(&mut self.lock().ending, true) && !grace.is_zero() {
            return;
        }
        let command = Arc::clone(self);
        thread::spawn(move || {
            let after_sigterm = if grace.is_zero() { Duration::ZERO } else { AFTER_SIGTERM };
            for (patience, signal) in [(grace, Signal::TERM), (after_sigterm, Signal::KILL)] {
                let deadline = Instant::now() + patience;
                let mut state = command.lock();
                while !state.ended {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    state = command.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                drop(state);
                command.signal(signal);
            }
        });
    }

    /// Runs it to its end and cleans up; its wait status.
    pub(super) fn run(
        self: &Arc<Self>,
        server: &Arc<Server>,
        order: &Order,
        input: Receiver<Vec<u8>>,
    ) -> Result<i32, Failure> {
        let result = self.prepare(server, order).and_then(|()| {
            let child = self.spawn(order)?;
            let _ = server.send(Kind::Started, self.stream, &child.id().to_le_bytes());
            Ok(self.attend(server, child, input))
        });
        let mut trouble = None;
        for disk in &order.disks {
            if let Err(error) = server.disks.let_go(disk) {
                trouble = Some(Failure::Drive(format!("{}: {error}", disk.path.display())));
            }
        }
        if let Some(folder) = &order.folder {
            let _ = fs::remove_dir_all(folder);
        }
        match (result, trouble) {
            (Ok(_), Some(trouble)) => Err(trouble),
            (result, _) => result,
        }
    }

    fn prepare(&self, server: &Server, order: &Order) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::Command(format!("placing its files: {error}"));
        if let Some(folder) = &order.folder {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        for file in &order.files {
            if let Some(parent) = file.path.parent() {
                fs::create_dir_all(parent).map_err(failed)?;
            }
            fs::write(&file.path, &file.content).map_err(failed)?;
            fs::set_permissions(&file.path, fs::Permissions::from_mode(file.mode & 0o7777)).map_err(failed)?;
        }
        for disk in &order.disks {
            server.disks.take(disk).map_err(|e| Failure::Drive(format!("{}: {e}", disk.path.display())))?;
        }
        Ok(())
    }

    fn spawn(&self, order: &Order) -> Result<Child, Failure> {
        let mut state = self.lock();
        if state.ending {
            return Err(Failure::Host("ended before it was started".into()));
        }
        let failed = |error: io::Error| Failure::Command(format!("{}: {error}", order.program.display()));
        let (name, arguments) =
            order.argv.split_first().ok_or_else(|| Failure::Command("an order without a name".into()))?;
        let child = std::process::Command::new(&order.program)
            .arg0(name)
            .args(arguments)
            .env_clear()
            .envs(order.env.iter().map(|(key, value)| (key, value)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        state.pid = Some(Pid::from_child(&child));
        Ok(child)
    }

    /// Moves bytes until the command has ended; its wait status.
    fn attend(self: &Arc<Self>, server: &Arc<Server>, mut child: Child, input: Receiver<Vec<u8>>) -> i32 {
        if let Some(pipe) = child.stdin.take() {
            let (server, held, stream) = (Arc::clone(server), Arc::clone(&self.held), self.stream);
            thread::spawn(move || write_input(&server, stream, pipe, &input, &held));
        }
        let (drained, both_drained) = mpsc::channel();
        type Pipe = Option<Box<dyn Read + Send>>;
        let pipes: [(Kind, &Arc<Window>, Pipe); 2] = [
            (Kind::Stdout, &self.stdout, child.stdout.take().map(|pipe| Box::new(pipe) as _)),
            (Kind::Stderr, &self.stderr, child.stderr.take().map(|pipe| Box::new(pipe) as _)),
        ];
        for (kind, window, pipe) in pipes {
            let (server, window, drained, stream) =
                (Arc::clone(server), Arc::clone(window), drained.clone(), self.stream);
            thread::spawn(move || {
                if let Some(pipe) = pipe {
                    read_output(&server, stream, kind, pipe, &window);
                }
                let _ = drained.send(());
            });
        }
        let status = self.bury(child);
        self.end_input();
        for _ in 0..2 {
            // Output that waits for the caller is waited for; a silent pipe is not.
            while let Err(RecvTimeoutError::Timeout) = both_drained.recv_timeout(LEFT_OPEN) {
                if !self.stdout.is_waiting() && !self.stderr.is_waiting() {
                    break;
                }
            }
        }
        status
    }

    /// Waits for the command's end and takes what it left behind with it.
    fn bury(&self, mut child: Child) -> i32 {
        let pid = Pid::from_child(&child);
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {
        }
        let mut state = self.lock();
        let _ = kill_process_group(pid, Signal::KILL);
        let status = child.wait().map(ExitStatusExt::into_raw).unwrap_or_default();
        state.pid = None;
        state.ended = true;
        drop(state);
        self.changed.notify_all();
        // Process 1 inherits the rest of the group.
        let deadline = Instant::now() + AFTER_SIGTERM;
        while let Ok(buried) = waitpgid(pid, WaitOptions::NOHANG) {
            if buried.is_none() {
                if Instant::now() > deadline {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        status
    }
}

/// Writes what came in to the command's standard input, and gives the room back.
fn write_input(server: &Server, stream: u32, pipe: impl Write, input: &Receiver<Vec<u8>>, held: &AtomicUsize) {
    let (mut pipe, mut room) = (Some(pipe), Room::default());
    for bytes in input {
        // A command that has closed its input does not want it.
        if pipe.as_mut().is_some_and(|pipe| pipe.write_all(&bytes).is_err()) {
            pipe = None;
        }
        held.fetch_sub(bytes.len(), Ordering::Relaxed);
        if let Some(bytes) = room.passed(bytes.len()) {
            let _ = server.send(Kind::Room, stream, &channel::room(Kind::Stdin, bytes));
        }
    }
}

/// Puts a pipe's bytes into frames until its end, as there is room for them.
fn read_output(server: &Server, stream: u32, kind: Kind, mut pipe: impl Read, window: &Window) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let mut bytes = match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        while !bytes.is_empty() {
            // Nobody wants it: the command writes it nevertheless.
            let Some(length) = window.take(bytes.len()) else { break };
            let (now, later) = bytes.split_at(length.min(bytes.len()));
            if server.send(kind, stream, now).is_err() {
                return;
            }
            bytes = later;
        }
    }
}
