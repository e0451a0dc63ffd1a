//! The keeper of a shared emulated host: a process of its own, started by the first that needs the machine, that holds
//! QEMU and passes frames between the machine and those who come to its socket.
//!
//! A file lock makes it the only one of its directory, and goes with it however it ends; a socket that a killed one left
//! behind is replaced under that lock. QEMU dies with it. It ends when it is told to ([`Request::Stop`], SIGTERM), and
//! when QEMU ends.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::Mode;
use rustix::process::{setsid, umask};

use super::channel::{self, Failure, Kind, MACHINE};
use boot::Host;
use outbox::Outbox;
use protocol::{Build, Phase, Settings, Status};

mod boot;
mod client;
mod outbox;
mod plugs;
pub(super) mod protocol;
mod qmp;
pub(super) mod socket;

/// The subcommand that makes this binary a keeper; its one argument is a [`Settings`] in JSON.
pub const SUBCOMMAND: &str = "emulate-keeper";

/// How long clients may take to hear of the end.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long the machine may take to power off once its commands have ended.
const POWER_OFF: Duration = Duration::from_secs(20);
/// The grace that commands have when the keeper gets a SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// What became of the machine.
enum Machine {
    Starting,
    Up(Arc<Host>),
    Stopping(Arc<Host>),
    /// It was up.
    Gone,
    /// It never was.
    Failed(String),
}

/// What all threads share.
struct Keeper {
    settings: Settings,
    build: Build,
    since: SystemTime,
    machine: Mutex<Machine>,
    changed: Condvar,
    streams: Mutex<BTreeMap<u32, Arc<Outbox>>>,
    /// How many connections are being served.
    clients: Mutex<usize>,
    client_left: Condvar,
}

impl Keeper {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, machine: Machine) {
        *self.machine() = machine;
        self.changed.notify_all();
    }

    /// The machine, once it is up or known not to get up.
    fn settled(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.machine();
        while matches!(*machine, Machine::Starting) {
            machine = self.changed.wait(machine).unwrap_or_else(PoisonError::into_inner);
        }
        machine
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Outbox>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Status {
        let (phase, host) = match &*self.machine() {
            Machine::Starting => (Phase::Starting, None),
            Machine::Up(host) => (Phase::Up, Some(Arc::clone(host))),
            Machine::Stopping(host) => (Phase::Stopping, Some(Arc::clone(host))),
            Machine::Gone | Machine::Failed(_) => (Phase::Stopping, None),
        };
        let qemu_pid = host.map(|host| host.machine.pid());
        Status {
            phase,
            pid: std::process::id(),
            qemu_pid,
            since: self.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            commands: self.streams().len(),
            memory_mib: self.settings.memory_mib,
            resident_mib: qemu_pid.and_then(resident_mib),
            cpus: self.settings.cpus,
            kernel: self.settings.kernel.image.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Takes the machine down; returns when it is off. Twice is once.
    fn stop(&self, grace: Duration) {
        let host = match &mut *self.settled() {
            Machine::Up(host) | Machine::Stopping(host) => Arc::clone(host),
            Machine::Gone | Machine::Failed(_) | Machine::Starting => return,
        };
        self.set(Machine::Stopping(Arc::clone(&host)));
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let _ = channel::send(&mut *host.channel(), Kind::Bye, MACHINE, &grace_ms.to_le_bytes());
        if host.machine.wait(grace.saturating_add(POWER_OFF)).is_none() {
            host.machine.end();
        }
    }

    /// Nothing runs any more: all that wait hear why.
    fn gone(&self, machine: Machine, why: &str) {
        self.set(machine);
        let text = serde_json::to_vec(&Failure::Host(why.to_owned())).unwrap_or_default();
        for outbox in self.streams().values() {
            outbox.put(Kind::Failed, &text);
        }
        let deadline = Instant::now() + LAST_WORDS;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        while *clients > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            clients = self.client_left.wait_timeout(clients, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The resident set of a process (proc_pid_status(5)).
fn resident_mib(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

/// Is a keeper until the machine's end; the process's exit status. `settings` is a [`Settings`] in JSON.
pub fn main(settings: &str) -> u8 {
    match run(settings) {
        Ok(()) => 0,
        Err(error) => {
            // Standard error is the log.
            eprintln!("{error}");
            1
        }
    }
}

fn run(settings: &str) -> io::Result<()> {
    let settings: Settings = serde_json::from_str(settings)?;
    // Not the starter's: its terminal, its working directory, its umask.
    let _ = setsid();
    umask(Mode::from_raw_mode(0o077));
    std::fs::create_dir_all(&settings.directory)?;
    let Some(_lock) = lock(&settings)? else { return Ok(()) };
    let binary = match &settings.binary {
        Some(path) => path.clone(),
        None => "/proc/self/exe".into(),
    };
    let build = Build::of(&binary)?;
    let listener = socket::listen(&settings.directory)?;
    std::env::set_current_dir("/")?;
    let keeper = Arc::new(Keeper {
        settings,
        build,
        since: SystemTime::now(),
        machine: Mutex::new(Machine::Starting),
        changed: Condvar::new(),
        streams: Mutex::default(),
        clients: Mutex::default(),
        client_left: Condvar::new(),
    });
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])?;
    let stopper = Arc::clone(&keeper);
    thread::spawn(move || {
        for _ in signals.forever() {
            let stopper = Arc::clone(&stopper);
            thread::spawn(move || stopper.stop(GRACE));
        }
    });
    let for_clients = Arc::clone(&keeper);
    thread::spawn(move || client::accept(&for_clients, &listener));

    let result = match boot::boot(&keeper, &binary) {
        Ok(host) => {
            keeper.set(Machine::Up(Arc::clone(&host)));
            while host.machine.wait(Duration::from_secs(3600)).is_none() {}
            let asked = matches!(&*keeper.machine(), Machine::Stopping(_));
            let why = if asked { "was stopped".to_owned() } else { format!("ended{}", host.machine.tail()) };
            keeper.gone(Machine::Gone, &why);
            if asked { Ok(()) } else { Err(io::Error::other(format!("the emulated host {why}"))) }
        }
        Err(error) => {
            let why = format!("did not start: {error}");
            keeper.gone(Machine::Failed(why.clone()), &why);
            Err(io::Error::other(error.to_string()))
        }
    };
    let _ = std::fs::remove_file(socket::path(&keeper.settings.directory));
    result
}

/// The lock that says who the keeper is; `None` if there is one already.
fn lock(settings: &Settings) -> io::Result<Option<File>> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(settings.directory.join(socket::LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}
