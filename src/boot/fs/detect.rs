//! What a partition holds, told by its superblock: the file systems that can be read, and names for those that can't.

use std::fmt;

use super::reader::PartitionReader;

/// A file system that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsKind {
    /// ext2, ext3 or ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// FAT12, FAT16 or FAT32.
    Fat,
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Fat => "vfat",
        })
    }
}

/// A partition's contents as far as the superblock tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A readable file system.
    Fs(FsIdentity),
    /// Something known that can't be read here, e.g. `LUKS` or `swap`.
    Other(&'static str),
    /// Nothing known.
    Unknown,
}

/// How a file system is named by `UUID=` and `LABEL=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsIdentity {
    /// What it is.
    pub kind: FsKind,
    /// UUID as `blkid` prints it: lower case, or `XXXX-XXXX` in capitals for FAT.
    pub uuid: String,
    /// The label; empty without one.
    pub label: String,
    /// Member devices: 1, but for btrfs.
    pub devices: u64,
    /// A Linux md superblock lies at the partition's end: the file system is one leg of a mirror.
    pub raid_leg: bool,
}

/// Look at the superblocks of a partition.
pub fn detect(reader: &mut PartitionReader) -> Content {
    let head = bytes(reader, 0, 8192);
    let magic = |at: usize, what: &[u8]| head.get(at..at + what.len()) == Some(what);
    if magic(0, b"LUKS\xba\xbe") {
        return Content::Other("LUKS encryption");
    }
    if (0..4).any(|sector| magic(sector * 512, b"LABELONE")) {
        return Content::Other("LVM physical volume");
    }
    if [0, 4096].iter().any(|at| magic(*at, &MD_MAGIC)) {
        return Content::Other("Linux RAID member");
    }
    let identity = |kind, uuid, label, devices| Content::Fs(FsIdentity { kind, uuid, label, devices, raid_leg: false });
    let mut content = if magic(0, b"XFSB") {
        identity(FsKind::Xfs, uuid_text(&head, 32), text(&head, 108, 12), 1)
    } else if magic(0x438, &[0x53, 0xef]) {
        identity(FsKind::Ext4, uuid_text(&head, 0x468), text(&head, 0x478, 16), 1)
    } else {
        let superblock = bytes(reader, 0x1_0000, 4096);
        if superblock.get(64..72) == Some(b"_BHRfS_M") {
            let devices = superblock.get(0x88..0x90).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
            identity(FsKind::Btrfs, uuid_text(&superblock, 32), text(&superblock, 0x12b, 256), devices)
        } else if magic(510, &[0x55, 0xaa]) && magic(82, b"FAT32   ") {
            identity(FsKind::Fat, serial(&head, 67), fat_label(&head, 71), 1)
        } else if magic(510, &[0x55, 0xaa]) && magic(54, b"FAT") {
            identity(FsKind::Fat, serial(&head, 39), fat_label(&head, 43), 1)
        } else if magic(4086, b"SWAPSPACE2") {
            Content::Other("swap")
        } else if magic(0, b"hsqs") {
            Content::Other("squashfs")
        } else if bytes(reader, 0x8000, 8).get(1..6) == Some(b"CD001") {
            Content::Other("ISO 9660")
        } else if magic(3, b"NTFS    ") {
            Content::Other("NTFS")
        } else if magic(0x400, &0xf2f5_2010_u32.to_le_bytes()) {
            Content::Other("F2FS")
        } else {
            Content::Unknown
        }
    };
    if let Content::Fs(fs) = &mut content {
        fs.raid_leg = md_at_end(reader);
    }
    content
}

/// The md superblock magic 0xa92b4efc (`linux/raid/md_p.h`), little endian.
const MD_MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];

/// md metadata 1.0 lies 8 KiB and 0.90 lies 64 KiB before the end, rounded down.
fn md_at_end(reader: &mut PartitionReader) -> bool {
    let sectors = reader.len() / 512;
    let v1 = (sectors.saturating_sub(16) & !7) * 512;
    let v0 = (sectors & !127).saturating_sub(128) * 512;
    [v1, v0].iter().any(|at| bytes(reader, *at, 4) == MD_MAGIC)
}

/// Some bytes; as many as there are.
fn bytes(reader: &mut PartitionReader, offset: u64, length: u64) -> Vec<u8> {
    let length = length.min(reader.len().saturating_sub(offset));
    let mut buf = vec![0; length as usize];
    match reader.read(offset, &mut buf) {
        Ok(()) => buf,
        Err(_) => Vec::new(),
    }
}

fn uuid_text(bytes: &[u8], at: usize) -> String {
    let hex = bytes.get(at..at + 16).map(hex::encode).unwrap_or_default();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn serial(bytes: &[u8], at: usize) -> String {
    let number = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    format!("{:04X}-{:04X}", number >> 16, number & 0xffff)
}

fn text(bytes: &[u8], at: usize, max: usize) -> String {
    let raw = bytes.get(at..at + max).unwrap_or_default();
    String::from_utf8_lossy(raw.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// The label in the boot sector. `mkfs.fat` and `fatlabel` keep it equal to the root directory's volume entry.
fn fat_label(bytes: &[u8], at: usize) -> String {
    let label = text(bytes, at, 11).trim_end().to_string();
    if label == "NO NAME" { String::new() } else { label }
}
