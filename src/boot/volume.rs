//! A disk's partitions with their file systems, and every way to name one of them: GRUB's devices, and what `root=` and
//! fstab accept.

#![forbid(unsafe_code)]

use super::fs::reader::PartitionReader;
use super::fs::{Content, FileSystem, FsIdentity, Stat, Subvolume, detect};
use super::grub::{Host, SearchBy};
use super::partitions::{self, Partition, PartitionError, Table, TableKind};
use super::{SharedDisk, partitions::PartitionType};

/// Partitions beyond this many are not looked into.
const MAX_OPENED: usize = 32;

/// A disk that was looked into.
pub struct Volume {
    disk: SharedDisk,
    kind: TableKind,
    slots: Vec<Slot>,
}

/// One partition and what it holds.
pub struct Slot {
    /// The partition.
    pub partition: Partition,
    /// What its superblock says.
    pub content: Content,
    opened: Option<Result<FileSystem, String>>,
}

impl Slot {
    /// The file system's identity, if it holds a readable one.
    pub fn identity(&self) -> Option<&FsIdentity> {
        match &self.content {
            Content::Fs(identity) => Some(identity),
            _ => None,
        }
    }

    /// Why its file system could not be opened, if that was tried.
    pub fn failure(&self) -> Option<&str> {
        self.opened.as_ref()?.as_ref().err().map(String::as_str)
    }
}

impl Volume {
    /// Read the partition table and the superblocks.
    pub fn open(disk: &SharedDisk) -> Result<Self, PartitionError> {
        let Table { kind, partitions } = partitions::read(disk.as_ref())?;
        let slots = partitions.into_iter().take(MAX_OPENED).map(|partition| {
            let mut reader = PartitionReader::new(disk.clone(), partition.start, partition.length);
            Slot { content: detect::detect(&mut reader), partition, opened: None }
        });
        Ok(Self { disk: disk.clone(), kind, slots: slots.collect() })
    }

    /// The kind of partition table.
    pub fn table(&self) -> TableKind {
        self.kind
    }

    /// The partitions. Their places in this list are the `slot` numbers of the other methods.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The file system in a slot, opened at the first use.
    pub fn fs(&mut self, slot: usize) -> Option<&mut FileSystem> {
        let disk = self.disk.clone();
        let found = self.slots.get_mut(slot)?;
        let kind = found.identity()?.kind;
        let (start, length) = (found.partition.start, found.partition.length);
        let open = || FileSystem::open(disk, start, length, kind, Subvolume::Any).map_err(|e| e.to_string());
        found.opened.get_or_insert_with(open).as_mut().ok()
    }

    /// Another view of the file system in a slot.
    pub fn open_fs(&self, slot: usize, subvolume: Subvolume<'_>) -> Result<FileSystem, String> {
        let found = self.slots.get(slot).ok_or("no such partition")?;
        let kind = found.identity().ok_or("no readable file system")?.kind;
        let Partition { start, length, .. } = found.partition;
        FileSystem::open(self.disk.clone(), start, length, kind, subvolume).map_err(|e| e.to_string())
    }

    /// The partition that a device specification names; the first, if several bear the name. See [`named`](Self::named).
    pub fn first_named(&self, spec: &str) -> Option<usize> {
        self.named(spec).first().copied()
    }

    /// The partitions that a device specification names: `UUID=`, `LABEL=`, `PARTUUID=`, `PARTLABEL=`, the same below
    /// `/dev/disk/by-*`, or a device node of a first disk.
    pub fn named(&self, spec: &str) -> Vec<usize> {
        let spec = spec.trim_matches('"');
        let all = |test: &dyn Fn(&Slot) -> bool| -> Vec<usize> {
            self.slots.iter().enumerate().filter(|(_, s)| test(s)).map(|(slot, _)| slot).collect()
        };
        for (tag, directory) in [
            ("UUID=", "by-uuid/"),
            ("LABEL=", "by-label/"),
            ("PARTUUID=", "by-partuuid/"),
            ("PARTLABEL=", "by-partlabel/"),
        ] {
            let path = spec.strip_prefix("/dev/disk/").and_then(|rest| rest.strip_prefix(directory));
            if let Some(value) = spec.strip_prefix(tag).or(path) {
                return all(&|s| has_tag(s, tag, value));
            }
        }
        match device_partition(spec) {
            Some(index) => all(&|s| s.partition.index == index),
            None => Vec::new(),
        }
    }

    /// How GRUB names the partition.
    pub fn grub_name(&self, slot: usize) -> String {
        match self.slots.get(slot).map(|s| &s.partition) {
            Some(Partition { index, kind: PartitionType::Guid(_), .. }) => format!("hd0,gpt{index}"),
            Some(Partition { index, kind: PartitionType::Id(_), .. }) => format!("hd0,msdos{index}"),
            _ => "hd0".to_string(),
        }
    }

    /// The partition behind a GRUB device name; `hd0,gpt1`, `hd0,1` and the like.
    pub fn grub_slot(&self, device: &str) -> Option<usize> {
        let device = device.trim_matches(['(', ')']);
        let index = match device.split_once(',') {
            Some((_, partition)) => partition.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?,
            None => 0,
        };
        let disk = device.split(',').next()?;
        (disk == "hd0").then(|| self.slots.iter().position(|s| s.partition.index == index))?
    }
}

fn has_tag(slot: &Slot, tag: &str, value: &str) -> bool {
    match tag {
        "UUID=" => slot.identity().is_some_and(|i| i.uuid.eq_ignore_ascii_case(value)),
        "LABEL=" => slot.identity().is_some_and(|i| !value.is_empty() && i.label == value),
        "PARTUUID=" => slot.partition.partuuid.as_ref().is_some_and(|p| p.eq_ignore_ascii_case(value)),
        _ => !value.is_empty() && slot.partition.name == value,
    }
}

/// The partition number in the name of a node of the first disk, whatever its driver: `/dev/sda1`, `/dev/xvda1`,
/// `/dev/vda1`, `/dev/nvme0n1p1`; 0 is the disk.
fn device_partition(spec: &str) -> Option<u32> {
    let node = spec.strip_prefix("/dev/")?;
    let disks = ["nvme0n1", "mmcblk0", "xvda", "vda", "sda", "hda"];
    let rest = disks.iter().find_map(|disk| node.strip_prefix(disk))?;
    match rest.trim_start_matches('p') {
        "" if rest.is_empty() => Some(0),
        digits => digits.parse().ok(),
    }
}

impl Host for Volume {
    fn stat(&mut self, device: &str, path: &str) -> Option<Stat> {
        let slot = self.grub_slot(device)?;
        self.fs(slot)?.stat(path).ok()
    }

    fn read(&mut self, device: &str, path: &str, max: u64) -> Option<Vec<u8>> {
        let slot = self.grub_slot(device)?;
        self.fs(slot)?.read(path, max).ok()
    }

    fn list(&mut self, device: &str, path: &str) -> Vec<String> {
        let slot = self.grub_slot(device);
        slot.and_then(|slot| self.fs(slot)?.list(path).ok()).unwrap_or_default()
    }

    fn search(&mut self, by: SearchBy, what: &str) -> Option<String> {
        let slot = match by {
            SearchBy::Uuid => self.slots.iter().position(|s| has_tag(s, "UUID=", what)),
            SearchBy::Label => self.slots.iter().position(|s| has_tag(s, "LABEL=", what)),
            SearchBy::File => (0..self.slots.len()).find(|slot| self.fs(*slot).is_some_and(|fs| fs.exists(what))),
        }?;
        Some(self.grub_name(slot))
    }
}
