//! The volumes of a running instance: opened before it starts, plugged in and out while it runs, snapshotted, grown.
//!
//! They outlive the machine, which is built anew for each boot of the guest from what is plugged in then. Changes are made one at a
//! time on a thread of their own: a guest may take its time to let go of a volume, and orders must not wait for that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::End;
use super::event::{Event, VolumeChange};
use super::instance::{Tell, failed};
use super::running::StartError;
use super::spec::{InstanceSpec, StoreDisk, VOLUME_SLOTS, VolumeSpec};
use super::store_disk;
use crate::boot::Disk;
use crate::storage::limits::{InstanceLimits, Limited, Limits};
use crate::storage::{LiveVolume, OpenMode, RawImage};
use crate::vmm::config::{VolumeConfig, VolumeIdentity};
use crate::vmm::machine::MachineHandle;

/// How long a guest may take to let go of a volume: its file systems must be unmounted by then.
const DETACH: Duration = Duration::from_secs(30);

struct Attached {
    spec: VolumeSpec,
    volume: Arc<LiveVolume>,
    limits: Option<Arc<Limits>>,
}

/// What an instance's volumes share.
struct Shared(Option<Arc<InstanceLimits>>);

impl Attached {
    fn open(spec: VolumeSpec, shared: Option<&Shared>) -> Result<Self, StartError> {
        let mode = if spec.throw_away { OpenMode::ThrowAway } else { OpenMode::ReadWrite };
        let volume = Arc::new(spec.chain.open_volume(&spec.top, mode)?);
        let performance = spec.provisioned.performance(Disk::size(&*volume));
        let limits = shared.map(|shared| Arc::new(Limits::new(performance, shared.0.clone(), Instant::now())));
        Ok(Attached { spec, volume, limits })
    }

    /// `root`: the device name goes without `/dev/` into the identity of what was there at launch.
    fn config(&self, at_launch: bool) -> VolumeConfig {
        let name = &self.spec.device_name;
        let device_name = if at_launch { name.trim_start_matches("/dev/") } else { name };
        VolumeConfig {
            slot: self.spec.slot,
            identity: VolumeIdentity::Ebs {
                volume_id: self.spec.volume_id.clone(),
                device_name: device_name.to_owned(),
            },
            backend: match &self.limits {
                Some(limits) => Arc::new(Limited::new(self.volume.clone(), limits.clone())),
                None => self.volume.clone(),
            },
        }
    }
}

/// All volumes of an instance.
pub(super) struct Volumes {
    root: Arc<LiveVolume>,
    /// If they have limits.
    shared: Option<Shared>,
    /// The root volume first.
    attached: Mutex<Vec<Attached>>,
    /// The instance-store disks: they stay.
    stores: Vec<(StoreDisk, Arc<RawImage>)>,
    /// Held while one change is made.
    changing: Mutex<()>,
}

impl Volumes {
    /// Open them, alone.
    pub fn open(spec: &InstanceSpec) -> Result<Self, StartError> {
        let limits = |performance| Arc::new(InstanceLimits::new(performance, Instant::now()));
        let shared = spec.limits.map(|of| Shared(of.instance.map(limits)));
        let root = Attached::open(spec.root.clone(), shared.as_ref())?;
        let mut attached = vec![root];
        for volume in &spec.volumes {
            attached.push(Attached::open(volume.clone(), shared.as_ref())?);
        }
        let mut stores = Vec::new();
        for disk in &spec.instance_store {
            stores.push((disk.clone(), store_disk::open(disk)?));
        }
        Ok(Volumes {
            root: attached[0].volume.clone(),
            shared,
            attached: Mutex::new(attached),
            stores,
            changing: Mutex::default(),
        })
    }

    /// The root volume.
    pub fn root(&self) -> Arc<LiveVolume> {
        self.root.clone()
    }

    /// What a machine is built with.
    pub fn configs(&self) -> Vec<VolumeConfig> {
        let attached = self.lock();
        let volumes = attached.iter().enumerate().map(|(index, attached)| attached.config(index == 0));
        volumes.chain(self.stores.iter().map(|(disk, file)| store_disk::config(disk, file.clone()))).collect()
    }

