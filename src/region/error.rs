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
    /// There is no room left on the disk.
    #[error("there is no room left on the disk that has the region's files")]
    NoRoom {
        /// EC2's code for it.
        code: &'static str,
        /// What there was no room for.
        #[source]
        source: Box<RegionError>,
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
            RegionError::NoRoom { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether it comes of a full disk, or of a quota that is used up.
    pub fn is_no_room(&self) -> bool {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(cause) = error {
            let full = cause.downcast_ref::<std::io::Error>().is_some_and(|e| {
                matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }) || matches!(cause.downcast_ref::<RegionError>(), Some(RegionError::NoRoom { .. }))
                || matches!(cause.downcast_ref::<StoreError>(), Some(StoreError::Full(_)));
            if full {
                return true;
            }
            error = cause.source();
        }
        false
    }

    /// This error, and with EC2's code for too little room if that is what it comes of.
    pub(super) fn or_no_room(self, code: &'static str) -> Self {
        if self.is_no_room() && self.code().is_none() {
            return RegionError::NoRoom { code, source: Box::new(self) };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_for_one_wherever_it_shows() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let file = RegionError::File { action: "write", path: "x".to_owned(), source: full() };
        assert!(file.is_no_room());
        let deep = StorageError::Io { action: "create", path: "x".into(), source: full() };
        let error = RegionError::from(deep).or_no_room("InsufficientVolumeCapacity");
        assert_eq!(error.code(), Some("InsufficientVolumeCapacity"));
        assert!(error.is_no_room());
        let other = RegionError::Other("no".to_owned()).or_no_room("InsufficientVolumeCapacity");
        assert_eq!(other.code(), None);
    }
}
