//! Volumes: created, resized, deleted; and the files that they, snapshots and images are made of. How they are attached is in
//! [`attachments`](super::attachments).

use std::path::PathBuf;

use super::error::RegionError;
use super::launch::ZONE;
use super::model::{Layers, Snapshot, Tag, Volume, VolumeFacts, VolumeState};
use super::paths::Paths;
use super::store::Tables;
use super::{Region, now};
use crate::ec2::Ec2Error;
use crate::ec2::ids::IdKind;
use crate::ec2::volume_types::Provisioned;
use crate::host::event::VolumeChange;
use crate::host::spec::{ROOT_SLOT, VolumeSpec};
use crate::storage::chain::size_of;
use crate::storage::{Chain, OpenMode, VolumePaths};

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

    /// What is asked of it.
    pub fn provisioned(&self) -> Provisioned {
        Provisioned { volume_type: self.volume_type, iops: self.iops, throughput: self.throughput }
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

    /// Make the files of a volume that nobody has open as large as its record says.
    pub fn settle_size(&self, volume: &Volume) -> Result<(), RegionError> {
        let size = volume.amiable.size_in_bytes;
        match size_of(&self.layer(&volume.amiable.top)) {
            Ok(is) if is < size => self.grow(volume, size),
            // What is wrong with a volume is told by the one who opens it.
            _ => Ok(()),
        }
    }

    fn grow(&self, volume: &Volume, size: u64) -> Result<(), RegionError> {
        let chain = self.chain(&volume.amiable.layers);
        Ok(chain.open_volume(&self.layer(&volume.amiable.top), OpenMode::ReadWrite)?.grow(size)?)
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
            provisioned: volume.provisioned(),
        }
    }
}

/// A volume as it is when it is made.
pub(super) fn new_volume(
    volume_id: &str,
    size: u64,
    layers: Layers,
    snapshot_id: &str,
    provisioned: Provisioned,
) -> Volume {
    Volume {
        volume_id: volume_id.to_owned(),
        size: size.div_ceil(GIB),
        state: VolumeState::Available,
        snapshot_id: snapshot_id.to_owned(),
        availability_zone: ZONE.to_owned(),
        volume_type: provisioned.volume_type,
        iops: provisioned.iops,
        throughput: provisioned.throughput,
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
    /// A size below the snapshot's; neither size nor snapshot; what the type does not have.
    pub fn create_volume(
        &mut self,
        size: Option<u64>,
        snapshot: Option<&Snapshot>,
        tags: Vec<Tag>,
        provisioned: Provisioned,
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
        provisioned.check(size)?;
        let volume_id = IdKind::Volume.generate();
        let layers = snapshot.map(|snapshot| snapshot.amiable.layers.clone()).unwrap_or_default();
        let from = snapshot.map_or("", |snapshot| &snapshot.snapshot_id);
        let mut volume = Volume { tags, ..new_volume(&volume_id, size, layers, from, provisioned) };
        self.make_folder(&self.paths.volumes())?;
        let (places, files) = (Places { paths: &self.paths }, self.layer(&volume_id));
        let made = self.store.transaction(|tables| -> Result<(), RegionError> {
            if let Some(snapshot) = snapshot {
                volume.amiable.layers = super::snapshots::layers_of(tables, &snapshot.snapshot_id)?;
            }
            put_volume(tables, &volume)?;
            let chain = places.chain(&volume.amiable.layers);
            // Inside the transaction: either all of it is there afterwards or only files that nothing names.
            chain.create(&files, size, OpenMode::ReadWrite)?.close().map_err(|source| RegionError::File {
                action: "write",
                path: files.map.display().to_string(),
                source,
            })
        });
        match made {
            Ok(()) => Ok(volume),
            Err(error) => {
                let _ = files.remove();
                Err(error.or_no_room("InsufficientVolumeCapacity"))
            }
        }
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
        volume.provisioned().check(size)?;
        let (id, before) = (volume.volume_id.clone(), volume.amiable.size_in_bytes);
        let resized = |size: u64| {
            move |volume: &mut Volume| {
                volume.amiable.size_in_bytes = size;
                volume.size = size.div_ceil(GIB);
            }
        };
        // Recorded first: whoever is killed in between has it done by the next who opens the volume.
        let volume = self.edit(&id, resized(size)).map_err(|e| e.or_no_room("InsufficientVolumeCapacity"))?;
        super::step::reached("resize: recorded");
        let grown = self.grow(&volume, size);
        super::step::reached("resize: done");
        if let Err(error) = grown {
            self.edit(&id, resized(before))?;
            return Err(error.or_no_room("InsufficientVolumeCapacity"));
        }
        Ok(volume)
    }

    fn grow(&self, volume: &Volume, size: u64) -> Result<(), RegionError> {
        let id = volume.volume_id.clone();
        let holder = volume.instance_id().map(str::to_owned).filter(|instance_id| self.has_process(instance_id));
        match holder {
            Some(instance_id) => {
                self.change_volume(&instance_id, VolumeChange::Grow { volume_id: id, size, drives: vec![] })
            }
            None => Places { paths: &self.paths }.grow(volume, size),
        }
    }

    /// Delete a volume.
    ///
    /// # Errors
    /// `VolumeInUse` while it is attached.
    pub fn delete_volume(&mut self, volume_id: &str) -> Result<(), RegionError> {
        let store = &mut self.store;
        let files = store.durable_transaction(|tables| -> Result<Vec<String>, RegionError> {
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

/// Forget what something needs; answers the files that nobody needs now.
pub(super) fn forget(tables: &Tables<'_>, owner: &str) -> Result<Vec<String>, RegionError> {
    let files = tables.needed_by_it_alone(owner)?;
    tables.set_needs(owner, [])?;
    Ok(files)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
