//! Volumes, copy-on-write, image formats, official images from the network: blocks in, blocks out.
//!
//! - [`volume`]: a copy-on-write layer over a read-only base, as an instance's root volume is over its AMI.
//! - [`limits`]: a disk held back to what a volume of EBS does.
//! - [`live`]: the volume of a running instance: snapshots and growth while it is read and written.
//! - [`chain`]: the layers of a volume by their files, from the image up.
//! - [`merge`](mod@merge): several layers become one.
//! - [`raw`]: a raw file or block device as it is.
//! - [`import`]: any disk image → a sparse raw file, once; afterwards nothing looks at a guest's bytes to find a format.
//! - [`pull`]: official cloud images by name.
//! - [`image`]: how large an image is, and how much of it is stored.
//!
//! Both kinds of disk are a [`BlockBackend`](crate::vmm::backend::BlockBackend) for the machine and a
//! [`Disk`](crate::boot::Disk) for the boot code.
#![forbid(unsafe_code)]

mod bitmap;
mod block_file;
pub mod chain;
pub mod error;
pub mod export;
pub mod image;
pub mod import;
pub mod limits;
pub mod live;
mod lock;
mod map_file;
pub mod merge;
pub mod pull;
pub mod raw;
pub mod volume;
mod volume_change;
mod volume_io;

pub use chain::Chain;
pub use error::StorageError;
pub use live::LiveVolume;
pub use map_file::LayerId;
pub use raw::RawImage;
pub use volume::{Reservation, Volume, VolumePaths};

use std::io;
use std::ops::Range;

use crate::vmm::backend::{BLOCK_SIZE, Wait};
use crate::vmm::volatile_io::Window;

/// The largest disk, in bytes: 16 TiB, as the largest gp2 volume.
pub const MAX_SIZE: u64 = 16 << 40;

/// How a disk is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Writes are refused. Several processes may have it open so.
    ReadOnly,
    /// Writes are refused, and no lock is taken: another process may be writing. What is read may be of different moments.
    Look,
    /// One process alone; flushes make writes durable.
    ReadWrite,
    /// One process alone; flushes do nothing. What is on disk after the process died is undefined.
    ThrowAway,
}

impl OpenMode {
    fn writable(self) -> bool {
        matches!(self, OpenMode::ReadWrite | OpenMode::ThrowAway)
    }
}

/// A readable stack of layers, seen as one disk: what a volume lies over.
pub trait Layer: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fill `to` from `offset`. The caller stays within [`size`](Self::size).
    fn read_layer(&self, to: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()>;
    /// The next range from `from` on, below `limit`, that may hold something else than zeros; `None` if there is no more. The caller
    /// stays within [`size`](Self::size).
    fn next_data(&self, from: u64, limit: u64) -> io::Result<Option<Range<u64>>> {
        Ok((from < limit).then_some(from..limit))
    }
    /// What tells it from other layers; zeros for what can't be told apart.
    fn id(&self) -> LayerId {
        LayerId::default()
    }
}

/// Check a device's access: sector aligned and within `size`. Answers the end of the range.
fn checked_end(offset: u64, len: u64, size: u64) -> io::Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= size && offset.is_multiple_of(BLOCK_SIZE) && len.is_multiple_of(BLOCK_SIZE) => Ok(end),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("access to {len} bytes at {offset} of a disk of {size} bytes is unaligned or out of range"),
        )),
    }
}

/// Read plain bytes through a layer; past the end is [`io::ErrorKind::UnexpectedEof`].
fn read_plain(layer: &dyn Layer, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    match offset.checked_add(buf.len() as u64) {
        Some(end) if end <= layer.size() => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let slices = [vm_memory::VolatileSlice::from(buf)];
    let window = Window::whole(&slices).ok_or(io::ErrorKind::InvalidInput)?;
    layer.read_layer(window, offset, Wait::Allowed)
}