    /// Forget volumes that the guest lets go of on its own.
    pub fn follow(self: &Arc<Self>, machine: &MachineHandle) {
        let (events, volumes) = (machine.events(), Arc::downgrade(self));
        // It ends with the machine. Without it a volume that the guest ejected comes back at its next boot.
        let _ = std::thread::Builder::new().name("volume events".into()).spawn(move || {
            use crate::vmm::hotplug::MachineEvent;
            while let Ok(MachineEvent::Detached(slot)) = events.recv() {
                let Some(volumes) = volumes.upgrade() else { return };
                volumes.lock().retain(|attached| attached.spec.slot != slot);
            }
        });
    }

    /// Make a change, and answer.
    pub fn change(self: &Arc<Self>, id: u64, change: VolumeChange, machine: Option<MachineHandle>, tell: &Tell) {
        let (volumes, answer) = (self.clone(), tell.clone());
        let changing = std::thread::Builder::new().name("volume change".into()).spawn(move || {
            let _one_at_a_time = volumes.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let error = volumes.make(change, machine.as_ref()).err().map(|error| match failed(&*error) {
                End::Failed { text, causes } => [vec![text], causes].concat().join(": "),
                _ => error.to_string(),
            });
            answer(Event::Answer { id, error });
        });
        if let Err(error) = changing {
            tell(Event::Answer { id, error: Some(format!("can't start a thread: {error}")) });
        }
    }

    fn make(&self, change: VolumeChange, machine: Option<&MachineHandle>) -> Result<(), StartError> {
        match change {
            VolumeChange::Attach { volume } => self.attach(volume, machine),
            VolumeChange::Detach { volume_id, force } => self.detach(&volume_id, force, machine),
            VolumeChange::Grow { volume_id, size, drives } => {
                let (volume, slot) = self.find(&volume_id)?;
                drives.iter().try_for_each(|drive| crate::emulate::rescan(drive))?;
                volume.grow(size)?;
                let attached = self.lock();
                if let Some(Attached { spec, limits: Some(limits), .. }) =
                    attached.iter().find(|attached| attached.spec.volume_id == volume_id)
                {
                    limits.set(spec.provisioned.performance(size), Instant::now());
                }
                drop(attached);
                match machine {
                    Some(machine) => Ok(machine.resized(slot)?),
                    None => Ok(()),
                }
            }
            VolumeChange::Snapshot { volume_id, above, .. } => Ok(self.find(&volume_id)?.0.snapshot(&above)?),
        }
    }

    fn attach(&self, spec: VolumeSpec, machine: Option<&MachineHandle>) -> Result<(), StartError> {
        if self.find(&spec.volume_id).is_ok() {
            return Ok(());
        }
        let mut attached = Attached::open(spec, self.shared.as_ref())?;
        if let Some(machine) = machine {
            // A slot whose volume was taken away by force is not free before the guest has said so. Any other does as well; the
            // next boot has the recorded one.
            let free = machine.free_slots();
            if !free.contains(&attached.spec.slot)
                && let Some(other) = free.into_iter().find(|slot| VOLUME_SLOTS.contains(slot))
            {
                attached.spec.slot = other;
            }
            machine.attach_volume(attached.config(false))?;
        }
        self.lock().push(attached);
        Ok(())
    }

    fn detach(&self, volume_id: &str, force: bool, machine: Option<&MachineHandle>) -> Result<(), StartError> {
        let Ok((volume, slot)) = self.find(volume_id) else { return Ok(()) };
        if let Some(machine) = machine {
            if force {
                machine.force_detach_volume(slot)?;
            } else {
                machine.detach_volume(slot)?;
                if !machine.wait_detached(slot, DETACH) {
                    return Err("the guest does not let go of the volume: is it still mounted?".into());
                }
            }
        }
        self.lock().retain(|attached| attached.spec.volume_id != volume_id);
        Ok(volume.close()?)
    }

    fn find(&self, volume_id: &str) -> Result<(Arc<LiveVolume>, u8), StartError> {
        let attached = self.lock();
        let found = attached.iter().find(|attached| attached.spec.volume_id == volume_id);
        found
            .map(|attached| (attached.volume.clone(), attached.spec.slot))
            .ok_or_else(|| format!("{volume_id} is not attached").into())
    }

    /// Write what others need to open them; answers what went wrong.
    pub fn close(&self) -> Vec<String> {
        let attached = self.lock();
        let close = |attached: &Attached| {
            let error = attached.volume.close().err()?;
            Some(format!("the last writes to {} may be lost: {error}", attached.spec.volume_id))
        };
        attached.iter().filter_map(close).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attached>> {
        // Whole after each statement.
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
