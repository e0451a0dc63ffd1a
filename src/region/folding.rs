//! Layers that become fewer: those that nothing needs but the layer above them are merged, and a volume whose snapshots have made its
//! chain as long as it can be goes on over one layer in the place of all.
//!
//! Merging makes a new layer, and then one transaction puts it in the place of the old ones, in every record that has all of them. So a
//! command that is killed leaves the old layers or the new one, and files that nothing needs. Records that have only some of the old
//! layers keep them; processes that have them open go on with them.

use std::collections::{HashMap, HashSet};

use super::Region;
use super::error::RegionError;
use super::images_made::put_image;
use super::model::{AttachmentState, Image, Instance, Layers, Snapshot, StateName, Volume};
use super::snapshots::put_snapshot;
use super::store::Tables;
use super::volumes::{put_volume, read};
use crate::ec2::ids::IdKind;
use crate::storage::merge::merge;

impl Layers {
    /// Put `new` in the place of `run`, if all of it is there.
    fn exchange(&mut self, run: &[String], new: &str) -> bool {
        let found = place_of(run, &self.frozen);
        if let Some(at) = found {
            self.frozen.splice(at..at + run.len(), [new.to_owned()]);
        }
        found.is_some()
    }
}

/// Where all of `run` is in `frozen`.
fn place_of(run: &[String], frozen: &[String]) -> Option<usize> {
    frozen.windows(run.len()).position(|window| window == run)
}

/// What came of folding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folded {
    /// The layers that are gone.
    pub layers: Vec<String>,
    /// What that gave back, in bytes.
    pub bytes: u64,
}

/// Of layers that lie over one another, from the bottom up, those of which only the last is needed for itself.
fn runs(lists: &[Vec<String>]) -> Vec<Vec<String>> {
    // What lies over each layer; `None` for one that is needed for itself.
    let mut above: HashMap<&str, Option<&str>> = HashMap::new();
    for list in lists {
        let next = list.iter().skip(1).map(|layer| Some(layer.as_str())).chain([None]);
        for (layer, next) in list.iter().zip(next) {
            let known = above.entry(layer).or_insert(next);
            if *known != next {
                *known = None;
            }
        }
    }
    let covered: HashSet<&str> = above.values().flatten().copied().collect();
    let mut found = Vec::new();
    for list in lists {
        for layer in list {
            // A run begins where what is below is needed for itself.
            let begins = !covered.contains(layer.as_str());
            let mut next = above.get(layer.as_str()).copied().flatten();
            if !begins || next.is_none() {
                continue;
            }
            let mut run = vec![layer.clone()];
            while let Some(layer) = next {
                run.push(layer.to_owned());
                next = above.get(layer).copied().flatten();
            }
            if !found.contains(&run) {
                found.push(run);
            }
        }
    }
    found
}

