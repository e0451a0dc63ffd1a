//! Writes a cpio archive in the "newc" format, the initramfs of Linux (Documentation/driver-api/early-userspace/
//! buffer-format.rst): for each entry a 110-byte ASCII header, the NUL-terminated name padded to 4 bytes, the content
//! padded to 4 bytes; last an entry named `TRAILER!!!`.

use std::collections::BTreeSet;
use std::io::{self, Write};

const S_IFDIR: u32 = 0o040000;
const S_IFREG: u32 = 0o100000;
const S_IFLNK: u32 = 0o120000;
const S_IFCHR: u32 = 0o020000;

/// An archive on its way into `W`. Parent directories of an entry are added when they are missing.
pub struct Writer<W: Write> {
    output: W,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Writer<W> {
    /// An empty archive.
    pub fn new(output: W) -> Self {
        Self { output, inode: 0, directories: BTreeSet::new() }
    }

    /// A directory, mode 0755, with its parents. Twice is once.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.directories.insert(path.to_owned());
        self.entry(path, S_IFDIR | 0o755, (0, 0), &[])
    }

    /// A regular file with permission bits `mode`. [`io::ErrorKind::InvalidInput`] from 4 GiB on: the format has 32 bits
    /// for a size.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.entry(path, S_IFREG | (mode & 0o7777), (0, 0), content)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.entry(path, S_IFLNK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device node.
    pub fn character_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.entry(path, S_IFCHR | (mode & 0o7777), (major, minor), &[])
    }

    /// Ends the archive and gives the output back, flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, 0, (0, 0), 0)?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        if path.is_empty() || path.contains('\0') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a path for an archive: {path:?}")));
        }
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: larger than 4 GiB")))?;
        self.inode += 1;
        let inode = self.inode;
        self.header(path, inode, mode, device, size)?;
        self.output.write_all(content)?;
        self.pad(content.len())
    }

    fn header(&mut self, path: &str, inode: u32, mode: u32, device: (u32, u32), size: u32) -> io::Result<()> {
        let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        let name_size = path.len() + 1;
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        write!(
            self.output,
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
            0, 0, 0, 0, 0, device.0, device.1, 0
        )?;
        self.output.write_all(path.as_bytes())?;
        self.output.write_all(&[0])?;
        self.pad(110 + name_size)
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.output.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
#[path = "cpio_tests.rs"]
mod tests;
