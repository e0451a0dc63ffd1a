//! AMIs that are made here: of instances, of other AMIs; and written out as files.
//!
//! An AMI of an instance is a snapshot of its root volume with a name: nothing is copied, and volumes of new instances lie over the same
//! layers.

use std::path::Path;
use std::sync::Arc;

use super::error::RegionError;
use super::images::check_name;
use super::model::{Image, ImageFacts, ImageVolume, Instance, Layers, Snapshot, Volume};
use super::store::Tables;
use super::volumes::{forget, volumes_of};
use super::{Region, now};
use crate::boot::SharedDisk;
use crate::boot::cache::KernelCache;
use crate::boot::plan::{InitrdPolicy, prepare};
use crate::ec2::Ec2Error;
use crate::ec2::ids::IdKind;
use crate::storage::export::{ExportFormat, export};
use crate::storage::{OpenMode, RawImage};

impl Image {
    /// What its disk is made of.
    pub fn layers(&self) -> Layers {
        let own = || Layers { image_id: Some(self.image_id.clone()), frozen: Vec::new() };
        self.amiable.layers.clone().unwrap_or_else(own)
    }
}

/// Write an image's record, and what it needs.
///
/// # Errors
/// `InvalidAMIName.Duplicate`: in a transaction nobody else can have taken the name meanwhile.
pub(super) fn put_image(tables: &Tables<'_>, image: &Image) -> Result<(), RegionError> {
    check_new_name(tables, &image.name, &image.image_id)?;
    tables.put_image(&image.image_id, &image.name, image)?;
    let layers = image.layers();
    let volumes = image.amiable.volumes.iter().flat_map(|volume| volume.layers.files());
    Ok(tables.set_needs(&image.image_id, layers.files().chain(volumes))?)
}

fn check_new_name(tables: &Tables<'_>, name: &str, own_id: &str) -> Result<(), RegionError> {
    check_name(name)?;
    let mut found = tables.find_images::<Image>(name)?.into_iter();
    match found.find(|image| image.name == name && image.image_id != own_id) {
        Some(there) => Err(Ec2Error::new(
            "InvalidAMIName.Duplicate",
            format!("AMI name {name} is already in use by AMI {}", there.image_id),
        )
        .into()),
        None => Ok(()),
    }
}

/// What an image is made of now: it may have been deleted since it was looked up, or its layers merged.
pub(super) fn parts_of(tables: &Tables<'_>, image_id: &str) -> Result<(Layers, Vec<ImageVolume>), RegionError> {
    let found = tables.find_images::<Image>(image_id)?.into_iter().find(|image| image.image_id == image_id);
    let image = found.ok_or_else(|| Ec2Error::image_not_found(image_id))?;
    Ok((image.layers(), image.amiable.volumes))
}

/// A volume of an AMI, as the instance has it that the AMI is made of.
fn image_volume(volume: &Volume, snapshot: &Snapshot) -> Option<ImageVolume> {
    let attachment = volume.attachments.first()?;
    Some(ImageVolume {
        device_name: attachment.device.clone(),
        snapshot_id: snapshot.snapshot_id.clone(),
        size_in_bytes: snapshot.amiable.size_in_bytes,
        delete_on_termination: attachment.delete_on_termination,
        layers: snapshot.amiable.layers.clone(),
    })
}

impl Region {
    /// CreateImage: snapshots of all volumes of an instance, and an AMI of them. Where it fails, the snapshots are deleted.
    ///
    /// # Errors
    /// `InvalidAMIName.Malformed`, `InvalidAMIName.Duplicate`; a volume with nothing to boot; no room.
    pub fn create_image(&mut self, of: &Instance, name: &str) -> Result<Image, RegionError> {
        check_new_name(&self.store.tables(), name, "")?;
        let text = format!("Created by CreateImage({})", of.instance_id);
        let mut taken = Vec::new();
        let made = self
            .snapshots_of(of, &text, &mut taken)
            .and_then(|(root, volumes)| self.register_image(&root, volumes, of, name));
        if made.is_err() {
            taken.iter().for_each(|id| drop(self.delete_snapshot(id)));
        }
        made
    }

    /// A snapshot of the root volume, and the other volumes as an AMI has them; `taken` tells what was made so far.
    fn snapshots_of(
        &mut self,
        of: &Instance,
        text: &str,
        taken: &mut Vec<String>,
    ) -> Result<(Snapshot, Vec<ImageVolume>), RegionError> {
        let attached = volumes_of(&self.store.tables(), &of.instance_id)?;
        let mut take = |region: &mut Self, volume_id: &str| {
            let snapshot = region.create_snapshot(volume_id, text, Vec::new())?;
            taken.push(snapshot.snapshot_id.clone());
            Ok::<_, RegionError>(snapshot)
        };
        let root = take(self, &of.root_volume_id)?;
        let mut volumes = Vec::new();
        for volume in attached.iter().filter(|volume| volume.volume_id != of.root_volume_id) {
            volumes.extend(image_volume(volume, &take(self, &volume.volume_id)?));
        }
        Ok((root, volumes))
    }

