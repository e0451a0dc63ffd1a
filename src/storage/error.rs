//! What can go wrong with a volume or a raw disk.

use std::io;
use std::path::{Path, PathBuf};

/// An error of a volume or a raw disk.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done: "open", "create" …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use by {holder}: stop the instance that uses it first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The other process, as far as it can be named.
        holder: String,
    },
    /// The map file is not one, or is damaged.
    #[error("{} is not a usable volume map: {reason}", path.display())]
    BadMap {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The base has another size than when the volume was made.
    #[error("the base image of {} has {found} bytes where {expected} were expected: it was replaced or cut short", path.display())]
    BaseChanged {
        /// The volume's map file.
        path: PathBuf,
        /// The size that the volume was made over.
        expected: u64,
        /// The size that the base has now.
        found: u64,
    },
    /// The layer below is not the one that the volume was made over.
    #[error("{} was made over another layer than the one below it: the volume's files are mixed up", path.display())]
    WrongParent {
        /// The layer's map file.
        path: PathBuf,
    },
    /// The layer is a snapshot's.
    #[error("{} belongs to a snapshot and can't be written", path.display())]
    Frozen {
        /// The layer's map file.
        path: PathBuf,
    },
    /// A layer that others are to lie over may still change.
    #[error("{} is a volume's own layer, not a snapshot's: nothing can lie over it", path.display())]
    NotFrozen {
        /// The layer's map file.
        path: PathBuf,
    },
    /// More layers than a volume can have.
    #[error("{layers} layers are more than a volume can have, which is {most}")]
    TooDeep {
        /// The number of layers.
        layers: usize,
        /// The limit.
        most: usize,
    },
    /// A file or block device holds less than it has to.
    #[error("{} has {found} bytes where {expected} are needed", path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
        /// The least size.
        expected: u64,
        /// Its size.
        found: u64,
    },
    /// A size that no volume can have.
    #[error("{size} bytes is not a possible disk size: {reason}")]
    BadSize {
        /// The size asked for.
        size: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl StorageError {
    /// For `map_err`: wraps an [`io::Error`] with what was done to which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        move |source| StorageError::Io { action, path: path.into(), source }
    }
}
