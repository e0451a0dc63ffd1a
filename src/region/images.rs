//! AMIs: imported, found, removed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::error::RegionError;
use super::images_made::put_image;
use super::model::{Image, ImageFacts};
use super::volumes::forget;
use super::{Region, now};
use crate::boot::SharedDisk;
use crate::boot::cache::KernelCache;
use crate::boot::plan::{InitrdPolicy, prepare};
use crate::ec2::Ec2Error;
use crate::ec2::ids::IdKind;
use crate::storage::{RawImage, import};

/// What an AMI is made of.
#[derive(Clone, Debug)]
pub struct ImportRequest<'a> {
    /// The disk image.
    pub file: &'a Path,
    /// The AMI's name.
    pub name: &'a str,
    /// Where the file came from, for the record; the file itself if not said.
    pub source: Option<&'a str>,
    /// The file's format, if it must not be detected.
    pub format: Option<import::Format>,
    /// `/dev/xvda` or `/dev/sda1`.
    pub root_device_name: &'a str,
    /// Replace the AMI that has this name.
    pub replace: bool,
}

impl Region {
    /// Make an AMI of a disk image: its format is detected once, it is kept raw, and its boot files are found.
    ///
    /// # Errors
    /// `InvalidAMIName.Malformed`, `InvalidAMIName.Duplicate`; a file that is no disk image or has nothing to boot.
    pub fn import_image(
        &mut self,
        request: &ImportRequest<'_>,
        progress: import::Progress<'_>,
    ) -> Result<Image, RegionError> {
        check_name(request.name)?;
        let existing =
            self.store.tables().find_images::<Image>(request.name)?.into_iter().find(|i| i.name == request.name);
        if let Some(existing) = &existing
            && !request.replace
        {
            return Err(Ec2Error::new(
                "InvalidAMIName.Duplicate",
                format!("AMI name {} is already in use by AMI {}", request.name, existing.image_id),
            )
            .into());
        }
        let image_id = IdKind::Image.generate();
        let disk = self.paths.image_disk(&image_id);
        let folder = disk.parent().unwrap_or(&disk).to_owned();
        let made = self.import_into(request, &image_id, &disk, progress).and_then(|image| {
            self.store
                .transaction(|tables| {
                    let mut unneeded = Vec::new();
                    if let Some(existing) = &existing {
                        tables.remove_image(&existing.image_id)?;
                        unneeded = forget(tables, &existing.image_id)?;
                    }
                    put_image(tables, &image)?;
                    Ok::<_, RegionError>(unneeded)
                })
                .map(|unneeded| (image, unneeded))
        });
        match made {
            Ok((image, unneeded)) => {
                self.remove_files(&unneeded)?;
                Ok(image)
            }
            Err(error) => {
                let _ = fs::remove_dir_all(&folder);
                Err(error)
            }
        }
    }

    fn import_into(
        &self,
        request: &ImportRequest<'_>,
        image_id: &str,
        disk: &Path,
        progress: import::Progress<'_>,
    ) -> Result<Image, RegionError> {
        if let Some(folder) = disk.parent() {
            fs::create_dir_all(folder).map_err(|source| RegionError::File {
                action: "make the directory",
                path: folder.display().to_string(),
                source,
            })?;
        }
        let imported = import::import(request.file, request.format, disk, progress)?;
        let raw: SharedDisk = Arc::new(RawImage::open(disk)?);
        let cache = KernelCache::open(&self.paths.boot_cache()).map_err(|e| RegionError::NotBootable(e.into()))?;
        let boot = prepare(&raw, &cache, InitrdPolicy::Auto, None).map_err(RegionError::NotBootable)?;
        Ok(Image {
            image_id: image_id.to_owned(),
            name: request.name.to_owned(),
            architecture: "x86_64".to_owned(),
            state: "available".to_owned(),
            creation_date: now(),
            root_device_name: request.root_device_name.to_owned(),
            root_device_type: "ebs".to_owned(),
            virtualization_type: "hvm".to_owned(),
            tags: Vec::new(),
            amiable: ImageFacts {
                size_in_bytes: imported.size,
                source: request.source.map_or_else(|| request.file.display().to_string(), str::to_owned),
                source_format: imported.source_format.to_string(),
                layers: None,
                volumes: Vec::new(),
                digest: imported.digest,
                boot,
            },
        })
    }

    /// All AMIs, the newest last.
    pub fn images(&self) -> Result<Vec<Image>, RegionError> {
        Ok(self.store.tables().images()?)
    }

    /// The AMI of this name or id, or whose id starts so.
    ///
    /// # Errors
    /// `InvalidAMIID.NotFound`; an id's start that fits several.
    pub fn image(&self, key: &str) -> Result<Image, RegionError> {
        let mut found = self.store.tables().find_images::<Image>(key)?;
        if found.len() > 1 && found[0].name != key && found[0].image_id != key {
            let ids: Vec<_> = found.iter().map(|i| i.image_id.as_str()).collect();
            return Err(
                Ec2Error::new("InvalidAMIID.Malformed", format!("'{key}' may mean {}", ids.join(" or "))).into()
            );
        }
        if key.is_empty() || found.is_empty() {
            return Err(Ec2Error::image_not_found(key).into());
        }
        Ok(found.swap_remove(0))
    }

    pub(super) fn remove_image_files(&self, image_id: &str) -> Result<(), RegionError> {
        let disk = self.paths.image_disk(image_id);
        let folder = disk.parent().unwrap_or(&disk);
        match fs::remove_dir_all(folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RegionError::File { action: "remove", path: folder.display().to_string(), source })
            }
            _ => Ok(()),
        }
    }
}

/// EC2's rule for names of AMIs: 3 to 128 characters of letters, digits and some signs.
pub(super) fn check_name(name: &str) -> Result<(), Ec2Error> {
    let fits = (3..=128).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c))
        && !IdKind::Image.matches(name);
    if fits {
        return Ok(());
    }
    Err(Ec2Error::new(
        "InvalidAMIName.Malformed",
        format!(
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers and ()[] ./-'@_ only: '{name}'"
        ),
    ))
}