    /// Make an AMI of a snapshot of an instance's root volume, and of its other volumes.
    fn register_image(
        &mut self,
        snapshot: &Snapshot,
        volumes: Vec<ImageVolume>,
        of: &Instance,
        name: &str,
    ) -> Result<Image, RegionError> {
        let layers = snapshot.amiable.layers.clone();
        let (below, top) = layers.frozen.split_last().map_or((&[][..], None), |(top, below)| (below, Some(top)));
        let chain = self.chain(&Layers { image_id: layers.image_id.clone(), frozen: below.to_vec() });
        let disk: SharedDisk = match (top, &layers.image_id) {
            (Some(top), _) => Arc::new(chain.open_volume(&self.layer(top), OpenMode::ReadOnly)?),
            (None, Some(image)) => Arc::new(RawImage::open(&self.paths.image_disk(image))?),
            (None, None) => return Err(RegionError::Other("the snapshot is empty".to_owned())),
        };
        let cache = KernelCache::open(&self.paths.boot_cache()).map_err(|e| RegionError::NotBootable(e.into()))?;
        let boot = prepare(&disk, &cache, InitrdPolicy::Auto, None).map_err(RegionError::NotBootable)?;
        let image = Image {
            image_id: IdKind::Image.generate(),
            name: name.to_owned(),
            architecture: of.architecture.clone(),
            state: "available".to_owned(),
            creation_date: now(),
            root_device_name: of.root_device_name.clone(),
            root_device_type: "ebs".to_owned(),
            virtualization_type: "hvm".to_owned(),
            tags: Vec::new(),
            amiable: ImageFacts {
                size_in_bytes: snapshot.amiable.size_in_bytes,
                source: of.instance_id.clone(),
                source_format: snapshot.snapshot_id.clone(),
                layers: Some(layers),
                volumes: Vec::new(),
                digest: String::new(),
                boot,
            },
        };
        super::step::reached("image: to be recorded");
        let image = self.add_image(image, |tables| {
            let now = |id: &str| super::snapshots::layers_of(tables, id);
            let volumes = volumes
                .into_iter()
                .map(|volume| Ok::<_, RegionError>(ImageVolume { layers: now(&volume.snapshot_id)?, ..volume }));
            Ok((now(&snapshot.snapshot_id)?, volumes.collect::<Result<_, _>>()?))
        })?;
        super::step::reached("image: recorded");
        Ok(image)
    }

    /// The same AMI under another name and id. Nothing is copied.
    pub fn copy_image(&mut self, image: &Image, name: &str) -> Result<Image, RegionError> {
        check_new_name(&self.store.tables(), name, "")?;
        let mut copy =
            Image { image_id: IdKind::Image.generate(), name: name.to_owned(), creation_date: now(), ..image.clone() };
        copy.amiable.layers = None;
        self.add_image(copy, |tables| parts_of(tables, &image.image_id))
    }

    /// Write an AMI's disk to a new file. Answers the file's SHA-256.
    pub fn export_image(&self, image: &Image, to: &Path, format: ExportFormat) -> Result<String, RegionError> {
        let layer = self.chain(&image.layers()).open()?;
        let layer = layer.ok_or_else(|| RegionError::Other("the image is empty".to_owned()))?;
        Ok(export(&*layer, to, format)?)
    }

    /// How much of an AMI is stored for it, in bytes: its own raw disk, or what changed since the AMI below it.
    pub fn image_bytes(&self, image: &Image) -> Option<u64> {
        match &image.amiable.layers {
            Some(layers) => Some(self.snapshot_bytes(layers)),
            None => {
                crate::storage::image::size_of(&self.paths.image_disk(&image.image_id)).ok().map(|size| size.stored)
            }
        }
    }

    fn add_image(
        &mut self,
        mut image: Image,
        parts: impl FnOnce(&Tables<'_>) -> Result<(Layers, Vec<ImageVolume>), RegionError>,
    ) -> Result<Image, RegionError> {
        self.store.transaction(|tables| {
            let (layers, volumes) = parts(tables)?;
            (image.amiable.layers, image.amiable.volumes) = (Some(layers), volumes);
            put_image(tables, &image)?;
            Ok(image)
        })
    }

    /// Delete an AMI. Instances and volumes that were made from it keep what they need of it.
    ///
    /// # Errors
    /// `InvalidAMIID.NotFound`.
    pub fn remove_image(&mut self, key: &str) -> Result<Image, RegionError> {
        let image = self.image(key)?;
        let files = self.store.durable_transaction(|tables| -> Result<Vec<String>, RegionError> {
            tables.remove_image(&image.image_id)?;
            forget(tables, &image.image_id)
        })?;
        self.remove_files(&files)?;
        Ok(image)
    }
}
