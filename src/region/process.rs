//! An instance's process from the region's side: started, handed what it needs, and keeping its own record.
//!
//! The command that launches an instance executes this program again; standard input of the new process is one end of a socket.
//! Over that it is told, one after the other, what it can prepare while the instance is still being recorded
//! ([`Starting::prepare`]), and what to run; with that comes the instance's lock, held. Then the command watches over the same
//! socket. A process whose command goes away before it has its order has nothing to do, and ends. It leaves the command's session,
//! so nothing that happens to its terminal reaches it.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Region;
use super::error::RegionError;
use super::launch::{LaunchRequest, Pending};
use super::lock::InstanceLock;
use super::paths::Paths;
use crate::boot::cache::KernelCache;
use crate::host::emulated::Tools;
use crate::host::observer::Observer;
use crate::host::process::{self, Launch, Way};
use crate::host::running::{self, Preparation};
use crate::host::sandbox::{self, Rules};
use crate::host::session::Update;
use crate::host::spec::{InstanceSpec, PortForward};
use crate::host::stage::Stage;
use crate::vmm::memory::THREAD_STACK;

/// The command's name for the new process; see [`main`].
pub const COMMAND: &str = "instance-process";

/// What a process on this machine's KVM is told before its order, if anything.
#[derive(Debug, Serialize, Deserialize)]
struct Prelude {
    paths: Paths,
    /// Files that the launch names, beside the region's.
    given: Vec<PathBuf>,
    preparation: Preparation,
}

/// What the new process is to do.
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
    /// Start the process of a pending instance, or give the one that is `starting` its order. It runs on when this one ends, unless it is
    /// `bound_to_owner`.
    ///
    /// # Errors
    /// Whatever keeps a process from being started; the instance is deleted then, or stopped if it has run before.
    pub fn start_process(
        &mut self,
        pending: Pending,
        starting: Option<Starting>,
        way: &Way,
        bound_to_owner: bool,
        started: Instant,
    ) -> Result<Observer, RegionError> {
        let instance_id = pending.instance.instance_id.clone();
        self.spawn(pending, starting, way, bound_to_owner, started)
            .inspect_err(|_| {
                // The lock is free again by now, and there is no process.
                let _ = self.reconcile();
            })
            .map_err(|source| RegionError::File { action: "start the process of", path: instance_id, source })
            .map_err(|error| error.or_no_room("InsufficientInstanceCapacity"))
    }

    fn spawn(
        &self,
        pending: Pending,
        starting: Option<Starting>,
        way: &Way,
        bound_to_owner: bool,
        started: Instant,
    ) -> io::Result<Observer> {
        let Pending { spec, lock, .. } = pending;
        let Starting { stream, prepared } = match starting {
            Some(starting) => starting,
            None => Starting::new()?,
        };
        super::step::reached("run: process spawned");
        if !prepared {
            send(&stream, &None::<Prelude>, None)?;
        }
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
        send(&stream, &order, Some(lock.file()))?;
        super::step::reached("run: order given");
        let (_, observer) = Observer::over(stream)?;
        drop(lock);
        Ok(observer)
    }

    /// What the process of such an instance can prepare before it has its order.
    fn preparation(&self, request: &LaunchRequest) -> Preparation {
        let (of, parameters) = (&request.instance_type, &request.parameters);
        let planned = || KernelCache::open(&self.paths.boot_cache()).ok()?.path(&request.image.amiable.boot.kernel);
        Preparation {
            memory_mib: of.memory_mib,
            cores: of.cores,
            threads_per_core: of.threads_per_core,
            kernel: parameters.kernel.clone().or_else(planned),
        }
    }
}

/// A process that waits to be told which instance is its own.
#[derive(Debug)]
pub struct Starting {
    stream: UnixStream,
    prepared: bool,
}

impl Starting {
    /// Start it.
    pub fn new() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            // Stacks of less than a huge page each: on hosts that give those to all, one of 2 MiB may become one at its first use.
            .env("RUST_MIN_STACK", THREAD_STACK.to_string())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Starting { stream: ours, prepared: false })
    }

    /// Let it begin with what does not depend on the instance's record, for an instance that will run on this machine's KVM. What it
    /// can't prepare, or need not have prepared, does no harm.
    pub fn prepare(&mut self, region: &Region, request: &LaunchRequest) -> io::Result<()> {
        let given = [&request.parameters.kernel, &request.parameters.initrd];
        let prelude = Prelude {
            paths: region.paths.clone(),
            given: given.into_iter().flatten().cloned().collect(),
            preparation: region.preparation(request),
        };
        send(&self.stream, &Some(prelude), None)?;
        self.prepared = true;
        super::step::reached("run: preparation asked for");
        Ok(())
    }
}

/// Send a value: a length of 4 bytes, little-endian, to which a file may be tied, and JSON.
fn send(mut to: &UnixStream, value: &impl Serialize, file: Option<&File>) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes();
    let files = file.map(|file| [file.as_fd()]);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(files) = &files {
        ancillary.push(SendAncillaryMessage::ScmRights(files));
    }
    let sent = sendmsg(to, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    // A socket takes these few bytes whole, or not at all.
    to.write_all(length.get(sent..).unwrap_or_default())?;
    to.write_all(&bytes)
}

/// Receive what [`send`] sent. `None` where the sender is gone instead.
fn receive<T: DeserializeOwned>(mut from: &UnixStream) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut length)], &mut ancillary, flags)?.bytes;
    if got < length.len() {
        return Ok(None);
    }
    let file = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let length = u32::from_le_bytes(length);
    if length > MAX_ORDER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the order is too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some((serde_json::from_slice(&bytes)?, file)))
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
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let Some((prelude, _)) = receive::<Option<Prelude>>(&owner)? else { return Ok(()) };
    let prepared = prelude.is_some();
    let groundwork = prelude.and_then(|Prelude { paths, given, preparation }| {
        // Before anything of a guest's is read, and before the first thread, which a sandbox would not hold.
        shut_in(&paths, &given);
        running::prepare(&preparation)
    });
    super::step::reached("process: prepared");
    let Some((order, Some(lock))) = receive::<Order>(&owner)? else { return Ok(()) };
    let lock = InstanceLock::handed_down(lock.into());
    super::step::reached("process: order read");
    // Known to be this process's from now on, also to people.
    lock.sign(std::process::id())?;
    let id = order.spec.metadata.instance_id.clone();
    if order.emulated.is_none() && !prepared {
        let boot = &order.spec.boot;
        shut_in(&order.paths, &boot.kernel.iter().chain(&boot.initrd).cloned().collect::<Vec<_>>());
    }
    let records = order.paths.instance(&id);
    // What this process itself has to say from now on.
    rustix::stdio::dup2_stderr(OpenOptions::new().append(true).create(true).open(order.paths.process_log(&id))?)?;
    let launch = Launch {
        groundwork,
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

/// From here on the process reaches its region's files, the files that were `given`, and the devices that it needs. One that starts
/// the emulated host does not come here: it executes QEMU, and no guest's code runs in it.
fn shut_in(paths: &Paths, given: &[PathBuf]) {
    let words = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut read = words(&["/proc", "/sys/devices/system/cpu"]);
    read.push(paths.images());
    read.extend(given.iter().cloned());
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

/// Keeps the instance's record. The store is open while there is something to write, after the guest runs.
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
            // What was written was told of: the store is closed, and takes no memory, until there is something again.
            _ => {
                self.region = None;
                Ok(())
            }
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

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
