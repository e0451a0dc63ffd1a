//! Volumes: created, attached, detached, resized, deleted; and the files that they, snapshots and images are made of.
//!
//! An attachment is recorded before the instance's process is told of it, and taken from the record after the process has let go. So
//! what a running instance holds is always recorded, and whoever is killed in between leaves `attaching` or `detaching`, which the
//! same command brings to its end.

use std::path::PathBuf;
use std::time::Duration;

use super::error::RegionError;
use super::launch::ZONE;
use super::model::{
    Attachment, AttachmentState, Instance, Layers, Snapshot, StateName, Tag, Volume, VolumeFacts, VolumeState,
};
use super::paths::Paths;
use super::store::Tables;
use super::{Region, now};
use crate::ec2::Ec2Error;
use crate::ec2::ids::IdKind;
use crate::host::control::Request;
use crate::host::event::VolumeChange;
use crate::host::observer::Observer;
use crate::host::spec::{ROOT_SLOT, VOLUME_SLOTS, VolumeSpec};
use crate::storage::{Chain, OpenMode, VolumePaths};

/// How long a process may take for a change: a guest has half a minute to let go of a volume, ten times so long when emulated.
const PATIENCE: Duration = Duration::from_secs(400);
const GIB: u64 = 1 << 30;

impl Volume {
    /// Read from a store of an older version, its fields where they are now.
    pub(super) fn current(mut self) -> Self {
        if self.amiable.top.is_empty() {
            self.amiable.top.clone_from(&self.volume_id);
            self.amiable.size_in_bytes = self.size_in_bytes_1;
            self.amiable.layers.image_id = self.image_id_1.take();
            self.size = self.size_in_bytes_1.div_ceil(GIB);
            self.amiable.slot = ROOT_SLOT;
        }
        self
    }

    /// The instance that it is attached to.
    pub fn instance_id(&self) -> Option<&str> {
        self.attachments.first().map(|attachment| attachment.instance_id.as_str())
    }
}

impl Layers {
    /// The names of all files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.image_id.iter().chain(&self.frozen).map(String::as_str)
    }
}

/// Where the files of images and layers are.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    /// The region's directories.
    pub paths: &'a Paths,
}

impl Places<'_> {
    /// The files of these layers.
    pub fn chain(&self, layers: &Layers) -> Chain {
        Chain {
            image: layers.image_id.as_ref().map(|id| self.paths.image_disk(id)),
            frozen: layers.frozen.iter().map(|layer| self.layer(layer)).collect(),
        }
    }

    /// The files of a layer.
    pub fn layer(&self, layer: &str) -> VolumePaths {
        VolumePaths::in_folder(&self.paths.volumes(), layer)
    }

    /// What an instance's process needs to know of a volume.
    pub fn volume_spec(&self, volume: &Volume, device_name: &str, throw_away: bool) -> VolumeSpec {
        VolumeSpec {
            volume_id: volume.volume_id.clone(),
            device_name: device_name.to_owned(),
            slot: volume.amiable.slot,
            chain: self.chain(&volume.amiable.layers),
            top: self.layer(&volume.amiable.top),
            throw_away,
        }
    }
}

/// A volume as it is when it is made.
pub(super) fn new_volume(volume_id: &str, size: u64, layers: Layers, snapshot_id: &str) -> Volume {
    Volume {
        volume_id: volume_id.to_owned(),
        size: size.div_ceil(GIB),
        state: VolumeState::Available,
        snapshot_id: snapshot_id.to_owned(),
        availability_zone: ZONE.to_owned(),
        volume_type: "gp3".to_owned(),
        create_time: now(),
        attachments: Vec::new(),
        tags: Vec::new(),
        amiable: VolumeFacts { size_in_bytes: size, layers, top: volume_id.to_owned(), next: None, slot: 0 },
        size_in_bytes_1: 0,
        image_id_1: None,
    }
}

/// Write a volume's record, and what it needs.
pub(super) fn put_volume(tables: &Tables<'_>, volume: &Volume) -> Result<(), RegionError> {
    tables.put_volume(&volume.volume_id, volume.instance_id(), volume)?;
    let facts = &volume.amiable;
    let next = facts.next.as_ref().map(|next| next.layer.as_str());
    let files = facts.layers.files().chain([facts.top.as_str()]).chain(next);
    Ok(tables.set_needs(&volume.volume_id, files)?)
}

impl Region {
    pub(super) fn chain(&self, layers: &Layers) -> Chain {
        Places { paths: &self.paths }.chain(layers)
    }

    pub(super) fn layer(&self, layer: &str) -> VolumePaths {
        Places { paths: &self.paths }.layer(layer)
    }

