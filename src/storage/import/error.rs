//! Why an image can't be imported.

use std::io;
use std::path::{Path, PathBuf};

/// An error of an import.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The source.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The raw file can't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The raw file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space left on the disk of {}: make room there, or set AMIABLE_HOME to a folder on a larger disk", path.display())]
    DiskFull {
        /// The raw file.
        path: PathBuf,
    },
    /// The raw file is already there.
    #[error("{} already exists", .0.display())]
    Exists(PathBuf),
    /// The image is of a kind that is not read here.
    #[error("{} cannot be imported as it is: {reason}\nconvert it first:\n  {command}", path.display())]
    Unsupported {
        /// The source.
        path: PathBuf,
        /// What is not supported.
        reason: String,
        /// What turns it into a raw image.
        command: String,
    },
    /// The image contradicts itself.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The source.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk is larger than supported.
    #[error("{} describes a disk of more than {max} bytes, which is more than a volume can have", path.display())]
    TooLarge {
        /// The source.
        path: PathBuf,
        /// The limit.
        max: u64,
    },
    /// The caller stopped it.
    #[error("the import was interrupted")]
    Interrupted,
}

impl ImportError {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        ImportError::Read { path: path.into(), source }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImportError::DiskFull { path: path.into() },
            io::ErrorKind::AlreadyExists => ImportError::Exists(path.into()),
            _ => ImportError::Write { path: path.into(), source },
        }
    }

    /// `qemu-img` reads them all.
    pub(super) fn unsupported(path: &Path, reason: impl Into<String>) -> Self {
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let command = format!("qemu-img convert -O raw {} {}", quoted(path), quoted(&path.with_extension("raw")));
        ImportError::Unsupported { path: path.into(), reason: reason.into(), command }
    }
}
