//! Partition tables: GPT (UEFI 2.10 §5.3) with the backup header as a fall-back, MBR with logical partitions, and
//! disks without a table.
//!
//! Contract: [`read`] answers with the partitions as Linux would number them. It never reads outside the disk, reads at
//! most 1,024 GPT entries and 128 logical partitions, and drops entries that do not lie within the disk.

#![forbid(unsafe_code)]

use std::io;

use super::Disk;

/// Logical blocks are 512 bytes: that is what the NVMe namespace says, so a table for 4 KiB blocks would be misread by
/// the guest as well.
const SECTOR: u64 = 512;
const MAX_GPT_ENTRIES: u32 = 1024;
const MAX_LOGICAL: u32 = 128;

/// Why no partition table could be read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The disk could not be read.
    #[error("reading the partition table at byte {offset} failed")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A protective MBR announces a GPT, but neither copy is sound.
    #[error("the disk has a protective MBR, but neither GPT header is valid (primary: {primary}; backup: {backup})")]
    BadGpt {
        /// What is wrong with the primary header.
        primary: &'static str,
        /// What is wrong with the backup header.
        backup: &'static str,
    },
}

/// What kind of table a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// GUID partition table.
    Gpt,
    /// MS-DOS partition table.
    Mbr,
    /// No table: the disk as a whole may hold a file system.
    None,
}

/// A disk's partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The kind of table.
    pub kind: TableKind,
    /// The partitions, by rising index. Without a table: one, with index 0, that spans the disk.
    pub partitions: Vec<Partition>,
}

/// What a partition is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionType {
    /// A GPT type GUID, lower-case text.
    Guid(String),
    /// An MBR system id.
    Id(u8),
    /// The whole disk.
    Disk,
}

