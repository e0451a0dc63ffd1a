//! A guest's files, after it is off: its root file system with what its fstab mounts into it.
//!
//! Contract: read-only, bounded, links followed within each file system. The value belongs to one thread (the ext4
//! library counts references without locks).

#![forbid(unsafe_code)]

use super::SharedDisk;
use super::find::{self, BootError};
use super::fs::{FileSystem, FsError, FsKind, Stat, Subvolume};
use super::root::{self, RootFacts};
use super::volume::Volume;

/// fstab files have a dozen lines.
const MAX_MOUNTS: usize = 32;

/// A guest's directory tree.
pub struct GuestRoot {
    /// Mount points without a final `/` (the root's is empty), the longest first.
    mounts: Vec<(String, FileSystem)>,
    facts: RootFacts,
}

/// Open the root file system of `disk`: what the boot entry's `root=` names, else the partition that holds one.
pub fn open_root(disk: &SharedDisk) -> Result<GuestRoot, BootError> {
    let mut volume = find::open(disk)?;
    let cmdline = find::locate(&mut volume).ok().map(|located| located.cmdline);
    open_root_with(&mut volume, cmdline.as_deref())
}

/// As [`open_root`], with the kernel command line known.
pub fn open_root_with(volume: &mut Volume, cmdline: Option<&str>) -> Result<GuestRoot, BootError> {
    let unreadable =
        |reason: &str| BootError::Unreadable { file: "the root file system".into(), reason: reason.into() };
    let slot = root::find(volume, cmdline).ok_or_else(|| unreadable("no partition holds one"))?;
    let facts = RootFacts::of(volume, slot).ok_or_else(|| unreadable("its file system is not known"))?;
    let flags = cmdline.and_then(|c| root::value(c, "rootflags")).unwrap_or_default();
    let mut fs = volume.open_fs(slot, subvolume(flags)).map_err(|e| unreadable(&e))?;
    if facts.fs == FsKind::Btrfs && !fs.exists("/etc") {
        // The default subvolume is the top level: the root is one of its usual children.
        let usual = ["root", "@", "@rootfs"].iter().find(|name| fs.exists(&format!("/{name}/etc")));
        if let Some(name) = usual {
            fs = volume.open_fs(slot, Subvolume::Path(name)).map_err(|e| unreadable(&e))?;
        }
    }
    let fstab = fs.read("/etc/fstab", 256 << 10).unwrap_or_default();
    let mut mounts = vec![(String::new(), fs)];
    for mount in fstab_entries(&String::from_utf8_lossy(&fstab)).into_iter().take(MAX_MOUNTS) {
        if let Some(slot) = volume.first_named(&mount.device)
            && let Ok(fs) = volume.open_fs(slot, subvolume(&mount.options))
        {
            mounts.push((mount.directory, fs));
        }
    }
    mounts.sort_by_key(|(directory, _)| std::cmp::Reverse(directory.len()));
    Ok(GuestRoot { mounts, facts })
}

impl GuestRoot {
    /// The partition that holds the root file system.
    pub fn facts(&self) -> &RootFacts {
        &self.facts
    }

    /// A file's contents, if it has no more than `max` bytes.
    pub fn read(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FsError> {
        let (fs, path) = self.at(path)?;
        fs.read(&path, max)
    }

    /// The last `max` bytes of a file, or all of it.
    pub fn read_tail(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FsError> {
        let (fs, path) = self.at(path)?;
        fs.read_tail(&path, max)
    }

    /// The names in a directory, sorted.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, FsError> {
        let (fs, path) = self.at(path)?;
        fs.list(&path)
    }

    /// What a path names, links followed.
    pub fn stat(&mut self, path: &str) -> Result<Stat, FsError> {
        let (fs, path) = self.at(path)?;
        fs.stat(&path)
    }

    /// Whether a path names anything.
    pub fn exists(&mut self, path: &str) -> bool {
        self.stat(path).is_ok()
    }

    /// The file system that holds `path`, and the path in it.
    fn at(&mut self, path: &str) -> Result<(&mut FileSystem, String), FsError> {
        let path = format!("/{}", path.trim_start_matches('/'));
        for (directory, fs) in &mut self.mounts {
            if let Some(rest) = path.strip_prefix(directory.as_str())
                && (rest.is_empty() || rest.starts_with('/'))
            {
                return Ok((fs, if rest.is_empty() { "/".into() } else { rest.to_string() }));
            }
        }
        Err(FsError::NotFound(path))
    }
}

/// A line of fstab that mounts something below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// What is mounted.
    pub device: String,
    /// Where, without a final `/`.
    pub directory: String,
    /// Mount options.
    pub options: String,
}

/// The lines of an fstab that mount a device below the root (fstab(5)).
pub(super) fn fstab_entries(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (device, directory) = (fields.next()?, fields.next()?);
        let options = fields.nth(1).unwrap_or_default();
        let below = directory.starts_with('/') && directory.len() > 1;
        (!device.starts_with('#') && below).then(|| Mount {
            device: device.to_string(),
            directory: directory.trim_end_matches('/').to_string(),
            options: options.to_string(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// The subvolume that mount options choose.
fn subvolume(options: &str) -> Subvolume<'_> {
    let value = |name: &str| options.split(',').find_map(|o| o.strip_prefix(name)?.strip_prefix('='));
    match (value("subvol"), value("subvolid").and_then(|id| id.parse().ok())) {
        (Some(path), _) => Subvolume::Path(path),
        (None, Some(id)) => Subvolume::Id(id),
        (None, None) => Subvolume::Default,
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
