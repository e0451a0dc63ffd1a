//! Why an image can't be had.

use std::io;
use std::path::PathBuf;

/// An error of a pull.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No image of that name.
    #[error(
        "no image is called \"{name}\" in the catalogue; there are: {known}\na URL or `amiable image import FILE` work for any other"
    )]
    UnknownImage {
        /// The name asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// The server has no such file.
    #[error(
        "{url} does not exist (HTTP {status}): check the address, or look whether the distributor has moved the image"
    )]
    NotFound {
        /// The address.
        url: String,
        /// 404 or 410.
        status: u16,
    },
    /// The server refuses or fails.
    #[error("{url}: the server answered HTTP {status}{}", if *.status >= 500 || *.status == 429 { ": try again later" } else { "" })]
    Status {
        /// The address.
        url: String,
        /// The answer.
        status: u16,
    },
    /// No connection, or it broke too often.
    #[error(
        "cannot fetch {url}: check the network and the proxy settings (https_proxy), then run the same command again: it goes on where it stopped"
    )]
    Connection {
        /// The address.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The transfer ended before its announced end.
    #[error("the transfer of {url} broke off after {done} bytes: run the same command again to go on from there")]
    BrokenOff {
        /// The address.
        url: String,
        /// Bytes that are here.
        done: u64,
    },
    /// The server's answer makes no sense.
    #[error("{url}: {reason}")]
    BadAnswer {
        /// The address.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The file is not the one that was published.
    #[error(
        "{url} is not what its publisher describes: its checksum is {found} and should be {expected}\nwhat was downloaded is removed; if it happens again, the mirror is broken or somebody tampers with it"
    )]
    WrongChecksum {
        /// The address.
        url: String,
        /// Published.
        expected: String,
        /// Computed.
        found: String,
    },
    /// More than allowed.
    #[error("{url} is larger than {max} bytes")]
    TooLarge {
        /// The address.
        url: String,
        /// The limit.
        max: u64,
    },
    /// Another process is at it.
    #[error("another process is downloading {} right now: wait for it", .0.display())]
    Busy(PathBuf),
    /// The disk is full.
    #[error("no space left on the disk of {}: make room and run the same command again", .0.display())]
    DiskFull(PathBuf),
    /// The file can't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The caller stopped it.
    #[error("the download was interrupted: run the same command again to go on")]
    Interrupted,
}

impl PullError {
    pub(super) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PullError {
        let path = path.into();
        |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PullError::DiskFull(path),
            _ => PullError::Write { path, source },
        }
    }

    pub(super) fn connection(url: &str, error: ureq::Error) -> PullError {
        PullError::Connection { url: url.into(), source: Box::new(error) }
    }

    /// Whether the same request may do better a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            PullError::BrokenOff { .. } => true,
            PullError::Status { status, .. } => *status >= 500 || *status == 429 || *status == 416,
            PullError::Connection { source, .. } => matches!(
                **source,
                ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled
            ),
            _ => false,
        }
    }
}