impl PartitionType {
    /// EFI system partition.
    pub fn is_esp(&self) -> bool {
        match self {
            Self::Guid(g) => g == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            Self::Id(id) => *id == 0xef,
            Self::Disk => false,
        }
    }
    /// Linux software RAID member.
    pub fn is_raid(&self) -> bool {
        match self {
            Self::Guid(g) => g == "a19d880f-05fc-4d3b-a006-743f0f84911e",
            Self::Id(id) => *id == 0xfd,
            Self::Disk => false,
        }
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The number in `/dev/nvme0n1pN`, from 1; 0 is the whole disk.
    pub index: u32,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// What it is for.
    pub kind: PartitionType,
    /// What `root=PARTUUID=` names it by: GPT unique GUID, or `diskid-NN` for an MBR. Lower case.
    pub partuuid: Option<String>,
    /// GPT partition name.
    pub name: String,
}

/// Read the partition table of `disk`.
pub fn read(disk: &dyn Disk) -> Result<Table, PartitionError> {
    let size = disk.size();
    let whole = || Table {
        kind: TableKind::None,
        partitions: vec![Partition {
            index: 0,
            start: 0,
            length: size,
            kind: PartitionType::Disk,
            partuuid: None,
            name: String::new(),
        }],
    };
    if size < 2 * SECTOR {
        return Ok(whole());
    }
    let mbr = sector(disk, 0)?;
    if mbr.get(510..512) != Some(&[0x55, 0xaa]) {
        return Ok(whole());
    }
    let records = mbr_records(&mbr);
    if records.iter().any(|r| r.kind == 0xee) {
        return read_gpt(disk, size);
    }
    // A FAT boot sector carries the same signature; where the four records make no sense, there is no table.
    let plausible = records.iter().all(|r| r.status & 0x7f == 0 && within(r.start, r.count, size).is_some());
    if records.is_empty() || !plausible {
        return Ok(whole());
    }
    Ok(Table { kind: TableKind::Mbr, partitions: read_mbr(disk, size, &mbr, &records)? })
}

fn sector(disk: &dyn Disk, lba: u64) -> Result<[u8; 512], PartitionError> {
    let offset = lba.saturating_mul(SECTOR);
    let mut buf = [0; 512];
    disk.read_at(offset, &mut buf).map_err(|source| PartitionError::Read { offset, source })?;
    Ok(buf)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Byte start and length of a run of sectors that begins within the disk; cut at the disk's end, as Linux does.
fn within(start: u64, count: u64, size: u64) -> Option<(u64, u64)> {
    let at = start.checked_mul(SECTOR).filter(|at| *at < size)?;
    let length = count.checked_mul(SECTOR)?.min(size - at);
    (length > 0).then_some((at, length))
}

// --- MBR ---

struct Record {
    slot: u32,
    status: u8,
    kind: u8,
    start: u64,
    count: u64,
}

impl Record {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

fn mbr_records(sector: &[u8; 512]) -> Vec<Record> {
    (0..4u32)
        .filter_map(|slot| {
            let r = sector.get(446 + slot as usize * 16..)?.get(..16)?;
            let record = Record {
                slot: slot + 1,
                status: *r.first()?,
                kind: *r.get(4)?,
                start: u32_at(r, 8).into(),
                count: u32_at(r, 12).into(),
            };
            (record.kind != 0 && record.count != 0).then_some(record)
        })
        .collect()
}

fn read_mbr(disk: &dyn Disk, size: u64, mbr: &[u8], records: &[Record]) -> Result<Vec<Partition>, PartitionError> {
    let disk_id = u32_at(mbr, 440);
    let partition = |index: u32, kind: u8, start: u64, length: u64| Partition {
        index,
        start,
        length,
        kind: PartitionType::Id(kind),
        // Linux prints the disk signature and the partition number in hexadecimal.
        partuuid: (disk_id != 0).then(|| format!("{disk_id:08x}-{index:02x}")),
        name: String::new(),
    };
    let mut found = Vec::new();
    for r in records.iter().filter(|r| !r.is_extended()) {
        if let Some((start, length)) = within(r.start, r.count, size) {
            found.push(partition(r.slot, r.kind, start, length));
        }
    }
    // Linux follows the first extended partition only.
    if let Some(extended) = records.iter().find(|r| r.is_extended()) {
        let (base, mut link, mut index) = (extended.start, extended.start, 5);
        for _ in 0..MAX_LOGICAL {
            if within(link, 1, size).is_none() {
                break;
            }
            let ebr = sector(disk, link)?;
            if ebr.get(510..512) != Some(&[0x55, 0xaa]) {
                break;
            }
            let entries = mbr_records(&ebr);
            if let Some(r) = entries.iter().find(|r| !r.is_extended())
                && let Some((start, length)) = link.checked_add(r.start).and_then(|s| within(s, r.count, size))
            {
                found.push(partition(index, r.kind, start, length));
                index += 1;
            }
            match entries.iter().find(|r| r.is_extended()).and_then(|r| base.checked_add(r.start)) {
                Some(next) if next != link => link = next,
                _ => break,
            }
        }
    }
    Ok(found)
}

// --- GPT ---

fn read_gpt(disk: &dyn Disk, size: u64) -> Result<Table, PartitionError> {
    let primary = match gpt_at(disk, size, 1)? {
        Ok(table) => return Ok(table),
        Err(why) => why,
    };
    match gpt_at(disk, size, size / SECTOR - 1)? {
        Ok(table) => Ok(table),
        Err(backup) => Err(PartitionError::BadGpt { primary, backup }),
    }
}

fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = flate2::Crc::new();
    for part in parts {
        crc.update(part);
    }
    crc.sum()
}

type Sound = Result<Table, &'static str>;

fn gpt_at(disk: &dyn Disk, size: u64, lba: u64) -> Result<Sound, PartitionError> {
    let header = sector(disk, lba)?;
    if header.get(..8) != Some(b"EFI PART") {
        return Ok(Err("no signature"));
    }
    let Some(covered) = header.get(..u32_at(&header, 12) as usize).filter(|c| c.len() >= 92) else {
        return Ok(Err("impossible header size"));
    };
    let (head, tail) = (covered.get(..16).unwrap_or_default(), covered.get(20..).unwrap_or_default());
    if crc32(&[head, &[0; 4], tail]) != u32_at(&header, 16) {
        return Ok(Err("wrong header checksum"));
    }
    let (count, entry_size) = (u32_at(&header, 80), u32_at(&header, 84));
    if count > MAX_GPT_ENTRIES || !(128..=4096).contains(&entry_size) || !entry_size.is_power_of_two() {
        return Ok(Err("entry count or size out of range"));
    }
    let length = u64::from(count) * u64::from(entry_size);
    let Some(offset) =
        u64_at(&header, 72).checked_mul(SECTOR).filter(|o| o.checked_add(length).is_some_and(|e| e <= size))
    else {
        return Ok(Err("entries outside the disk"));
    };
    let mut entries = vec![0; length as usize];
    disk.read_at(offset, &mut entries).map_err(|source| PartitionError::Read { offset, source })?;
    if crc32(&[&entries]) != u32_at(&header, 88) {
        return Ok(Err("wrong entries checksum"));
    }
    let partitions = entries
        .chunks_exact(entry_size as usize)
        .zip(1..)
        .filter_map(|(entry, index)| gpt_entry(entry, index, size))
        .collect();
    Ok(Ok(Table { kind: TableKind::Gpt, partitions }))
}

fn gpt_entry(entry: &[u8], index: u32, size: u64) -> Option<Partition> {
    let kind = entry.get(..16)?;
    if kind.iter().all(|b| *b == 0) {
        return None;
    }
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    let (start, length) = within(first, last.checked_sub(first)?.checked_add(1)?, size)?;
    let name = entry.get(56..128)?.chunks_exact(2).filter_map(|c| Some(u16::from_le_bytes(c.try_into().ok()?)));
    let name: Vec<u16> = name.take_while(|c| *c != 0).collect();
    Some(Partition {
        index,
        start,
        length,
        kind: PartitionType::Guid(guid(kind)?),
        partuuid: guid(entry.get(16..32)?),
        name: String::from_utf16_lossy(&name),
    })
}

/// The text of a GUID in its mixed-endian disk form (UEFI 2.10 appendix A).
fn guid(bytes: &[u8]) -> Option<String> {
    let b: &[u8; 16] = bytes.try_into().ok()?;
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (n, at) in order.into_iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", b.get(at)?));
    }
    Some(text)
}

/// Fuzz entry point: any bytes as a disk.
pub fn fuzz(bytes: &[u8]) {
    let _ = read(&bytes.to_vec());
}

#[cfg(test)]
#[path = "partitions_tests.rs"]
mod tests;
