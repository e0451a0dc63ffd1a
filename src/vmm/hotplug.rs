//! Volumes that come and go while the guest runs.
//!
//! Hot-plug is ACPI's, as on Nitro: the firmware tables name every slot of bus 0 that may change ([`super::acpi`]), the
//! generic event device tells the guest to look at one or to let go of it ([`super::devices::events`]), and the guest says
//! by `_EJ0` that it did. A slot goes through these states:
//!
//! ```text
//! free --attach--> volume --_EJ0---------------> leaving --back end released--> free
//!                    |                              ^
//!                    +--force_detach--> leaving ----+ _EJ0, which the guest is asked for once the slot is empty
//! ```
//!
//! Until the guest has said `_EJ0`, also after a forced detachment, nothing else goes into the slot: its driver would take the new volume
//! for the old one.
//!
//! The guest may write anything to the eject register, at any time: slots with a volume that may go lose it, and the owner
//! hears of it; others are ignored.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::config::{VolumeConfig, VolumeIdentity};
use super::devices::events::Events;
use super::interrupt::MsiRouter;
use super::memory::GuestMemory;
use super::nvme::{NvmeController, NvmeHandle};
use super::pci::PciFunction;
use super::pci::root::{PciRoot, RootError, SLOTS};

/// How long a controller's commands in flight may take before it is taken away regardless.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a volume can't be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    /// A slot that does not exist, or holds a device that stays as long as the machine.
    #[error("PCI slot {0} is not for volumes that come and go")]
    Fixed(u8),
    /// A volume is in the slot.
    #[error("PCI slot {0} holds another volume")]
    Taken(u8),
    /// The guest has not ejected the volume that was in the slot.
    #[error("the guest has not let go of the volume that was in PCI slot {0}")]
    Leaving(u8),
    /// No volume is in the slot.
    #[error("PCI slot {0} holds no volume")]
    Empty(u8),
    /// The machine does not run any more.
    #[error("the machine has ended")]
    Ended,
    /// The controller could not be built.
    #[error("cannot build the NVMe controller in PCI slot {0}")]
    Device(u8, #[source] io::Error),
    /// The controller did not find a place.
    #[error("cannot add the NVMe controller in PCI slot {0}")]
    Slot(u8, #[source] RootError),
}

/// What happens to a machine's devices while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// The volume in this slot is gone, and its back end is released: the guest ejected it, by request or on its own, or it
    /// was taken away.
    Detached(u8),
}

/// A volume on the bus.
struct Volume {
    function: Arc<Mutex<NvmeController>>,
    handle: NvmeHandle,
    /// The guest may let go of it.
    removable: bool,
}

/// What is left to do when a volume leaves.
type Job = Box<dyn FnOnce() + Send>;

enum Place {
    Volume(Volume),
    Leaving {
        /// The guest has let go of it.
        ejected: bool,
        /// The back end was let go of.
        released: bool,
    },
}

#[derive(Default)]
struct State {
    places: BTreeMap<u8, Place>,
    /// A bit for each slot that the firmware tables say may change.
    changeable: u32,
    listeners: Vec<Sender<MachineEvent>>,
    workers: Vec<JoinHandle<()>>,
    ended: bool,
}

