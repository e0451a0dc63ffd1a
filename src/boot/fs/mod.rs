//! Read-only file systems of guest images behind one type.
//!
//! Contract: paths are absolute and use `/`; symbolic links are followed within the file system (a link never leads out
//! of it), at most 40 of them a look-up, as in Linux. Reads are bounded by the caller's `max`. The libraries below are
//! careful with hostile images, but they are not ours: whatever they do, the caller gets an [`FsError`] (a panic is
//! caught; [`reader::PartitionReader`] ends walks that read without end; sizes from superblocks are checked before the
//! library sees them).

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::SharedDisk;

mod btrfs;
pub mod detect;
mod ext4;
mod fat;
pub mod reader;
mod xfs;

pub use detect::{Content, FsIdentity, FsKind};
use reader::PartitionReader;

const MAX_LINKS: u32 = 40;
const MAX_PATH: usize = 4096;
/// More names than any directory that matters here has.
const MAX_NAMES: usize = 65_536;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// There is no such file or directory.
    #[error("{0}: no such file")]
    NotFound(String),
    /// It exists but is something else than asked for.
    #[error("{path}: not a {wanted}")]
    WrongKind {
        /// The path.
        path: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// It is larger than the caller accepts.
    #[error("{path}: {size} bytes, more than the {max} accepted here")]
    TooLarge {
        /// The path.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// Too many symbolic links, or a path too long.
    #[error("{0}: too many levels of symbolic links")]
    Links(String),
    /// The file system is damaged or uses something that the reader does not know.
    #[error("{kind} file system: {reason}")]
    Damaged {
        /// Its kind.
        kind: FsKind,
        /// What the reader said.
        reason: String,
    },
    /// The library panicked; the file system is not touched any more.
    #[error("{kind} file system: the reader gave up on a damaged structure ({reason})")]
    Panicked {
        /// Its kind.
        kind: FsKind,
        /// The panic's message.
        reason: String,
    },
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, FIFO or socket.
    Other,
}

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// A number that changes with the contents, as a rule (modification time, generation or inode number).
    pub stamp: u64,
}

/// What each file-system library is wrapped into. Paths have no links, `.` or `..` in them; nothing is followed.
trait RawFs {
    /// `Ok(None)` when there is no such file.
    fn lstat(&mut self, path: &str) -> Result<Option<Stat>, String>;
    fn read_link(&mut self, path: &str) -> Result<Vec<u8>, String>;
    /// Up to `length` bytes of a regular file from `offset`; fewer only at its end.
    fn read_range(&mut self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, String>;
    /// Names in a directory without `.` and `..`, at most `max`.
    fn list(&mut self, path: &str, max: usize) -> Result<Vec<String>, String>;
}

/// An opened file system.
pub struct FileSystem {
    kind: FsKind,
    raw: Box<dyn RawFs>,
    panicked: Option<String>,
}

/// Which of a btrfs file system's subvolumes to see. Other file systems have only one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subvolume<'a> {
    /// The default subvolume, and behind it the top level: boot loaders differ in where they count paths from.
    Any,
    /// What a mount without options shows.
    Default,
    /// What `subvol=` names, from the top level.
    Path(&'a str),
    /// What `subvolid=` names.
    Id(u64),
}

impl FileSystem {
    /// Open the file system of `kind` in the given bytes of `disk`.
    pub fn open(disk: SharedDisk, start: u64, length: u64, kind: FsKind, sub: Subvolume<'_>) -> Result<Self, FsError> {
        let reader = || PartitionReader::new(disk.clone(), start, length);
        let raw = guard(kind, || match kind {
            FsKind::Ext4 => ext4::open(reader()),
            FsKind::Xfs => xfs::open(reader()),
            FsKind::Btrfs => btrfs::open(&reader, sub),
            FsKind::Fat => fat::open(reader()),
        })??;
        Ok(Self { kind, raw, panicked: None })
    }

    /// What kind of file system it is.
    pub fn kind(&self) -> FsKind {
        self.kind
    }

    /// What `path` names, links followed.
    pub fn stat(&mut self, path: &str) -> Result<Stat, FsError> {
        self.resolve(path).map(|(_, stat)| stat)
    }

    /// Whether `path` names anything. Damage counts as no.
    pub fn exists(&mut self, path: &str) -> bool {
        self.stat(path).is_ok()
    }

    /// Whether `path` names a directory. Damage counts as no.
    pub fn is_dir(&mut self, path: &str) -> bool {
        self.stat(path).is_ok_and(|s| s.kind == FileKind::Dir)
    }