impl Region {
    /// Merge all layers that nothing needs but the layer above them. The caller holds the lock of snapshots.
    pub(super) fn fold(&mut self) -> Result<Folded, RegionError> {
        let mut folded = Folded::default();
        for run in runs(&self.lists()?) {
            match self.fold_run(&run) {
                Ok(done) => {
                    folded.layers.extend(done.layers);
                    folded.bytes += done.bytes;
                }
                // A full disk, or a process that has not let go of one: another time.
                Err(RegionError::Storage(error)) => log::warn!("layers stay as they are: {error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(folded)
    }

    /// Make room for one more layer of a volume that may have `most`. The caller holds the lock of snapshots.
    pub(super) fn make_room(&mut self, volume_id: &str, most: usize) -> Result<(), RegionError> {
        let frozen = read(&self.store.tables(), volume_id)?.amiable.layers.frozen;
        if frozen.len() + 1 < most {
            return Ok(());
        }
        let own: Vec<_> = runs(&self.lists()?).into_iter().filter(|run| place_of(run, &frozen).is_some()).collect();
        let gain: usize = own.iter().map(|run| run.len() - 1).sum();
        // Each merge copies what its layers hold, so it should be worth it for a while: else all become one, and the snapshots
        // that need some of them keep those.
        let runs = if frozen.len() - gain <= most / 2 { own } else { vec![frozen] };
        for run in runs {
            self.fold_run(&run)?;
        }
        Ok(())
    }

    /// What each record needs, from the bottom up.
    fn lists(&self) -> Result<Vec<Vec<String>>, RegionError> {
        let tables = self.store.tables();
        let volumes = tables.volumes::<Volume>()?.into_iter().map(|volume| volume.current().amiable.layers);
        let snapshots = tables.snapshots::<Snapshot>()?.into_iter().map(|snapshot| snapshot.amiable.layers);
        let images = tables.images::<Image>()?.into_iter().flat_map(|image| {
            let volumes = image.amiable.volumes.iter().map(|volume| volume.layers.clone());
            volumes.chain([image.layers()]).collect::<Vec<_>>()
        });
        Ok(volumes.chain(snapshots).chain(images).map(|layers| layers.frozen).collect())
    }

    fn fold_run(&mut self, run: &[String]) -> Result<Folded, RegionError> {
        let Some(last) = run.last() else { return Ok(Folded::default()) };
        // Named as layers are: after the volume, and what tells it from that volume's others.
        let volume_id = last.splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
        let id = IdKind::Snapshot.generate();
        let new = format!("{volume_id}-{}", id.trim_start_matches("snap-"));
        let layers: Vec<_> = run.iter().map(|layer| self.layer(layer)).collect();
        merge(&layers, &self.layer(&new))?;
        super::step::reached("fold: merged");
        // What the power takes away from the record must not be gone from the disk.
        let gone = self.store.durable_transaction(|tables| exchange(tables, run, &new))?;
        super::step::reached("fold: recorded");
        let bytes: u64 = gone.iter().map(|layer| self.stored_bytes(layer)).sum();
        let added = if gone.contains(&new) { 0 } else { self.stored_bytes(&new) };
        self.remove_files(&gone)?;
        Ok(Folded { layers: gone, bytes: bytes.saturating_sub(added) })
    }
}

/// Put a layer in the place of a run of them. Answers the files that nobody needs afterwards.
fn exchange(tables: &Tables<'_>, run: &[String], new: &str) -> Result<Vec<String>, RegionError> {
    for volume in tables.volumes::<Volume>()? {
        let mut volume = volume.current();
        // Somebody is about to open the layers of these by their names.
        if !is_in_motion(tables, &volume)? && volume.amiable.layers.exchange(run, new) {
            put_volume(tables, &volume)?;
        }
    }
    for mut snapshot in tables.snapshots::<Snapshot>()? {
        if snapshot.amiable.layers.exchange(run, new) {
            put_snapshot(tables, &snapshot)?;
        }
    }
    for mut image in tables.images::<Image>()? {
        let mut layers = image.layers();
        let root = layers.exchange(run, new);
        if root {
            image.amiable.layers = Some(layers);
        }
        let volumes = image.amiable.volumes.iter_mut();
        let changed = volumes.map(|volume| volume.layers.exchange(run, new)).filter(|changed| *changed).count();
        if root || changed > 0 {
            put_image(tables, &image)?;
        }
    }
    let mut unneeded = Vec::new();
    for layer in run.iter().map(String::as_str).chain([new]) {
        if !tables.is_needed(layer)? {
            unneeded.push(layer.to_owned());
        }
    }
    Ok(unneeded)
}

fn is_in_motion(tables: &Tables<'_>, volume: &Volume) -> Result<bool, RegionError> {
    let Some(attachment) = volume.attachments.first() else { return Ok(false) };
    let instance: Option<Instance> = tables.instance(&attachment.instance_id)?;
    let starts = instance.is_some_and(|instance| instance.state.name == StateName::Pending);
    Ok(starts || attachment.state == AttachmentState::Attaching)
}

#[cfg(test)]
#[path = "folding_tests.rs"]
mod tests;