/// The volumes of a machine. Locks are taken in the order state, PCI function, PCI map.
pub struct Hotplug {
    pci: Arc<PciRoot>,
    router: Arc<dyn MsiRouter>,
    memory: GuestMemory,
    /// I/O queues of a controller.
    queues: u16,
    events: Arc<Events>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Hotplug {
    /// No volumes yet. `vcpus` is the number of vCPUs.
    pub fn new(
        pci: Arc<PciRoot>,
        router: Arc<dyn MsiRouter>,
        memory: GuestMemory,
        vcpus: u32,
        events: Arc<Events>,
    ) -> Self {
        let queues = u16::try_from(vcpus).unwrap_or(u16::MAX);
        Self { pci, router, memory, queues, events, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Put in a volume that is there from the start; the first one is the root volume. Answers whether it may go: the root
    /// volume and instance-store disks stay.
    pub fn add(self: &Arc<Self>, config: VolumeConfig, first: bool) -> Result<bool, HotplugError> {
        let slot = config.slot;
        let removable = !first && matches!(config.identity, VolumeIdentity::Ebs { .. });
        let volume = self.controller(config, removable)?;
        let function = Arc::clone(&volume.function);
        self.put(&mut self.state(), slot, volume, self.pci.add(slot, function))?;
        Ok(removable)
    }

    /// What the firmware tables say: the slots that may change.
    pub fn set_changeable(&self, slots: &[u8]) {
        self.state().changeable = slots.iter().map(|slot| bit(*slot)).fold(0, |all, bit| all | bit);
    }

    /// Put a volume into a free slot and tell the guest.
    pub fn attach(self: &Arc<Self>, config: VolumeConfig) -> Result<(), HotplugError> {
        let slot = config.slot;
        let mut state = self.state();
        if state.ended {
            return Err(HotplugError::Ended);
        }
        if state.changeable & bit(slot) == 0 {
            return Err(HotplugError::Fixed(slot));
        }
        match state.places.get(&slot) {
            Some(Place::Volume(_)) => return Err(HotplugError::Taken(slot)),
            Some(Place::Leaving { .. }) => return Err(HotplugError::Leaving(slot)),
            None => {}
        }
        let volume = self.controller(config, true)?;
        let function = Arc::clone(&volume.function);
        self.put(&mut state, slot, volume, self.pci.plug(slot, function))?;
        self.events.plugged(slot);
        Ok(())
    }

    fn controller(&self, config: VolumeConfig, removable: bool) -> Result<Volume, HotplugError> {
        let VolumeConfig { slot, identity, backend } = config;
        let (memory, router) = (self.memory.clone(), Arc::clone(&self.router));
        let controller = NvmeController::new(identity, backend, memory, router, self.queues)
            .map_err(|error| HotplugError::Device(slot, error))?;
        let handle = controller.handle();
        Ok(Volume { function: Arc::new(Mutex::new(controller)), handle, removable })
    }

    fn put(
        self: &Arc<Self>,
        state: &mut State,
        slot: u8,
        volume: Volume,
        on_bus: Result<(), RootError>,
    ) -> Result<(), HotplugError> {
        on_bus.map_err(|error| HotplugError::Slot(slot, error))?;
        let this = Arc::downgrade(self);
        // Only now: a controller that finds no place is dropped with the lock held.
        lock(&volume.function).on_release(move || {
            if let Some(this) = this.upgrade() {
                this.released(slot);
            }
        });
        state.places.insert(slot, Place::Volume(volume));
        Ok(())
    }

    /// Ask the guest to let go of a volume. It may take its time, or not listen; asking again does no harm while the volume
    /// is there.
    pub fn request_detach(&self, slot: u8) -> Result<(), HotplugError> {
        let state = self.state();
        match state.places.get(&slot) {
            _ if state.ended => return Err(HotplugError::Ended),
            None => return Err(HotplugError::Empty(slot)),
            Some(Place::Volume(volume)) if !volume.removable => return Err(HotplugError::Fixed(slot)),
            Some(Place::Leaving { ejected: true, .. }) => {}
            Some(_) => self.events.request_eject(slot),
        }
        Ok(())
    }

    /// Take a volume away, whatever the guest is doing with it: like pulling a disk. Commands in flight are finished first;
    /// then the slot is empty, and the guest is told. Answers at once; [`MachineEvent::Detached`] follows.
    pub fn force_detach(self: &Arc<Self>, slot: u8) -> Result<(), HotplugError> {
        let mut state = self.state();
        match state.places.get(&slot) {
            _ if state.ended => return Err(HotplugError::Ended),
            None => return Err(HotplugError::Empty(slot)),
            Some(Place::Leaving { .. }) => return Ok(()),
            Some(Place::Volume(volume)) if !volume.removable => return Err(HotplugError::Fixed(slot)),
            Some(Place::Volume(_)) => {}
        }
        let leaving = Place::Leaving { ejected: false, released: false };
        let Some(Place::Volume(volume)) = state.places.insert(slot, leaving) else { return Ok(()) };
        let this = Arc::clone(self);
        self.work(state, move || {
            volume.handle.close(PATIENCE);
            // Only now: a guest that notices by itself reuses the memory that commands were about to write to.
            drop(this.pci.remove(slot));
            if let Some(Place::Leaving { ejected: false, .. }) = this.state().places.get(&slot) {
                this.events.request_eject(slot);
            }
            let Volume { function, handle, .. } = volume;
            drop(handle);
            lock(&function).unplug();
        });
        Ok(())
    }

    /// The guest has let go of `slots`, a bit each. On a vCPU's thread.
    pub fn ejected(self: &Arc<Self>, slots: u32) {
        for slot in (0..SLOTS).filter(|slot| slots & bit(*slot) != 0) {
            let mut state = self.state();
            let ended = state.ended;
            match state.places.get_mut(&slot) {
                Some(Place::Leaving { ejected, .. }) => {
                    *ejected = true;
                    self.settle(&mut state, slot);
                    continue;
                }
                Some(Place::Volume(volume)) if volume.removable && !ended => {}
                _ => continue,
            }
            let leaving = Place::Leaving { ejected: true, released: false };
            let Some(Place::Volume(volume)) = state.places.insert(slot, leaving) else { continue };
            drop(self.pci.remove(slot));
            // Closing may have to wait for the host's disk, and a vCPU must not.
            self.work(state, move || {
                let Volume { function, handle, .. } = volume;
                handle.close(PATIENCE);
                drop(handle);
                lock(&function).unplug();
            });
        }
    }

    /// Have `job` done by a thread that the machine's end waits for; here, if there is none to be had.
    fn work(&self, mut state: MutexGuard<'_, State>, job: impl FnOnce() + Send + 'static) {
        state.workers.retain(|worker| !worker.is_finished());
        // A thread that can't be started takes its closure with it: the job follows when it runs.
        let (give, take) = channel::<Job>();
        let job: Job = Box::new(job);
        let body = move || {
            if let Ok(job) = take.recv() {
                job();
            }
        };
        let job = match Builder::new().name("detach".into()).spawn(body) {
            Ok(worker) => {
                state.workers.push(worker);
                give.send(job).err().map(|unsent| unsent.0)
            }
            Err(error) => {
                log::warn!("can't start a thread to detach a volume: {error}");
                Some(job)
            }
        };
        drop(state);
        if let Some(job) = job {
            job();
        }
    }

    /// A controller is gone. On the thread that let go of it last, which may be a vCPU's.
    fn released(&self, slot: u8) {
        let mut state = self.state();
        if let Some(Place::Leaving { released, .. }) = state.places.get_mut(&slot) {
            *released = true;
            state.listeners.retain(|listener| listener.send(MachineEvent::Detached(slot)).is_ok());
            self.settle(&mut state, slot);
        }
    }

    fn settle(&self, state: &mut State, slot: u8) {
        if let Some(Place::Leaving { ejected: true, released: true }) = state.places.get(&slot) {
            state.places.remove(&slot);
        }
        self.changed.notify_all();
    }

    /// Wait until no volume is in `slot` and the back end of the one that was there is released; `false` if that takes
    /// longer than `patience`. A machine that has ended has no volumes.
    pub fn wait_detached(&self, slot: u8, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        loop {
            match state.places.get(&slot) {
                Some(Place::Volume(_) | Place::Leaving { released: false, .. }) if !state.ended => {}
                _ => return true,
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The slots that a volume can be attached in now, ascending.
    pub fn free_slots(&self) -> Vec<u8> {
        let state = self.state();
        let free = |slot: &u8| state.changeable & bit(*slot) != 0 && !state.places.contains_key(slot) && !state.ended;
        (0..SLOTS).filter(free).collect()
    }

    /// A volume's back end has a new size: let the guest look.
    pub fn resized(&self, slot: u8) -> Result<(), HotplugError> {
        let handle = match self.state().places.get(&slot) {
            Some(Place::Volume(volume)) => volume.handle.clone(),
            _ => return Err(HotplugError::Empty(slot)),
        };
        handle.resize_notify();
        Ok(())
    }

    /// What happens from now on, until the machine's end.
    pub fn listen(&self) -> Receiver<MachineEvent> {
        let (sender, receiver) = channel();
        let mut state = self.state();
        if !state.ended {
            state.listeners.push(sender);
        }
        receiver
    }

    /// The machine has ended: let go of all volumes, and of the listeners.
    pub fn end(&self) {
        let (places, workers) = {
            let mut state = self.state();
            state.ended = true;
            state.listeners.clear();
            (std::mem::take(&mut state.places), std::mem::take(&mut state.workers))
        };
        self.changed.notify_all();
        for (slot, place) in places {
            if let Place::Volume(volume) = place {
                drop(self.pci.remove(slot));
                lock(&volume.function).shutdown();
            }
        }
        for worker in workers {
            // A panic was reported by the thread itself.
            let _ = worker.join();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(function: &Mutex<NvmeController>) -> MutexGuard<'_, NvmeController> {
    // A panic in a vCPU thread ends the machine; until then the others need an answer.
    function.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bit(slot: u8) -> u32 {
    1u32.checked_shl(slot.into()).unwrap_or(0)
}

#[cfg(test)]
#[path = "hotplug_tests.rs"]
mod tests;
