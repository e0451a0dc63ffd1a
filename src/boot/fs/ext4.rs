//! ext2, ext3 and ext4 through `ext4-view`, which also applies a journal that was left behind.

use ext4_view::{Ext4, Ext4Error};

use super::reader::PartitionReader;
use super::{FileKind, RawFs, Stat};

/// 128 TiB with the usual 128 MiB a group.
const MAX_GROUPS: u64 = 1 << 20;
const CHUNK: usize = 1 << 20;

struct Ext4Fs(Ext4);

pub(super) fn open(mut reader: PartitionReader) -> Result<Box<dyn RawFs>, String> {
    check_geometry(&mut reader)?;
    let again = reader.fresh();
    match Ext4::load(Box::new(reader)) {
        Ok(fs) => Ok(Box::new(Ext4Fs(fs))),
        // The library applies journals of today's form only. One that a kernel has not converted yet (it does with its first
        // transaction after a fresh mkfs), or an old one, is left alone: the files are as they were before it.
        Err(Ext4Error::Incompatible(_)) => {
            let fs = Ext4::load(Box::new(WithoutJournal(again))).map_err(|e| e.to_string())?;
            Ok(Box::new(Ext4Fs(fs)))
        }
        Err(e) => Err(e.to_string()),
    }
}

/// The superblock, and in it: the incompatible features, of these the one that says "apply the journal first", the
/// read-only compatible features, of these checksums, and the superblock's own (ext4.rst, "Super Block").
const SUPERBLOCK: std::ops::Range<u64> = 1024..2048;
const INCOMPATIBLE: usize = 0x60;
const RECOVER: u8 = 0x4;
const READ_ONLY_COMPATIBLE: usize = 0x64;
const METADATA_CSUM: u32 = 0x400;
const CHECKSUM: usize = 0x3FC;

/// The same file system as if its journal were empty.
struct WithoutJournal(PartitionReader);

impl ext4_view::Ext4Read for WithoutJournal {
    fn read(&mut self, start: u64, to: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.0.read(start, to)?;
        let end = start.saturating_add(to.len() as u64);
        if start < SUPERBLOCK.end && end > SUPERBLOCK.start {
            let mut sb = [0; 1024];
            self.0.read(SUPERBLOCK.start, &mut sb)?;
            clear_recover(&mut sb);
            for (at, byte) in (start..).zip(to) {
                if SUPERBLOCK.contains(&at) {
                    *byte = sb[(at - SUPERBLOCK.start) as usize];
                }
            }
        }
        Ok(())
    }
}

fn clear_recover(sb: &mut [u8; 1024]) {
    sb[INCOMPATIBLE] &= !RECOVER;
    let mut features = [0; 4];
    features.copy_from_slice(&sb[READ_ONLY_COMPATIBLE..READ_ONLY_COMPATIBLE + 4]);
    if u32::from_le_bytes(features) & METADATA_CSUM != 0 {
        let checksum = crc32c(&sb[..CHECKSUM]);
        sb[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// CRC-32C as ext4 keeps it: without the final inversion.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

/// The library reserves memory by the superblock's number of block groups: see first that the number can be true.
fn check_geometry(reader: &mut PartitionReader) -> Result<(), String> {
    let mut sb = [0; 1024];
    reader.read(1024, &mut sb).map_err(|e| e.to_string())?;
    let word = |at: usize| sb.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let has_64bit = word(0x60) & 0x80 != 0;
    let blocks = u64::from(word(4)) | if has_64bit { u64::from(word(0x150)) << 32 } else { 0 };
    let block_size = 1024_u64.checked_shl(word(0x18)).filter(|s| (1024..=65536).contains(s));
    let block_size = block_size.ok_or("impossible block size in the superblock")?;
    if blocks.checked_mul(block_size).is_none_or(|bytes| bytes > reader.len()) {
        return Err(format!("it claims {blocks} blocks of {block_size} bytes, more than the partition has"));
    }
    match blocks.checked_div(word(0x20).into()) {
        Some(groups) if groups < MAX_GROUPS => Ok(()),
        _ => Err("impossible number of block groups in the superblock".into()),
    }
}

fn absent<T>(answer: Result<T, Ext4Error>) -> Result<Option<T>, String> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Ext4Error::NotFound | Ext4Error::NotADirectory | Ext4Error::MalformedPath) => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

impl RawFs for Ext4Fs {
    fn lstat(&mut self, path: &str) -> Result<Option<Stat>, String> {
        let found = absent(self.0.symlink_metadata(path))?;
        Ok(found.map(|m| {
            let kind = match m.file_type() {
                t if t.is_regular_file() => FileKind::File,
                t if t.is_dir() => FileKind::Dir,
                t if t.is_symlink() => FileKind::Symlink,
                _ => FileKind::Other,
            };
            let time = m.modified();
            let stamp = (time.seconds() as u64).wrapping_mul(1_000_000_000).wrapping_add(time.nanoseconds().into());
            Stat { kind, size: m.len(), stamp }
        }))
    }

    fn read_link(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let target = self.0.read_link(path).map_err(|e| e.to_string())?;
        let bytes: &[u8] = target.as_ref();
        Ok(bytes.to_vec())
    }

    fn read_range(&mut self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let mut file = self.0.open(path).map_err(|e| e.to_string())?;
        file.seek_to(offset).map_err(|e| e.to_string())?;
        super::read_in_pieces(offset, length, CHUNK, |_, buf| file.read_bytes(buf).map_err(|e| e.to_string()))
    }

    fn list(&mut self, path: &str, max: usize) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        for entry in self.0.read_dir(path).map_err(|e| e.to_string())?.take(max) {
            let entry = entry.map_err(|e| e.to_string())?;
            // A name that is not UTF-8 is none that is looked for here.
            if let Ok(name) = entry.file_name().as_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_string());
            }
        }
        Ok(names)
    }
}
