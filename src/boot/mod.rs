//! From a disk to kernel, initrd and command line: partition tables, file systems, GRUB and Boot Loader Specification.
//!
//! The contract: a disk goes in (any [`Disk`]; nothing is ever written), and out comes what its own boot loader would
//! have started: [`find::find`]. Everything on the disk is hostile: sizes, counts, depths and steps are bounded, and a
//! panic in a file-system library ends in an error.
//!
//! - [`partitions`]: GPT, MBR, or no table at all.
//! - [`fs`]: ext4, XFS, btrfs and FAT behind one read-only type, symlinks followed.
//! - [`grub`], [`bls`], [`extlinux`]: what the boot loaders' configuration files say.
//! - [`volume`]: all partitions of a disk with their file systems, found by UUID, label, PARTUUID or device name.
//! - [`find`]: the search for the boot files, with an error that tells what was looked for, where.
//! - [`initrd`]: whether the initial RAM disk can be left out.
//! - [`kernel`], [`elf`], [`cache`]: the bzImage, unpacked on the host and kept as files that can be mapped.
//! - [`plan`]: all of it as one serialisable value that stays valid while the boot files stay as they are.
//! - [`guest`]: the root file system, for reading result files after the guest is off.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub mod bls;
pub mod cache;
pub mod elf;
pub mod extlinux;
pub mod find;
pub mod fs;
pub mod grub;
pub mod guest;
pub mod initrd;
pub mod kernel;
pub mod partitions;
pub mod plan;
pub mod root;
pub mod unpack;
pub mod volume;

#[cfg(test)]
mod testing;

/// A disk to look into, read-only. Storage implements it for images and volumes.
pub trait Disk: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fill `buf` from `offset`; past the end is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// A disk that several readers share. The file-system libraries own their reader, hence the counted pointer.
pub type SharedDisk = Arc<dyn Disk>;

/// A raw image. Its size is taken at each call, as another process may grow it.
impl Disk for File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
}

/// A disk in memory.
impl Disk for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|o| self.get(o..)?.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