    /// A regular file's contents, if it has no more than `max` bytes.
    pub fn read(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FsError> {
        let (real, stat) = self.regular(path)?;
        let too_large = || FsError::TooLarge { path: path.to_string(), size: stat.size, max };
        if stat.size > max {
            return Err(too_large());
        }
        let size = usize::try_from(stat.size).map_err(|_| too_large())?;
        self.call(|raw| raw.read_range(&real, 0, size))
    }

    /// The last `max` bytes of a regular file, or all of it.
    pub fn read_tail(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FsError> {
        let (_, stat) = self.regular(path)?;
        self.read_range(path, stat.size.saturating_sub(max), usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// Up to `length` bytes of a regular file from `offset`.
    pub fn read_range(&mut self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, FsError> {
        let (real, stat) = self.regular(path)?;
        let length = length.min(usize::try_from(stat.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        self.call(|raw| raw.read_range(&real, offset, length))
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, FsError> {
        let (real, stat) = self.resolve(path)?;
        if stat.kind != FileKind::Dir {
            return Err(FsError::WrongKind { path: path.to_string(), wanted: "directory" });
        }
        let mut names = self.call(|raw| raw.list(&real, MAX_NAMES))?;
        names.sort_unstable();
        Ok(names)
    }

    fn regular(&mut self, path: &str) -> Result<(String, Stat), FsError> {
        let (real, stat) = self.resolve(path)?;
        if stat.kind != FileKind::File {
            return Err(FsError::WrongKind { path: path.to_string(), wanted: "regular file" });
        }
        Ok((real, stat))
    }

    /// Follow every link in `path`: the real path and what it names.
    fn resolve(&mut self, path: &str) -> Result<(String, Stat), FsError> {
        let not_found = || FsError::NotFound(path.to_string());
        let mut links = 0;
        let mut todo: Vec<String> = components(path);
        let mut done: Vec<String> = Vec::new();
        let mut stat = None;
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                // The parent of the root is the root.
                ".." => {
                    done.pop();
                    stat = None;
                    continue;
                }
                _ => done.push(name),
            }
            let here = format!("/{}", done.join("/"));
            let found = self.call(|raw| raw.lstat(&here))?.ok_or_else(not_found)?;
            if found.kind == FileKind::Symlink {
                links += 1;
                let target = self.call(|raw| raw.read_link(&here))?;
                let target = String::from_utf8(target).map_err(|_| not_found())?;
                if links > MAX_LINKS || target.len() + here.len() > MAX_PATH || todo.len() > MAX_PATH {
                    return Err(FsError::Links(path.to_string()));
                }
                if target.starts_with('/') {
                    done.clear();
                } else {
                    done.pop();
                }
                todo.extend(components(&target));
                stat = None;
                continue;
            }
            if found.kind != FileKind::Dir && todo.iter().any(|n| !n.is_empty() && n != ".") {
                return Err(not_found());
            }
            stat = Some(found);
        }
        let real = format!("/{}", done.join("/"));
        let stat = match stat {
            Some(stat) => stat,
            None => self.call(|raw| raw.lstat(&real))?.ok_or_else(not_found)?,
        };
        Ok((real, stat))
    }

    fn call<T>(&mut self, work: impl FnOnce(&mut dyn RawFs) -> Result<T, String>) -> Result<T, FsError> {
        let kind = self.kind;
        if let Some(reason) = &self.panicked {
            return Err(FsError::Panicked { kind, reason: reason.clone() });
        }
        let raw = self.raw.as_mut();
        let answer = guard(kind, || work(raw));
        if let Err(FsError::Panicked { reason, .. }) = &answer {
            self.panicked = Some(reason.clone());
        }
        answer?
    }
}

/// Read `length` bytes from `offset` piece by piece. The buffer grows with what was really read: an inode's size may lie.
fn read_in_pieces(
    offset: u64,
    length: usize,
    piece: usize,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, String>,
) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    while out.len() < length {
        let from = out.len();
        out.resize(length.min(from + piece), 0);
        let at = offset.checked_add(from as u64).ok_or("offset too large")?;
        let n = read(at, out.get_mut(from..).unwrap_or_default())?;
        out.truncate(from.saturating_add(n));
        if n == 0 {
            break;
        }
    }
    Ok(out)
}

/// A path's components in reverse, so that the next one is popped off.
fn components(path: &str) -> Vec<String> {
    path.split('/').rev().map(str::to_string).collect()
}

/// Call into a file-system library. The image is hostile and the libraries are young or old, but not ours: an index out
/// of bounds in one of them is to end in an error for this image, not in the death of the process. What was being
/// worked on is not used again after a panic (`panicked` above), so no broken invariant is ever seen.
fn guard<T>(kind: FsKind, work: impl FnOnce() -> Result<T, String>) -> Result<Result<T, FsError>, FsError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(answer) => Ok(answer.map_err(|reason| FsError::Damaged { kind, reason })),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let reason = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_string();
            Err(FsError::Panicked { kind, reason })
        }
    }
}

#[cfg(test)]
#[path = "fs_tests.rs"]
mod tests;
