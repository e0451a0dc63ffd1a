//! Snapshots of volumes, in use or not: crash-consistent, and incremental by construction, for nothing is copied. The protocol is
//! [`crate::storage::live`]'s.

use std::fs::File;

use super::Region;
use super::error::RegionError;
use super::model::{Layers, NextLayer, Snapshot, SnapshotFacts, SnapshotState, Tag, Volume};
use super::now;
use super::store::Tables;
use super::volumes::{forget, put_volume, read};
use crate::ec2::Ec2Error;
use crate::ec2::ids::IdKind;
use crate::host::event::VolumeChange;
use crate::storage::chain::{MOST_LAYERS, is_frozen};
use crate::storage::{OpenMode, StorageError};

/// Write a snapshot's record, and what it needs.
pub(super) fn put_snapshot(tables: &Tables<'_>, snapshot: &Snapshot) -> Result<(), RegionError> {
    tables.put_snapshot(&snapshot.snapshot_id, &snapshot.volume_id, snapshot)?;
    Ok(tables.set_needs(&snapshot.snapshot_id, snapshot.amiable.layers.files())?)
}

/// What a snapshot is made of now: it may have been deleted since it was looked up, or its layers merged.
pub(super) fn layers_of(tables: &Tables<'_>, snapshot_id: &str) -> Result<Layers, RegionError> {
    let found = tables.find_snapshots::<Snapshot>(snapshot_id)?.into_iter().find(|s| s.snapshot_id == snapshot_id);
    Ok(found.ok_or_else(|| Ec2Error::snapshot_not_found(snapshot_id))?.amiable.layers)
}

impl Region {
    /// Take a snapshot of a volume as it is now.
    pub fn create_snapshot(
        &mut self,
        volume_id: &str,
        description: &str,
        tags: Vec<Tag>,
    ) -> Result<Snapshot, RegionError> {
        let _one_at_a_time = self.snapshot_lock()?;
        self.finish_begun()?;
        self.make_room(volume_id, MOST_LAYERS)?;
        let snapshot_id = IdKind::Snapshot.generate();
        // The layers change on the disk: the record that says to what must be there first.
        let (volume, next) = self.store.durable_transaction(|tables| -> Result<_, RegionError> {
            let mut volume = read(tables, volume_id)?;
            let facts = &mut volume.amiable;
            if facts.next.is_some() {
                let text = format!("Another snapshot of {volume_id} is under way.");
                return Err(Ec2Error::new("IncorrectState", text).into());
            }
            if facts.layers.frozen.len() + 1 >= MOST_LAYERS {
                let text = format!("{volume_id} has as many layers as it can have ({MOST_LAYERS})");
                return Err(Ec2Error::new("SnapshotLimitExceeded", text).into());
            }
            let layer = format!("{volume_id}-{}", snapshot_id.trim_start_matches("snap-"));
            facts.next = Some(NextLayer { layer: layer.clone(), snapshot_id: snapshot_id.clone() });
            let mut layers = facts.layers.clone();
            layers.frozen.push(facts.top.clone());
            let snapshot = Snapshot {
                snapshot_id: snapshot_id.clone(),
                volume_id: volume_id.to_owned(),
                volume_size: volume.size,
                state: SnapshotState::Pending,
                start_time: now(),
                description: description.to_owned(),
                tags,
                amiable: SnapshotFacts { size_in_bytes: volume.amiable.size_in_bytes, layers },
            };
            put_volume(tables, &volume)?;
            put_snapshot(tables, &snapshot)?;
            Ok((volume, layer))
        })?;
        super::step::reached("snapshot: recorded");
        let done = self.switch(&volume, &next);
        super::step::reached("snapshot: taken");
        self.finish_snapshot(volume)?;
        done.map_err(|error| error.or_no_room("InsufficientVolumeCapacity"))?;
        self.snapshot(&snapshot_id)
    }

    /// Have whoever has the volume open go on in a new layer.
    fn switch(&self, volume: &Volume, next: &str) -> Result<(), RegionError> {
        let above = self.layer(next);
        match volume.instance_id().filter(|instance_id| self.has_process(instance_id)) {
            Some(instance_id) => {
                let size = volume.amiable.size_in_bytes;
                let change = VolumeChange::Snapshot { volume_id: volume.volume_id.clone(), above, size };
                self.change_volume(instance_id, change)
            }
            None => {
                let chain = self.chain(&volume.amiable.layers);
                let live = chain.open_volume(&self.layer(&volume.amiable.top), OpenMode::ReadWrite)?;
                Ok(live.snapshot(&above)?)
            }
        }
    }

    /// Bring snapshots that were cut short to an end: there, or as if they had never been begun.
    pub fn finish_snapshots(&mut self) -> Result<(), RegionError> {
        if self.store.tables().volumes_in_change::<Volume>()?.is_empty() {
            return Ok(());
        }
        // One that is under way is no leftover: whoever takes it has the lock.
        let _one_at_a_time = self.snapshot_lock()?;
        self.finish_begun()
    }