    /// The volume of this id or name, or whose id starts so.
    ///
    /// # Errors
    /// `InvalidVolume.NotFound`; a key that fits several.
    pub fn volume(&self, key: &str) -> Result<Volume, RegionError> {
        let mut found = self.store.tables().find_volumes::<Volume>(key)?;
        if key.is_empty() || found.is_empty() {
            return Err(Ec2Error::volume_not_found(key).into());
        }
        if found.len() > 1 && found[0].volume_id != key {
            let ids: Vec<_> = found.iter().map(|v| v.volume_id.as_str()).collect();
            return Err(
                Ec2Error::new("InvalidVolumeID.Malformed", format!("'{key}' may mean {}", ids.join(" or "))).into()
            );
        }
        Ok(found.swap_remove(0).current())
    }

    /// All volumes, the newest last.
    pub fn volumes(&self) -> Result<Vec<Volume>, RegionError> {
        Ok(self.store.tables().volumes::<Volume>()?.into_iter().map(Volume::current).collect())
    }

    /// Make a volume, empty or from a snapshot. Nothing is copied.
    ///
    /// # Errors
    /// A size below the snapshot's; neither size nor snapshot.
    pub fn create_volume(
        &mut self,
        size: Option<u64>,
        snapshot: Option<&Snapshot>,
        tags: Vec<Tag>,
    ) -> Result<Volume, RegionError> {
        let least = snapshot.map(|snapshot| snapshot.amiable.size_in_bytes);
        let size = match (size.or(least), least) {
            (None, _) => return Err(Ec2Error::missing_parameter("Size").into()),
            (Some(size), Some(least)) if size < least => {
                let text =
                    format!("Volume of {}GiB is smaller than the snapshot's {}GiB", size / GIB, least.div_ceil(GIB));
                return Err(Ec2Error::invalid_parameter_value(text).into());
            }
            (Some(size), _) => size,
        };
        let volume_id = IdKind::Volume.generate();
        let layers = snapshot.map(|snapshot| snapshot.amiable.layers.clone()).unwrap_or_default();
        let from = snapshot.map_or("", |snapshot| &snapshot.snapshot_id);
        let volume = Volume { tags, ..new_volume(&volume_id, size, layers, from) };
        self.make_folder(&self.paths.volumes())?;
        let (chain, files) = (self.chain(&volume.amiable.layers), self.layer(&volume_id));
        let made = self.store.transaction(|tables| -> Result<(), RegionError> {
            put_volume(tables, &volume)?;
            // Inside the transaction: either all of it is there afterwards or only files that nothing names.
            chain.create(&files, size, OpenMode::ReadWrite)?.close().map_err(|source| RegionError::File {
                action: "write",
                path: files.map.display().to_string(),
                source,
            })
        });
        if made.is_err() {
            let _ = files.remove();
        }
        made.map(|()| volume)
    }

    /// Attach a volume to an instance, running or stopped, as `device`; the next free name if not said. Answers the name.
    ///
    /// # Errors
    /// `VolumeInUse`, `InvalidParameterValue` for a device name that is none or taken, `AttachmentLimitExceeded`.
    pub fn attach_volume(
        &mut self,
        volume_id: &str,
        instance_id: &str,
        device: Option<&str>,
    ) -> Result<String, RegionError> {
        let (volume, device) = self.store.transaction(|tables| -> Result<_, RegionError> {
            let mut volume = read(tables, volume_id)?;
            let instance: Instance =
                tables.instance(instance_id)?.ok_or_else(|| Ec2Error::instance_not_found(&[instance_id]))?;
            if let Some(there) = volume.attachments.first().cloned() {
                if there.instance_id == instance_id && there.state == AttachmentState::Attaching {
                    // Somebody began it and was killed.
                    return Ok((volume, there.device));
                }
                let text = format!("{volume_id} is already attached to {}", there.instance_id);
                return Err(Ec2Error::new("VolumeInUse", text).into());
            }
            if !matches!(instance.state.name, StateName::Running | StateName::Stopped) {
                let text = format!("Instance '{instance_id}' is not 'running' or 'stopped'.");
                return Err(Ec2Error::new("IncorrectState", text).into());
            }
            place(tables, &mut volume, &instance, device, false)?;
            put_volume(tables, &volume)?;
            let device = volume.attachments[0].device.clone();
            Ok((volume, device))
        })?;
        super::step::reached("attach: recorded");
        let spec = Places { paths: &self.paths }.volume_spec(&volume, &device, false);
        let told = self.change_volume(instance_id, VolumeChange::Attach { volume: spec });
        if let Err(error) = told {
            self.edit(volume_id, release)?;
            return Err(error);
        }
        super::step::reached("attach: done by the process");
        self.edit(volume_id, |volume| set_attachment(volume, AttachmentState::Attached))?;
        Ok(device)
    }

