//! A raw file or block device, as it is: the base of volumes, or a disk of its own.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::block_file::BlockFile;
use super::error::StorageError;
use super::{Layer, MAX_SIZE, OpenMode, checked_end, read_plain};
use crate::boot::Disk;
use crate::vmm::backend::{BLOCK_SIZE, BlockBackend, Wait};
use crate::vmm::volatile_io::Window;

use vm_memory::VolatileSlice;

/// An open raw disk. Its size is the file's at opening; its content is never looked at to find a format.
#[derive(Debug)]
pub struct RawImage {
    file: BlockFile,
    size: u64,
    mode: OpenMode,
}

impl RawImage {
    /// Open read-only, as a base or to look into it.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_as(path, OpenMode::ReadOnly)
    }

    /// Open with the given mode.
    pub fn open_as(path: &Path, mode: OpenMode) -> Result<Self, StorageError> {
        let file = BlockFile::open(path, mode)?;
        let size = file.len().map_err(StorageError::io("measure", path))?;
        check_size(size)?;
        Ok(RawImage { file, size, mode })
    }

    /// Make an empty disk of `size` bytes, all zeros, and open it. A block device is taken with what it holds.
    pub fn create(path: &Path, size: u64, mode: OpenMode) -> Result<Self, StorageError> {
        check_size(size)?;
        Ok(RawImage { file: BlockFile::create(path, size)?, size, mode })
    }

    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        checked_end(offset, len, self.size)?;
        if self.mode.writable() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

/// Refuse sizes that no disk can have.
pub(super) fn check_size(size: u64) -> Result<(), StorageError> {
    let reason = match size {
        0 => "it is empty",
        _ if size > MAX_SIZE => "16 TiB is the most",
        _ if !size.is_multiple_of(BLOCK_SIZE) => "it is not a multiple of 512",
        _ => return Ok(()),
    };
    Err(StorageError::BadSize { size, reason })
}

impl Layer for RawImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn next_data(&self, from: u64, limit: u64) -> io::Result<Option<Range<u64>>> {
        self.file.next_data(from, limit)
    }

    fn read_layer(&self, to: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()> {
        self.file.read(to, offset, wait)
    }
}

impl Disk for RawImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read_plain(self, offset, buf)
    }
}

impl BlockBackend for RawImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        let to = Window::whole(to).ok_or(io::ErrorKind::InvalidInput)?;
        checked_end(offset, to.len() as u64, self.size)?;
        self.file.read(to, offset, wait)
    }

    fn write(&self, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        let from = Window::whole(from).ok_or(io::ErrorKind::InvalidInput)?;
        self.check(offset, from.len() as u64)?;
        self.file.write(from, offset, wait)
    }

    fn flush(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::ReadWrite => self.file.sync(),
            OpenMode::ReadOnly | OpenMode::Look | OpenMode::ThrowAway => Ok(()),
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64, deallocate: bool) -> io::Result<()> {
        self.check(offset, length)?;
        self.file.zero(offset, length, deallocate)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check(offset, length)?;
        self.file.punch(offset, length).map(|_| ())
    }
}

#[cfg(test)]
#[path = "raw_tests.rs"]
mod tests;
