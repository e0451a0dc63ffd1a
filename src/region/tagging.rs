//! CreateTags and DeleteTags; and what changes of a running instance's metadata, told to its process.

use std::time::Duration;

use super::Region;
use super::error::RegionError;
use super::images_made::put_image;
use super::instances::put;
use super::model::{Image, Instance, Snapshot, Tag};
use super::snapshots::put_snapshot;
use super::volumes::{put_volume, read};
use crate::ec2::{Ec2Error, tags};
use crate::host::control::Request;
use crate::host::event::MetadataChange;
use crate::host::observer::Observer;

/// How long a process may take to show other metadata: it does so at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something with tags.
#[derive(Clone, Debug)]
pub enum Resource {
    /// An instance.
    Instance(Box<Instance>),
    /// A volume's id.
    Volume(String),
    /// A snapshot's id.
    Snapshot(String),
    /// An AMI's id.
    Image(String),
}

impl Resource {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Resource::Instance(instance) => &instance.instance_id,
            Resource::Volume(id) | Resource::Snapshot(id) | Resource::Image(id) => id,
        }
    }
}

/// Tags to set, and keys to take away.
#[derive(Clone, Debug, Default)]
pub struct TagChange {
    /// Keys and values; a value that is there is replaced.
    pub set: Vec<(String, String)>,
    /// Keys. That there is none is no error.
    pub remove: Vec<String>,
}

impl Region {
    /// The instance, volume, snapshot or AMI of this id or name, or whose id starts so.
    ///
    /// # Errors
    /// The code of what the id's start says that it is; `InvalidID` for what nothing is, and for a name that several kinds have.
    pub fn resource(&self, key: &str) -> Result<Resource, RegionError> {
        let volume = || Ok(Resource::Volume(self.volume(key)?.volume_id));
        let snapshot = || Ok(Resource::Snapshot(self.snapshot(key)?.snapshot_id));
        let image = || Ok(Resource::Image(self.image(key)?.image_id));
        let instance = || Ok(Resource::Instance(Box::new(self.instance(key)?)));
        match key.split_once('-') {
            Some(("i", _)) => return instance(),
            Some(("vol", _)) => return volume(),
            Some(("snap", _)) => return snapshot(),
            Some(("ami", _)) => return image(),
            _ => {}
        }
        let found: [Result<Resource, RegionError>; 4] = [instance(), volume(), snapshot(), image()];
        let mut found: Vec<Resource> = found.into_iter().flatten().collect();
        match (found.pop(), found.first()) {
            (Some(one), None) => Ok(one),
            (Some(one), Some(other)) => {
                let text = format!("'{key}' may mean {} or {}", other.id(), one.id());
                Err(Ec2Error::new("InvalidID", text).into())
            }
            (None, _) => Err(Ec2Error::new("InvalidID", format!("The ID '{key}' is not valid")).into()),
        }
    }

    /// Change the tags of something. Of a running instance's metadata see [`show_metadata`](Self::show_metadata).
    ///
    /// # Errors
    /// `InvalidParameterValue` for keys and values that can't be, `TagLimitExceeded`.
    pub fn change_tags(&mut self, resource: &Resource, change: &TagChange) -> Result<Vec<Tag>, RegionError> {
        for (key, value) in &change.set {
            tags::validate(key, value)?;
        }
        let changed = |own: &mut Vec<Tag>| apply(own, change);
        self.store.transaction(|tables| match resource {
            Resource::Instance(instance) => {
                let id = &instance.instance_id;
                let mut instance: Instance = tables.instance(id)?.ok_or_else(|| Ec2Error::instance_not_found(&[id]))?;
                changed(&mut instance.tags)?;
                check_tags(&instance)?;
                put(tables, &instance)?;
                Ok(instance.tags)
            }
            Resource::Volume(id) => {
                let mut volume = read(tables, id)?;
                changed(&mut volume.tags)?;
                put_volume(tables, &volume)?;
                Ok(volume.tags)
            }
            Resource::Snapshot(id) => {
                let found = tables.find_snapshots::<Snapshot>(id)?.into_iter().find(|s| s.snapshot_id == *id);
                let mut snapshot = found.ok_or_else(|| Ec2Error::snapshot_not_found(id))?;
                changed(&mut snapshot.tags)?;
                put_snapshot(tables, &snapshot)?;
                Ok(snapshot.tags)
            }
            Resource::Image(id) => {
                let found = tables.find_images::<Image>(id)?.into_iter().find(|i| i.image_id == *id);
                let mut image = found.ok_or_else(|| Ec2Error::image_not_found(id))?;
                changed(&mut image.tags)?;
                put_image(tables, &image)?;
                Ok(image.tags)
            }
        })
    }

    /// Have the process of a running instance show its tags and answer by its metadata options from now on. Where none runs there is
    /// nothing to do: the next start shows them.
    ///
    /// # Errors
    /// A process of another version, or one that hangs: what it shows changes with the next start.
    pub fn show_metadata(&self, instance_id: &str) -> Result<(), RegionError> {
        if !self.has_process(instance_id) {
            return Ok(());
        }
        let instance = self.instance(instance_id)?;
        let tags = instance.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
        let change = MetadataChange { tags, options: instance.metadata_options };
        let asked = match Observer::connect_within(&self.paths.control(instance_id), PATIENCE) {
            Ok((_, mut observer)) => {
                observer.ask(Request::Metadata { change }, PATIENCE).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        asked.map_err(|why| {
            let text = format!(
                "recorded, but the metadata of the running {instance_id} changes with its next start only: {why}"
            );
            RegionError::Other(text)
        })
    }
}

fn apply(own: &mut Vec<Tag>, change: &TagChange) -> Result<(), RegionError> {
    own.retain(|tag| !change.remove.contains(&tag.key));
    for (key, value) in &change.set {
        match own.iter_mut().find(|tag| tag.key == *key) {
            Some(tag) => tag.value.clone_from(value),
            None => own.push(Tag { key: key.clone(), value: value.clone() }),
        }
    }
    if own.len() > tags::MAX_TAGS { Err(Ec2Error::tag_limit_exceeded().into()) } else { Ok(()) }
}

/// What the metadata service shows must have keys that it can show.
pub(super) fn check_tags(instance: &Instance) -> Result<(), Ec2Error> {
    if instance.metadata_options.instance_metadata_tags.is_enabled() {
        instance.tags.iter().try_for_each(|tag| tags::validate_metadata_key(&tag.key))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tagging_tests.rs"]
mod tests;