    /// Detach a volume from its instance.
    ///
    /// # Errors
    /// `IncorrectState` where it is attached to nothing; `OperationNotPermitted` for the root volume of an instance that is not
    /// stopped; a guest that does not let go of it.
    pub fn detach_volume(&mut self, volume_id: &str, force: bool) -> Result<(), RegionError> {
        let mut attached = String::new();
        let store = &mut self.store;
        store.transaction(|tables| -> Result<(), RegionError> {
            let mut volume = read(tables, volume_id)?;
            let Some(instance_id) = volume.instance_id().map(str::to_owned) else {
                let text = format!("Volume '{volume_id}' is in the 'available' state.");
                return Err(Ec2Error::new("IncorrectState", text).into());
            };
            let instance: Option<Instance> = tables.instance(&instance_id)?;
            let is_root = instance.as_ref().is_some_and(|i| i.root_volume_id == volume_id);
            if is_root && instance.is_some_and(|i| i.state.name != StateName::Stopped) {
                let text = format!("Unable to detach root volume '{volume_id}' from instance '{instance_id}'");
                return Err(Ec2Error::new("OperationNotPermitted", text).into());
            }
            set_attachment(&mut volume, AttachmentState::Detaching);
            put_volume(tables, &volume)?;
            attached = instance_id;
            Ok(())
        })?;
        super::step::reached("detach: recorded");
        let change = VolumeChange::Detach { volume_id: volume_id.to_owned(), force };
        if let Err(error) = self.change_volume(&attached, change) {
            self.edit(volume_id, |volume| set_attachment(volume, AttachmentState::Attached))?;
            return Err(error);
        }
        super::step::reached("detach: done by the process");
        self.edit(volume_id, release)?;
        Ok(())
    }

    /// Make a volume larger, in use or not. A running guest sees it at once.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a size below the present one.
    pub fn resize_volume(&mut self, volume_id: &str, size: u64) -> Result<Volume, RegionError> {
        let volume = self.volume(volume_id)?;
        if size < volume.amiable.size_in_bytes {
            let text = format!("New size cannot be smaller than existing size: {}GiB", volume.size);
            return Err(Ec2Error::invalid_parameter_value(text).into());
        }
        let id = volume.volume_id.clone();
        let holder = volume.instance_id().map(str::to_owned).filter(|instance_id| self.has_process(instance_id));
        match holder {
            Some(instance_id) => {
                self.change_volume(&instance_id, VolumeChange::Grow { volume_id: id.clone(), size })?;
            }
            None => {
                let chain = self.chain(&volume.amiable.layers);
                chain.open_volume(&self.layer(&volume.amiable.top), OpenMode::ReadWrite)?.grow(size)?;
            }
        }
        self.edit(&id, |volume| {
            volume.amiable.size_in_bytes = size;
            volume.size = size.div_ceil(GIB);
        })
    }

    /// Delete a volume.
    ///
    /// # Errors
    /// `VolumeInUse` while it is attached.
    pub fn delete_volume(&mut self, volume_id: &str) -> Result<(), RegionError> {
        let store = &mut self.store;
        let files = store.transaction(|tables| -> Result<Vec<String>, RegionError> {
            let volume = read(tables, volume_id)?;
            if let Some(instance_id) = volume.instance_id() {
                let text = format!("Volume {volume_id} is currently attached to {instance_id}");
                return Err(Ec2Error::new("VolumeInUse", text).into());
            }
            tables.remove_volume(volume_id)?;
            forget(tables, volume_id)
        })?;
        self.remove_files(&files)
    }

    /// Have an instance's process change something. Where there is none it is done.
    pub(super) fn change_volume(&self, instance_id: &str, change: VolumeChange) -> Result<(), RegionError> {
        match Observer::connect(&self.paths.control(instance_id)) {
            Ok((_, mut observer)) => {
                let answer = observer.ask(Request::Volume { change }, PATIENCE);
                answer.map_err(|error| Ec2Error::new("IncorrectState", format!("{instance_id}: {error}")).into())
            }
            Err(_) if !self.has_process(instance_id) => Ok(()),
            Err(source) => {
                Err(RegionError::File { action: "reach the process of", path: instance_id.to_owned(), source })
            }
        }
    }

    /// Change a volume's record.
    pub(super) fn edit(&mut self, volume_id: &str, change: impl FnOnce(&mut Volume)) -> Result<Volume, RegionError> {
        self.store.transaction(|tables| {
            let mut volume = read(tables, volume_id)?;
            change(&mut volume);
            put_volume(tables, &volume)?;
            Ok(volume)
        })
    }

    /// Delete files that nobody needs any more.
    pub(super) fn remove_files(&self, files: &[String]) -> Result<(), RegionError> {
        for file in files {
            if file.starts_with("ami-") {
                self.remove_image_files(file)?;
            } else {
                self.layer(file).remove()?;
            }
        }
        Ok(())
    }

