//! Why the region could not do something.

use crate::boot::find::BootError;
use crate::ec2::Ec2Error;
use crate::storage::StorageError;

use super::paths::NoHome;
use super::store::StoreError;

/// Why the region could not do something.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The region said no, with EC2's code.
    #[error("{}", .0.message)]
    Ec2(#[from] Ec2Error),
    /// There is no place for the region's files.
    #[error(transparent)]
    NoHome(#[from] NoHome),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Images and volumes.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A disk image could not be imported.
    #[error(transparent)]
    Import(#[from] crate::storage::import::ImportError),
    /// An image has nothing that could be booted.
    #[error("the image can't be booted: its boot files were not found")]
    NotBootable(#[source] BootError),
    /// A file of the region.
    #[error("can't {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

impl RegionError {
    /// EC2's code, if the condition has one.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            RegionError::Ec2(error) => Some(error.code),
            _ => None,
        }
    }
}
