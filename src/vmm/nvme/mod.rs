//! NVMe controller (NVM Express Base 1.4 over PCI Express): EBS volumes and instance-store disks as EC2 shows them.
//!
//! # Who does the work
//!
//! A doorbell write can be turned into an eventfd that wakes an I/O thread, or it can stop the vCPU that wrote it, which
//! then does the command itself. The first costs two context switches a command and lets the guest go on meanwhile; the
//! second costs none, and the guest stands still. Which is better depends on how long the command takes:
//!
//! - What is in the host's page cache is moved in a few microseconds, sooner than a thread wakes up. So the vCPU tries
//!   each command with [`Wait::Never`](super::backend::Wait::Never); the completion is posted and its interrupt raised
//!   before the guest runs on.
//! - What would block, and what is left of a long batch, goes to the I/O threads (`pool`). While one of them works on a
//!   queue, vCPUs leave that queue to it: their doorbells end at once, and with shadow doorbells they don't ring at all.
//!   A thread that must wait for the disk while more commands are there calls another one first, so that a deep queue
//!   keeps several accesses of the host's disk in flight.
//! - Writes and flushes have no "never wait" that tells the truth (file systems refuse it), so the time that they took
//!   lately decides (`pace`).
//!
//! A disk may have limits (`hold`): then a command that is not due yet goes to the I/O threads, which wait for that.
//!
//! With shadow doorbells (Doorbell Buffer Config, which Linux uses) completion queue heads are never rung, so a command
//! of queue depth one costs the guest one exit.
//!
//! Linux gives each vCPU a queue of its own, and queues share no lock but a completion queue's.
//!
//! # What is where
//!
//! `spec` has the wire format, `registers` enabling and resetting, `runner` the loop that runs queues, `controller` what it runs on, `queue` the
//! rings and shadow doorbells, `prp` where data lies, `nvm`, `admin`, `features`, `log_page` and `identify` the commands.
//!
//! Everything in guest memory is hostile: a command is fetched once, addresses are checked against guest memory at
//! each access, walks are bounded by the transfer's length, and loops by the size of queues that were checked.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backend::BlockBackend;
use super::config::VolumeIdentity;
use super::interrupt::MsiRouter;
use super::memory::GuestMemory;
use super::pci::config::{BarKind, ConfigSpace, Identity};
use super::pci::msix::Msix;
use super::pci::{DirectWrites, PciFunction};

mod admin;
mod controller;
mod features;
mod hold;
mod identify;
mod log_page;
mod nvm;
mod pace;
mod pool;
mod prp;
mod queue;
mod registers;
mod runner;
mod spec;
mod statistics;
#[cfg(test)]
pub(super) mod testing;

use controller::{Controller, Slot};
use pool::Pool;
use spec::register;

/// The most I/O queues of a controller, of each kind.
pub const MAX_IO_QUEUES: u16 = 64;

/// Mass storage, non-volatile memory, NVM Express.
const CLASS: u32 = 0x01_08_02;
const BAR: usize = 0;
/// Registers and doorbells, the vector table, the pending bits: one page each.
const BAR_SIZE: u64 = 0x4000;
const MSIX_TABLE: u64 = 0x2000;
const MSIX_PENDING: u64 = 0x3000;
const DOORBELL_SIZE: u64 = 4;

/// An NVMe controller with one namespace, as a PCI function.
pub struct NvmeController {
    config: ConfigSpace,
    msix: Msix,
    controller: Arc<Controller>,
    /// Dropped after all else.
    _released: Option<Notice>,
}

/// Tells, when it is dropped, that the controller is gone, and its hold on the back end with it.
struct Notice(Option<Box<dyn FnOnce() + Send>>);

impl Drop for Notice {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell();
        }
    }
}

/// Reaches a controller that is on the bus.
#[derive(Clone)]
pub struct NvmeHandle(Arc<Controller>);

impl NvmeHandle {
    /// The back end has a new size: let the guest look.
    pub fn resize_notify(&self) {
        self.0.namespace_resized();
    }

    /// Before the controller is taken from a running guest: take no more commands, and wait for those in flight, but no
    /// longer than `patience`.
    pub fn close(&self, patience: Duration) {
        self.0.close(patience);
    }
}

impl NvmeController {
    /// A controller for the volume behind `backend`, with 1 to [`MAX_IO_QUEUES`] I/O queue pairs (as many as vCPUs is
    /// best; other values are brought into the range).
    pub fn new(
        identity: VolumeIdentity,
        backend: Arc<dyn BlockBackend>,
        memory: GuestMemory,
        router: Arc<dyn MsiRouter>,
        io_queues: u16,
    ) -> io::Result<Self> {
        Self::with_pool(identity, backend, memory, router, io_queues, Pool::new(pool::LIMIT))
    }

