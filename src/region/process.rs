//! An instance's process from the region's side: started, handed what it needs, and keeping its own record.
//!
//! The command that launches an instance executes this program again with three descriptors: standard input is one end of a
//! socket, over which the new process is told what to run and over which the command then watches; standard output is the
//! instance's lock, held; standard error is a log in the instance's records. The new process leaves the command's session, so
//! nothing that happens to its terminal reaches it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Region;
use super::error::RegionError;
use super::launch::Pending;
use super::lock::InstanceLock;
use super::paths::Paths;
use crate::host::emulated::Tools;
use crate::host::observer::Observer;
use crate::host::process::{self, Launch, Way};
use crate::host::sandbox::{self, Rules};
use crate::host::session::Update;
use crate::host::spec::{InstanceSpec, PortForward};
use crate::host::stage::Stage;

/// The command's name for the new process; see [`main`].
pub const COMMAND: &str = "instance-process";

/// What the new process is told: a length of 4 bytes, little-endian, and JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    paths: Paths,
    spec: InstanceSpec,
    emulated: Option<Tools>,
    bound_to_owner: bool,
    /// When the launch command started: nanoseconds of the monotonic clock, which both processes share.
    started: u64,
}

/// An order holds user-data, a command line, tags.
const MAX_ORDER: u32 = 1 << 20;

impl Region {
    /// Start the process of a pending instance. It runs on when this one ends, unless it is `bound_to_owner`.
    ///
    /// # Errors
    /// Whatever keeps a process from being started; the instance is deleted then, or stopped if it has run before.
    pub fn start_process(
        &mut self,
        pending: Pending,
        way: &Way,
        bound_to_owner: bool,
        started: Instant,
    ) -> Result<Observer, RegionError> {
        let instance_id = pending.instance.instance_id.clone();
        self.spawn(pending, way, bound_to_owner, started)
            .inspect_err(|_| {
                // The lock is free again by now, and there is no process.
                let _ = self.reconcile();
            })
            .map_err(|source| RegionError::File { action: "start the process of", path: instance_id, source })
            .map_err(|error| error.or_no_room("InsufficientInstanceCapacity"))
    }

    fn spawn(&self, pending: Pending, way: &Way, bound_to_owner: bool, started: Instant) -> io::Result<Observer> {
        let Pending { instance, spec, lock } = pending;
        let log = self.paths.process_log(&instance.instance_id);
        let log = OpenOptions::new().append(true).create(true).open(log)?;
        let (ours, theirs) = UnixStream::pair()?;
        let process = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::from(lock.file().try_clone()?))
            .stderr(log)
            .spawn()?;
        // Known to be that process's from now on, also to people.
        lock.sign(process.id())?;
        super::step::reached("run: process spawned");
        let order = Order {
            paths: self.paths.clone(),
            spec,
            emulated: match way {
                Way::Native => None,
                Way::Emulated(tools) => Some((**tools).clone()),
            },
            bound_to_owner,
            started: monotonic().saturating_sub(started.elapsed()).as_nanos() as u64,
        };
        let order = serde_json::to_vec(&order)?;
        let mut stream = &ours;
        stream.write_all(&(order.len() as u32).to_le_bytes())?;
        stream.write_all(&order)?;
        super::step::reached("run: order given");
        let (_, observer) = Observer::over(ours)?;
        drop(lock);
        Ok(observer)
    }
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The process of one instance, from its first to its last moment. Answers the exit status.
pub fn main() -> u8 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            // Into the log: nobody else listens yet.
            eprintln!("{error}");
            255
        }
    }
}

fn serve() -> io::Result<()> {
    // Its own session: no terminal's Ctrl-C or hang-up.
    let _ = rustix::process::setsid();
    let owner = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let lock = InstanceLock::handed_down(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    let order = read_order(&owner)?;
    super::step::reached("process: order read");
    let id = order.spec.metadata.instance_id.clone();
    if order.emulated.is_none() {
        shut_in(&order.paths, &order.spec);
    }
    let records = order.paths.instance(&id);
    let launch = Launch {
        control: order.paths.control(&id),
        records,
        way: order.emulated.map_or(Way::Native, |tools| Way::Emulated(Box::new(tools))),
        owner,
        bound_to_owner: order.bound_to_owner,
        started: Instant::now() - monotonic().saturating_sub(Duration::from_nanos(order.started)),
        spec: order.spec,
    };
    let mut keeper =
        Keeper { paths: order.paths, region: None, instance_id: id, runs: false, ports: Vec::new(), lock: Some(lock) };
    process::run(launch, &mut |update, outcome| keeper.keep(update, outcome));
    Ok(())
}

/// From here on the process reaches its region's files and the devices that it needs. One that starts the emulated host does not come
/// here: it executes QEMU, and no guest's code runs in it.
fn shut_in(paths: &Paths, spec: &InstanceSpec) {
    let words = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut read = words(&["/proc", "/sys/devices/system/cpu"]);
    read.push(paths.images());
    read.extend(spec.boot.kernel.iter().chain(&spec.boot.initrd).cloned());
    let mut write = words(&["/dev/kvm", "/dev/null", "/dev/urandom"]);
    // Made if it is not there, for what is not there can't be allowed.
    let own = [paths.state().to_owned(), paths.volumes(), paths.boot_cache()];
    own.iter().for_each(|path| drop(std::fs::create_dir_all(path)));
    write.extend(own);
    if let Err(error) = sandbox::enter(&Rules { read, write }) {
        // As on a kernel without it: the instance runs.
        eprintln!("the process is not shut in: {error}");
    }
}

fn read_order(mut from: &UnixStream) -> io::Result<Order> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_ORDER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the order is too long"));
    }
    let mut order = vec![0; length as usize];
    from.read_exact(&mut order)?;
    Ok(serde_json::from_slice(&order)?)
}

/// Keeps the instance's record. The store is opened when there is something to write, after the guest runs.
struct Keeper {
    paths: Paths,
    region: Option<Region>,
    instance_id: String,
    runs: bool,
    ports: Vec<PortForward>,
    /// Given up before anybody is told of the end.
    lock: Option<InstanceLock>,
}

impl Keeper {
    fn keep(&mut self, update: &Update, outcome: Option<&process::Outcome>) {
        let id = self.instance_id.clone();
        let result = match update {
            Update::Stage(mark) if mark.stage == Stage::Machine && !self.runs => {
                self.runs = true;
                let ports = std::mem::take(&mut self.ports);
                super::step::reached("process: guest runs");
                let result = self.with(|region| region.process_runs(&id, ports));
                super::step::reached("process: recorded as running");
                result
            }
            // Told before the guest runs; kept until then, for a transaction less.
            Update::Published(ports) if !self.runs => {
                self.ports.clone_from(ports);
                Ok(())
            }
            Update::Published(ports) => self.with(|region| region.process_publishes(&id, ports)),
            Update::Judged(Some(verdict)) => self.with(|region| region.process_judged(&id, verdict)),
            Update::Ended(_) => {
                super::step::reached("process: guest ended");
                let result = outcome.map_or(Ok(()), |outcome| self.with(|region| region.process_ended(&id, outcome)));
                self.lock = None;
                result
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            // The record will be put right by the next command that looks at it.
            eprintln!("the instance's record could not be written: {error}");
        }
    }

    fn with(&mut self, work: impl FnOnce(&mut Region) -> Result<(), RegionError>) -> Result<(), RegionError> {
        let mut region = match self.region.take() {
            Some(region) => region,
            None => Region::open(self.paths.clone())?,
        };
        let result = work(&mut region);
        self.region = Some(region);
        result
    }
}
