//! A started instance on threads of this process, and what its owner holds of it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::event::{Control, Event, Seen};
use super::instance;
use super::session::Session;
use super::spec::InstanceSpec;
use super::volumes::Volumes;
use crate::boot::SharedDisk;
use crate::vmm::config::CpuTopology;
use crate::vmm::groundwork::Groundwork;

/// Opens the root volume for a look, as the guest has left it so far.
pub type OpenDisk = dyn Fn() -> io::Result<SharedDisk> + Send + Sync;

/// A started instance.
pub struct Running {
    /// What it tells, and the way to tell it.
    pub session: Session,
    /// Its root volume.
    pub disk: Arc<OpenDisk>,
    /// Ends when the instance has ended and let go of everything.
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(super) fn new(session: Session, disk: Arc<OpenDisk>, thread: JoinHandle<()>) -> Self {
        Running { session, disk, thread: Some(thread) }
    }
}

impl Drop for Running {
    /// An owner that goes away takes the instance with it.
    fn drop(&mut self) {
        self.session.order(Control::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Why an instance could not be started.
pub type StartError = Box<dyn Error + Send + Sync>;

/// What of an instance can be begun before the rest of it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// Cores.
    pub cores: u32,
    /// Threads per core.
    pub threads_per_core: u32,
    /// The kernel that it will boot first, if that is known.
    pub kernel: Option<PathBuf>,
}

/// Begin. `None` if that is not possible: what the reason was is told when the instance is started.
pub fn prepare(preparation: &Preparation) -> Option<Groundwork> {
    let Preparation { memory_mib, cores, threads_per_core, kernel } = preparation;
    let kernel = kernel.as_deref().map(super::bootfiles::kernel_file).transpose().ok()?;
    let topology = CpuTopology { cores: *cores, threads_per_core: *threads_per_core };
    Groundwork::begin(memory_mib.checked_mul(1 << 20)?, topology, kernel.as_ref()).ok()
}

/// Start an instance on threads of this process, upon what was begun of it. What happens is recorded in `records`; times count from
/// `started`.
pub fn start(
    spec: InstanceSpec,
    records: &Path,
    started: Instant,
    groundwork: Option<Groundwork>,
) -> Result<Running, StartError> {
    let volumes = Volumes::open(&spec)?;
    let (events, seen) = mpsc::channel();
    let (orders, controls) = mpsc::channel();
    let send = orders.clone();
    let session = Session::new(seen, Arc::new(move |control| drop(send.send(control))), records, started)?;
    let root = volumes.root();
    let disk: Arc<OpenDisk> = Arc::new(move || Ok(root.clone() as SharedDisk));
    let thread = std::thread::Builder::new().name("instance".into()).spawn(move || {
        let tell = move |event| drop(events.send(Seen { at: Instant::now(), event }));
        instance::run(&spec, volumes, Arc::new(tell), orders, controls, groundwork);
    })?;
    Ok(Running::new(session, disk, thread))
}

/// An instance in the foreground of a process of its own, inside the emulated host: events go to `output` as lines,
/// orders come from `input` so.
pub fn serve(
    spec: &InstanceSpec,
    input: impl io::Read + Send + 'static,
    output: impl io::Write + Send + 'static,
) -> io::Result<()> {
    let (orders, controls) = mpsc::channel();
    let output = Arc::new(std::sync::Mutex::new(output));
    let tell: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(move |event| {
        if let Ok(mut output) = output.lock() {
            // The owner may be gone; then nobody is left to tell.
            let _ = super::event::write_line(&mut *output, &event).and_then(|()| output.flush());
        }
    });
    let send = orders.clone();
    std::thread::Builder::new().name("orders".into()).spawn(move || {
        let _ = super::event::read_values(input, |control| send.send(control).is_ok());
        // The owner is gone: so is the instance.
        let _ = send.send(Control::Stop);
    })?;
    match Volumes::open(spec) {
        Ok(volumes) => instance::run(spec, volumes, tell, orders, controls, None),
        Err(error) => tell(Event::Ended { end: instance::failed(&*error) }),
    }
    Ok(())
}