    fn with_pool(
        identity: VolumeIdentity,
        backend: Arc<dyn BlockBackend>,
        memory: GuestMemory,
        router: Arc<dyn MsiRouter>,
        io_queues: u16,
        pool: Pool,
    ) -> io::Result<Self> {
        let io_queues = io_queues.clamp(1, MAX_IO_QUEUES);
        let mut config = ConfigSpace::new(Identity {
            vendor: identify::VENDOR,
            device: identify::device_id(&identity),
            class: CLASS,
            revision: 0,
            subsystem_vendor: identify::VENDOR,
            subsystem: identify::device_id(&identity),
        });
        config.add_bar(BAR, BAR_SIZE, BarKind::Mmio64 { prefetchable: false })?;
        let mut msix = Msix::new(io_queues + 1, BAR as u8, MSIX_TABLE as u32, MSIX_PENDING as u32, router)?;
        msix.add_capability(&mut config)?;
        let queues = 0..=io_queues;
        let hold = hold::Hold::new(backend.throttle());
        let controller = Arc::new(Controller {
            memory,
            backend,
            identity,
            interrupts: msix.handle(),
            io_queues,
            registers: Mutex::default(),
            admin: Mutex::default(),
            submissions: queues.clone().map(|_| Mutex::new(Slot::default())).collect(),
            completions: queues.clone().map(|_| Mutex::new(None)).collect(),
            shadow: queue::Shadow::default(),
            ready: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            fatal: AtomicBool::new(false),
            entry_sizes_set: AtomicBool::new(false),
            complained: AtomicBool::new(false),
            write_cache: AtomicBool::new(true),
            paces: pace::Paces::default(),
            statistics: queues.map(|_| statistics::Statistics::default()).collect(),
            pool,
            hold,
        });
        Ok(NvmeController { config, msix, controller, _released: None })
    }

    /// A handle that outlives the function's move onto the bus.
    pub fn handle(&self) -> NvmeHandle {
        NvmeHandle(Arc::clone(&self.controller))
    }

    /// Have `tell` called when the controller is gone: no thread uses the back end any more, and no reference to it is left
    /// here, unless somebody holds a [`handle`](Self::handle).
    pub fn on_release(&mut self, tell: impl FnOnce() + Send + 'static) {
        self._released = Some(Notice(Some(Box::new(tell))));
    }

    /// Shut down, and give the interrupt lines back to a machine that goes on.
    pub fn unplug(&mut self) {
        self.shutdown();
        self.msix.release();
    }

    /// Do what is in I/O submission queue `qid` now, as a doorbell write does.
    pub fn process(&self, qid: u16) {
        self.controller.process(qid);
    }
}

impl PciFunction for NvmeController {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        self.msix.config_written(&self.config);
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if bar != BAR || self.msix.read_bar(offset, data) {
            return;
        }
        if offset < register::DOORBELLS {
            self.controller.read_register(offset, data);
        } else {
            // Doorbells are write-only.
            data.fill(0);
        }
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) {
        if bar != BAR || self.msix.write_bar(offset, data) {
            return;
        }
        if !ring(&self.controller, offset, data) {
            self.controller.write_register(offset, data);
        }
    }

    fn direct_writes(&self) -> Option<Arc<dyn DirectWrites>> {
        Some(Arc::new(DoorbellWrites(Arc::clone(&self.controller))))
    }

    fn shutdown(&mut self) {
        self.controller.not_ready();
        self.controller.pool.stop();
    }
}

/// Doorbells, from several vCPUs at once.
struct DoorbellWrites(Arc<Controller>);

impl DirectWrites for DoorbellWrites {
    fn write(&self, bar: usize, offset: u64, data: &[u8]) -> bool {
        bar == BAR && ring(&self.0, offset, data)
    }
}

/// Take a write to the doorbells; `false` if `offset` is not among them.
fn ring(controller: &Arc<Controller>, offset: u64, data: &[u8]) -> bool {
    if !(register::DOORBELLS..MSIX_TABLE).contains(&offset) {
        return false;
    }
    if let (Ok(value), 0) = (<[u8; 4]>::try_from(data), offset % DOORBELL_SIZE) {
        controller.doorbell((offset - register::DOORBELLS) / DOORBELL_SIZE, u32::from_le_bytes(value));
    }
    true
}

impl Drop for NvmeController {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for NvmeController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NvmeController").field("identity", &self.controller.identity).finish_non_exhaustive()
    }
}

impl fmt::Debug for NvmeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NvmeHandle").field(&self.0.identity).finish()
    }
}
