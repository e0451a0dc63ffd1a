//! A raw file or block device: reads, writes, zeros and durability at byte offsets, from several threads at once.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use super::OpenMode;
use super::error::StorageError;
use super::image::next_data;
use super::lock::lock;
use crate::vmm::backend::Wait;
use crate::vmm::volatile_io::{Window, read_window_at, write_window_at};

/// Bytes copied at a time.
const COPY: u64 = 4 << 20;
/// Zeros to write where the file system can't make them itself.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An open raw file or block device.
#[derive(Debug)]
pub struct BlockFile {
    file: File,
    /// The file system answers whether a buffered write would block.
    nowait_writes: AtomicBool,
    /// The file system makes holes.
    punches: AtomicBool,
    /// The file system zeroes ranges and keeps them allocated.
    zeroes: AtomicBool,
}

impl BlockFile {
    /// Open an existing file or block device and lock it, unless it is for a look.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self, StorageError> {
        let file = OpenOptions::new()
            .read(true)
            .write(mode.writable())
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY) // a FIFO or a terminal must not hang us
            .open(path)
            .map_err(StorageError::io("open", path))?;
        if mode == OpenMode::Look { Self::new(file, path) } else { Self::checked(file, path, mode.writable()) }
    }

    /// Make a file of `size` bytes, all hole. A block device is taken as it is.
    pub fn create(path: &Path, size: u64) -> Result<Self, StorageError> {
        if std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device()) {
            let device = Self::open(path, OpenMode::ReadWrite)?;
            device.require(path, size)?;
            return Ok(device);
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(StorageError::io("create", path))?;
        let made = Self::checked(file, path, true).and_then(|this| {
            this.file.set_len(size).map_err(StorageError::io("set the size of", path))?;
            Ok(this)
        });
        if made.is_err() {
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Let others read the file from now on: the lock becomes a shared one.
    pub fn share(&self) -> io::Result<()> {
        self.file.lock_shared()
    }

    /// Make a file longer. Block devices have the length they have.
    pub fn set_len_at_least(&self, len: u64) -> io::Result<()> {
        match self.len()? {
            present if present >= len => Ok(()),
            _ if self.file.metadata()?.is_file() => self.file.set_len(len),
            present => Err(io::Error::other(format!("the block device has {present} bytes, not {len}"))),
        }
    }

    fn checked(file: File, path: &Path, exclusive: bool) -> Result<Self, StorageError> {
        let this = Self::new(file, path)?;
        lock(&this.file, path, exclusive)?;
        Ok(this)
    }

    fn new(file: File, path: &Path) -> Result<Self, StorageError> {
        let kind = file.metadata().map_err(StorageError::io("look at", path))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file or a block device");
            return Err(StorageError::Io { action: "use", path: path.into(), source });
        }
        let yes = || AtomicBool::new(true);
        Ok(BlockFile { file, nowait_writes: yes(), punches: yes(), zeroes: yes() })
    }

    /// The size in bytes, of block devices too.
    pub fn len(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// An error if the file is shorter than `size`.
    pub fn require(&self, path: &Path, size: u64) -> Result<(), StorageError> {
        let found = self.len().map_err(StorageError::io("measure", path))?;
        if found < size {
            return Err(StorageError::TooShort { path: path.into(), expected: size, found });
        }
        Ok(())
    }

    /// Fill `to` from `offset`.
    pub fn read(&self, to: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()> {
        match read_window_at(self.file.as_fd(), to, offset, wait) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported && wait == Wait::Never => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            result => result,
        }
    }

    /// Write `from` at `offset`.
    pub fn write(&self, from: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()> {
        if wait == Wait::Never {
            if !self.nowait_writes.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            return match write_window_at(self.file.as_fd(), from, offset, wait) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.nowait_writes.store(false, Ordering::Relaxed);
                    Err(io::ErrorKind::WouldBlock.into())
                }
                result => result,
            };
        }
        write_window_at(self.file.as_fd(), from, offset, wait)
    }

    /// Read plain bytes.
    pub fn read_plain(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Write plain bytes.
    pub fn write_plain(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    /// Make the range read as zeros: by a hole (`deallocate`), by marking it, or by writing zeros, whichever works.
    pub fn zero(&self, offset: u64, len: u64, deallocate: bool) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        if !deallocate && self.allocate(&self.zeroes, FallocateFlags::ZERO_RANGE, offset, len)? {
            return Ok(());
        }
        if self.punch(offset, len)? {
            return Ok(());
        }
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = offset;
        while at < end {
            let n = (end - at).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..n as usize], at)?;
            at += n;
        }
        Ok(())
    }

    /// Give the range's space back; it then reads as zeros. `false` if the file system can't.
    pub fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        if len == 0 {
            return Ok(true);
        }
        self.allocate(&self.punches, FallocateFlags::PUNCH_HOLE, offset, len)
    }

    /// fallocate(2), remembering in `able` when this file does not have the operation.
    fn allocate(&self, able: &AtomicBool, how: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        use rustix::io::Errno;
        if !able.load(Ordering::Relaxed) {
            return Ok(false);
        }
        loop {
            return match fallocate(&self.file, how | FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => Ok(true),
                Err(Errno::INTR) => continue,
                // NODEV, INVAL and PERM: what devices and odd file systems answer instead.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL | Errno::PERM) => {
                    able.store(false, Ordering::Relaxed);
                    Ok(false)
                }
                Err(error) => Err(error.into()),
            };
        }
    }

    /// The next range from `offset` on that may hold something else than zeros, below `size`.
    pub fn next_data(&self, offset: u64, size: u64) -> io::Result<Option<Range<u64>>> {
        next_data(&self.file, offset, size)
    }

    /// Copy `from..to` of another file to the same place here, sharing it where the file system can.
    pub fn copy_from(&self, source: &BlockFile, from: u64, to: u64) -> io::Result<()> {
        use rustix::io::Errno;
        let (mut at, mut there) = (from, from);
        while at < to {
            let most = (to - at).min(COPY) as usize;
            match rustix::fs::copy_file_range(&source.file, Some(&mut at), &self.file, Some(&mut there), most) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                // Devices, and file systems that are not of one kind.
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    return self.copy_plain(source, at, to);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn copy_plain(&self, source: &BlockFile, mut at: u64, to: u64) -> io::Result<()> {
        let mut buf = vec![0; to.saturating_sub(at).min(COPY) as usize];
        while at < to {
            let n = (to - at).min(buf.len() as u64);
            let part = buf.get_mut(..n as usize).ok_or(io::ErrorKind::InvalidInput)?;
            source.file.read_exact_at(part, at)?;
            self.file.write_all_at(part, at)?;
            at += n;
        }
        Ok(())
    }

    /// Make completed writes durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
