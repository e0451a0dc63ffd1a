//! The root device: the kernel command line's words, and which partition `root=` means.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::fs::FsKind;
use super::partitions::TableKind;
use super::volume::Volume;

/// The root partition as far as it matters for booting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFacts {
    /// The partition's number; 0 is the whole disk.
    pub partition: u32,
    /// What `PARTUUID=` names it by.
    pub partuuid: Option<String>,
    /// File-system UUID.
    pub uuid: String,
    /// File-system label; empty without one.
    pub label: String,
    /// The file system.
    pub fs: FsKind,
    /// The partition table: `gpt`, `mbr` or `none`.
    pub table: String,
}

impl RootFacts {
    /// The facts about a slot of `volume`, if it holds a readable file system.
    pub fn of(volume: &Volume, slot: usize) -> Option<Self> {
        let found = volume.slots().get(slot)?;
        let identity = found.identity()?;
        let table = match volume.table() {
            TableKind::Gpt => "gpt",
            TableKind::Mbr => "mbr",
            TableKind::None => "none",
        };
        Some(Self {
            partition: found.partition.index,
            partuuid: found.partition.partuuid.clone(),
            uuid: identity.uuid.clone(),
            label: identity.label.clone(),
            fs: identity.kind,
            table: table.to_string(),
        })
    }
}

/// A kernel command line's words; double quotes keep spaces, as in the kernel's `next_arg`.
pub fn words(cmdline: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut quoted) = (None, false);
    for (at, c) in cmdline.char_indices() {
        if c == '"' {
            quoted = !quoted;
        }
        if c.is_ascii_whitespace() && !quoted {
            out.extend(start.take().and_then(|from: usize| cmdline.get(from..at)));
        } else if start.is_none() {
            start = Some(at);
        }
    }
    out.extend(start.and_then(|from| cmdline.get(from..)));
    out
}

/// The value of the last `name=` word before `--`; later ones win, as in the kernel.
pub fn value<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    let own = words(cmdline).into_iter().take_while(|w| *w != "--");
    own.filter_map(|w| w.strip_prefix(name)?.strip_prefix('=')).last()
}

/// The slot of the root file system: what `root=` names, else the first that looks like one.
pub fn find(volume: &mut Volume, cmdline: Option<&str>) -> Option<usize> {
    let named = cmdline.and_then(|c| value(c, "root")).and_then(|spec| volume.first_named(spec));
    named.or_else(|| (0..volume.slots().len()).find(|slot| looks_like_root(volume, *slot)))
}

/// `/etc/os-release` (as a link, it may be dangling where /usr is separate) and a place for init; on btrfs, also below
/// a subvolume's directory.
fn looks_like_root(volume: &mut Volume, slot: usize) -> bool {
    let Some(fs) = volume.fs(slot) else { return false };
    ["", "/root", "/@", "/@rootfs"].iter().any(|top| {
        fs.exists(&format!("{top}/etc/os-release"))
            && ["/sbin", "/usr/sbin", "/usr/lib/systemd"].iter().any(|d| fs.exists(&format!("{top}{d}")))
    })
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