    /// Held while a snapshot is taken, or a leftover one is ended; dropped by the kernel with whoever held it.
    pub(super) fn snapshot_lock(&self) -> Result<File, RegionError> {
        let path = self.paths.state().join("snapshots.lock");
        let locked = File::options().write(true).create(true).truncate(false).open(&path).and_then(|file| {
            file.lock()?;
            Ok(file)
        });
        locked.map_err(|source| RegionError::File { action: "lock", path: path.display().to_string(), source })
    }

    pub(super) fn finish_begun(&mut self) -> Result<(), RegionError> {
        let begun: Vec<Volume> = self.store.tables().volumes_in_change()?;
        for volume in begun {
            self.finish_snapshot(volume.current())?;
        }
        Ok(())
    }

    fn finish_snapshot(&mut self, volume: Volume) -> Result<(), RegionError> {
        let Some(next) = &volume.amiable.next else { return Ok(()) };
        if let Some(instance_id) = volume.instance_id() {
            // A command that was killed may have told the instance's process, which makes one change at a time: one that changes
            // nothing is through when that is. Where there is no process nothing is under way.
            let nothing = VolumeChange::Detach { volume_id: String::new(), force: false };
            self.change_volume(instance_id, nothing)?;
        }
        let happened = match is_frozen(&self.layer(&volume.amiable.top)) {
            Ok(frozen) => frozen,
            Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        let (id, next) = (volume.volume_id.clone(), next.clone());
        let store = &mut self.store;
        let unneeded = store.transaction(|tables| -> Result<Vec<String>, RegionError> {
            let mut volume = read(tables, &id)?;
            // Another command may have been quicker.
            if volume.amiable.next.as_ref() != Some(&next) {
                return Ok(Vec::new());
            }
            volume.amiable.next = None;
            let snapshot = tables.find_snapshots::<Snapshot>(&next.snapshot_id)?.pop();
            let mut unneeded = Vec::new();
            if happened {
                let facts = &mut volume.amiable;
                facts.layers.frozen.push(std::mem::replace(&mut facts.top, next.layer.clone()));
                if let Some(snapshot) = snapshot {
                    put_snapshot(tables, &Snapshot { state: SnapshotState::Completed, ..snapshot })?;
                }
            } else {
                unneeded.push(next.layer.clone());
                tables.remove_snapshot(&next.snapshot_id)?;
                forget(tables, &next.snapshot_id)?;
            }
            put_volume(tables, &volume)?;
            Ok(unneeded)
        })?;
        super::step::reached("snapshot: completed");
        self.remove_files(&unneeded)
    }

    /// All snapshots, the newest last.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, RegionError> {
        Ok(self.store.tables().snapshots()?)
    }

    /// The snapshot of this id or name, or whose id starts so.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`; a key that fits several.
    pub fn snapshot(&self, key: &str) -> Result<Snapshot, RegionError> {
        let mut found = self.store.tables().find_snapshots::<Snapshot>(key)?;
        if key.is_empty() || found.is_empty() {
            return Err(Ec2Error::snapshot_not_found(key).into());
        }
        if found.len() > 1 && found[0].snapshot_id != key {
            let ids: Vec<_> = found.iter().map(|s| s.snapshot_id.as_str()).collect();
            let text = format!("'{key}' may mean {}", ids.join(" or "));
            return Err(Ec2Error::new("InvalidSnapshotID.Malformed", text).into());
        }
        Ok(found.swap_remove(0))
    }

    /// Delete a snapshot. Volumes and images that were made from it keep what they need of it.
    ///
    /// # Errors
    /// `IncorrectState` while it is under way.
    pub fn delete_snapshot(&mut self, snapshot_id: &str) -> Result<(), RegionError> {
        let store = &mut self.store;
        let files = store.durable_transaction(|tables| -> Result<Vec<String>, RegionError> {
            let found: Option<Snapshot> =
                tables.find_snapshots::<Snapshot>(snapshot_id)?.into_iter().find(|s| s.snapshot_id == snapshot_id);
            let snapshot = found.ok_or_else(|| Ec2Error::snapshot_not_found(snapshot_id))?;
            if snapshot.state == SnapshotState::Pending {
                return Err(Ec2Error::new("IncorrectState", format!("{snapshot_id} is under way.")).into());
            }
            tables.remove_snapshot(snapshot_id)?;
            forget(tables, snapshot_id)
        })?;
        self.remove_files(&files)
    }

    /// How much of a snapshot is its own, in bytes: what changed since the one before.
    pub fn snapshot_bytes(&self, layers: &Layers) -> u64 {
        layers.frozen.last().map_or(0, |layer| self.stored_bytes(layer))
    }
}
