//! The layers of a volume by their files, from the image at the bottom to the layer that is written.
//!
//! ```text
//! image (raw) <- frozen layer <- frozen layer <- the volume's own layer
//!                     \__ a snapshot is all up to here: any number of volumes may lie over it
//! ```
//!
//! Frozen layers never change, so they are shared: by the volumes of several instances in several processes, and by AMIs.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::map_file;
use super::volume::{Volume, VolumePaths};
use super::{Layer, LiveVolume, OpenMode, RawImage, StorageError};

/// The most layers of one volume: each is looked into by a read of what the ones above do not hold.
pub const MOST_LAYERS: usize = 64;

/// What a volume lies over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The raw image at the bottom, if there is one.
    pub image: Option<PathBuf>,
    /// Frozen layers from the bottom up.
    pub frozen: Vec<VolumePaths>,
}

impl Chain {
    /// Open all of it for reading. `None` for an empty chain, which reads as zeros.
    pub fn open(&self) -> Result<Option<Arc<dyn Layer>>, StorageError> {
        if self.frozen.len() > MOST_LAYERS {
            return Err(StorageError::TooDeep { layers: self.frozen.len(), most: MOST_LAYERS });
        }
        let mut base: Option<Arc<dyn Layer>> = match &self.image {
            Some(path) => Some(Arc::new(RawImage::open(path)?)),
            None => None,
        };
        for paths in &self.frozen {
            let layer = Volume::open(paths, base, OpenMode::ReadOnly)?;
            if !layer.is_frozen() {
                return Err(StorageError::NotFrozen { path: paths.map.clone() });
            }
            base = Some(Arc::new(layer));
        }
        Ok(base)
    }

    /// Make a volume of `size` bytes over it.
    pub fn create(&self, top: &VolumePaths, size: u64, mode: OpenMode) -> Result<LiveVolume, StorageError> {
        Ok(LiveVolume::new(Volume::create(top, size, self.open()?, mode)?))
    }

    /// Open the volume whose own layer is `top`.
    pub fn open_volume(&self, top: &VolumePaths, mode: OpenMode) -> Result<LiveVolume, StorageError> {
        Ok(LiveVolume::new(Volume::open(top, self.open()?, mode)?))
    }
}

/// Whether a layer is frozen, by its file: a snapshot that was cut short has come as far as this, or not.
pub fn is_frozen(layer: &VolumePaths) -> Result<bool, StorageError> {
    Ok(map_file::peek(&layer.map)?.frozen)
}

/// The size in bytes of the volume that a layer shows.
pub fn size_of(layer: &VolumePaths) -> Result<u64, StorageError> {
    Ok(map_file::peek(&layer.map)?.size)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
