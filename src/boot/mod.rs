//! From a disk to kernel, initrd and command line: partition tables, file systems, GRUB and Boot Loader Specification.

use std::io;

/// A disk to look into, read-only. Storage implements it for images and volumes.
pub trait Disk: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fill `buf` from `offset`; past the end is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}