    pub(super) fn make_folder(&self, path: &std::path::Path) -> Result<(), RegionError> {
        std::fs::create_dir_all(path).map_err(|source| RegionError::File {
            action: "make the directory",
            path: path.display().to_string(),
            source,
        })
    }

    /// How much of a volume's own layer is stored, in bytes.
    pub fn stored_bytes(&self, layer: &str) -> u64 {
        let stored = |path: &PathBuf| {
            std::fs::metadata(path).map_or(0, |meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512)
        };
        let files = self.layer(layer);
        stored(&files.data) + stored(&files.map)
    }
}

pub(super) fn read(tables: &Tables<'_>, volume_id: &str) -> Result<Volume, RegionError> {
    let volume: Option<Volume> = tables.volume(volume_id)?;
    Ok(volume.ok_or_else(|| Ec2Error::volume_not_found(volume_id))?.current())
}

/// The volumes that are attached to an instance, the root volume first.
pub(super) fn volumes_of(tables: &Tables<'_>, instance_id: &str) -> Result<Vec<Volume>, RegionError> {
    Ok(tables.volumes_of::<Volume>(instance_id)?.into_iter().map(Volume::current).collect())
}

/// Attach a volume as an instance's root volume, which goes with it.
pub(super) fn attach_root(volume: &mut Volume, instance: &Instance) {
    volume.amiable.slot = ROOT_SLOT;
    volume.state = VolumeState::InUse;
    volume.attachments = vec![Attachment {
        instance_id: instance.instance_id.clone(),
        device: instance.root_device_name.clone(),
        state: AttachmentState::Attached,
        attach_time: now(),
        delete_on_termination: true,
    }];
}

/// Forget what something needs; answers the files that nobody needs now.
pub(super) fn forget(tables: &Tables<'_>, owner: &str) -> Result<Vec<String>, RegionError> {
    let files = tables.needed_by_it_alone(owner)?;
    tables.set_needs(owner, [])?;
    Ok(files)
}

/// Find a name and a slot for a volume in an instance.
pub(super) fn place(
    tables: &Tables<'_>,
    volume: &mut Volume,
    instance: &Instance,
    device: Option<&str>,
    delete_on_termination: bool,
) -> Result<(), RegionError> {
    let others = volumes_of(tables, &instance.instance_id)?;
    let is_taken = |name: &str| others.iter().any(|o| o.attachments.iter().any(|a| a.device == name));
    let device = match device {
        Some(name) => {
            if !is_device_name(name) {
                let text =
                    format!("Value ({name}) for parameter device is invalid. {name} is not a valid EBS device name.");
                return Err(Ec2Error::invalid_parameter_value(text).into());
            }
            if is_taken(name) || instance.root_device_name == name {
                let text = format!("Invalid value '{name}' for unixDevice. Attachment point {name} is already in use");
                return Err(Ec2Error::invalid_parameter_value(text).into());
            }
            name.to_owned()
        }
        // EC2 recommends /dev/sd[f-p]; past those, its names of two letters.
        None => ('f'..='p')
            .map(|letter| format!("/dev/sd{letter}"))
            .chain(('a'..='z').map(|letter| format!("/dev/xvdb{letter}")))
            .find(|name| !is_taken(name))
            .ok_or_else(limit)?,
    };
    let slot =
        VOLUME_SLOTS.into_iter().find(|slot| others.iter().all(|o| o.amiable.slot != *slot)).ok_or_else(limit)?;
    volume.amiable.slot = slot;
    volume.state = VolumeState::InUse;
    volume.attachments = vec![Attachment {
        instance_id: instance.instance_id.clone(),
        device,
        state: AttachmentState::Attaching,
        attach_time: now(),
        delete_on_termination,
    }];
    Ok(())
}

fn limit() -> Ec2Error {
    Ec2Error::new(
        "AttachmentLimitExceeded",
        "The instance has as many attachments as it can have (28 with its network interface)",
    )
}

/// `/dev/sd[b-z]`, `/dev/xvd[b-z]` and `/dev/xvd[b-c][a-z]`, as EC2 has them for HVM images.
fn is_device_name(name: &str) -> bool {
    let short = |rest: &str| matches!(rest.as_bytes(), [b'b'..=b'z']);
    let long = |rest: &str| matches!(rest.as_bytes(), [b'b'..=b'c', b'a'..=b'z']);
    name.strip_prefix("/dev/sd").is_some_and(short)
        || name.strip_prefix("/dev/xvd").is_some_and(|rest| short(rest) || long(rest))
}

pub(super) fn set_attachment(volume: &mut Volume, state: AttachmentState) {
    if let Some(attachment) = volume.attachments.first_mut() {
        attachment.state = state;
    }
}

pub(super) fn release(volume: &mut Volume) {
    volume.attachments.clear();
    volume.state = VolumeState::Available;
    volume.amiable.slot = 0;
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
