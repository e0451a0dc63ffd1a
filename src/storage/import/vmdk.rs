//! VMDK of one file, as VMware and AWS export disks: "monolithicSparse" and "streamOptimized".
//!
//! After VMware's "Virtual Disk Format 5.0": a header, an embedded text descriptor, and a grain directory of grain
//! tables of 512 entries, each the sector where a grain (64 KiB, as a rule) lies. In a stream-optimized disk a grain is
//! a marker with its length and a zlib stream, and the directory is found through a footer at the end of the file.

use std::io::Read;

use super::writer::Writer;
use super::{ImportError, Input};

const SECTOR: u64 = 512;
/// "KDMV", little endian.
const MAGIC: u32 = 0x564d_444b;
/// Header flags.
const ZEROED_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
/// The directory is where the footer says.
const AT_END: u64 = u64::MAX;
/// Entries of a grain table; no other number is in use.
const TABLE_ENTRIES: u64 = 512;
/// The largest grain accepted, in sectors: 1 MiB.
const MAX_GRAIN: u64 = 2048;
const MAX_DESCRIPTOR: u64 = 64 << 10;

struct Header {
    flags: u32,
    capacity: u64,
    grain: u64,
    descriptor: (u64, u64),
    table_entries: u32,
    directory: u64,
    compression: u16,
}

fn header_at(input: &Input<'_>, offset: u64) -> Result<Header, ImportError> {
    let mut sector = [0; SECTOR as usize];
    input.read_at(offset, &mut sector)?;
    let u32_at = |at| le32(&sector, at);
    let u64_at = |at| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if u32_at(0) != MAGIC {
        return Err(input.damaged("a VMDK header is missing"));
    }
    if !(1..=3).contains(&u32_at(4)) {
        return Err(input.unsupported(format!("VMDK version {} is not known", u32_at(4))));
    }
    Ok(Header {
        flags: u32_at(8),
        capacity: u64_at(12),
        grain: u64_at(20),
        descriptor: (u64_at(28), u64_at(36)),
        table_entries: u32_at(44),
        directory: u64_at(56),
        compression: (u32_at(76) >> 8) as u16, // unaligned: bytes 77 and 78
    })
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| b.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
}

pub fn copy(input: &Input<'_>, out: &mut Writer<'_>) -> Result<(), ImportError> {
    let mut magic = [0; 4];
    input.read_at(0, &mut magic)?;
    if magic == *b"# Di" {
        return Err(input.unsupported("it is a description of other files, and other files are never followed"));
    }
    let mut header = header_at(input, 0)?;
    check_descriptor(input, &header)?;
    if header.directory == AT_END {
        // Footer marker, footer, end-of-stream marker: the last three sectors.
        let at = input.len()?.checked_sub(2 * SECTOR).ok_or_else(|| input.damaged("its footer is missing"))?;
        header = header_at(input, at)?;
    }
    if header.grain < 8 || header.grain > MAX_GRAIN || !header.grain.is_power_of_two() {
        return Err(input.damaged(format!("grains of {} sectors are impossible", header.grain)));
    }
    if u64::from(header.table_entries) != TABLE_ENTRIES {
        return Err(input.damaged(format!("grain tables of {} entries are impossible", header.table_entries)));
    }
    let compressed = header.flags & COMPRESSED != 0;
    if compressed && header.compression != 1 {
        return Err(input.unsupported(format!("compression {} is not known", header.compression)));
    }
    let size = header.capacity.checked_mul(SECTOR).ok_or_else(|| input.damaged("its size is impossible"))?;
    let size = input.checked_size(size)?;
    out.set_size(size)?;
    Grains { input, header, compressed, stored: Vec::new() }.copy(size, out)
}

/// The descriptor says whether the disk is whole: only the difference to a parent is not.
fn check_descriptor(input: &Input<'_>, header: &Header) -> Result<(), ImportError> {
    let (at, sectors) = header.descriptor;
    let len = sectors.saturating_mul(SECTOR).min(MAX_DESCRIPTOR);
    if at == 0 || len == 0 {
        return Ok(());
    }
    let mut text = vec![0; len as usize];
    input.read_at(at.saturating_mul(SECTOR), &mut text)?;
    let text = String::from_utf8_lossy(&text);
    let value = |key: &str| {
        text.lines().filter_map(|line| line.split_once('=')).find(|(k, _)| k.trim() == key).map(|(_, value)| {
            value.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\0').to_ascii_lowercase()
        })
    };
    if value("parentCID").is_some_and(|cid| cid != "ffffffff") || value("parentFileNameHint").is_some() {
        return Err(input.unsupported("it is only the difference to a parent disk, and other files are never followed"));
    }
    match value("createType").as_deref() {
        None | Some("monolithicsparse" | "streamoptimized") => Ok(()),
        Some(other) => Err(input.unsupported(format!("VMDK type \"{other}\" is not one file with the whole disk"))),
    }
}

struct Grains<'a> {
    input: &'a Input<'a>,
    header: Header,
    compressed: bool,
    /// A grain as it lies in the file.
    stored: Vec<u8>,
}

impl Grains<'_> {
    fn copy(&mut self, size: u64, out: &mut Writer<'_>) -> Result<(), ImportError> {
        let grain_bytes = self.header.grain * SECTOR;
        let mut grain = vec![0; grain_bytes as usize];
        let mut table = vec![0; TABLE_ENTRIES as usize * 4];
        let directory = self.byte(self.header.directory)?;
        let mut at = 0;
        while at < size {
            let number = at / grain_bytes;
            if number.is_multiple_of(TABLE_ENTRIES) {
                let mut entry = [0; 4];
                let entry_at = directory.saturating_add(number / TABLE_ENTRIES * 4);
                self.input.read_at(entry_at, &mut entry)?;
                match u64::from(u32::from_le_bytes(entry)) {
                    0 => {
                        let covered = (grain_bytes * TABLE_ENTRIES).min(size - at);
                        out.zeros(covered)?;
                        at += covered;
                        continue;
                    }
                    sector => self.input.read_at(self.byte(sector)?, &mut table)?,
                }
            }
            let n = grain_bytes.min(size - at);
            match le32(&table, (number % TABLE_ENTRIES) as usize * 4) {
                0 => out.zeros(n)?,
                1 if self.header.flags & ZEROED_GRAINS != 0 => out.zeros(n)?,
                sector => {
                    self.read_grain(self.byte(sector.into())?, number, &mut grain)?;
                    out.data(grain.get(..n as usize).unwrap_or_default())?;
                }
            }
            at += n;
        }
        Ok(())
    }

    fn byte(&self, sector: u64) -> Result<u64, ImportError> {
        sector.checked_mul(SECTOR).ok_or_else(|| self.input.damaged("it points far past its end"))
    }

    fn read_grain(&mut self, at: u64, number: u64, grain: &mut [u8]) -> Result<(), ImportError> {
        let input = self.input;
        if !self.compressed {
            return input.read_at(at, grain);
        }
        // Grain marker: the sector on the disk, and the length of the zlib stream that follows.
        let mut marker = [0; 12];
        input.read_at(at, &mut marker)?;
        let lba = u64::from(le32(&marker, 0)) | u64::from(le32(&marker, 4)) << 32;
        let len = le32(&marker, 8) as usize;
        // zlib adds 5 bytes to each 16 KiB it can't compress, and 6 around it all.
        if Some(lba) != number.checked_mul(self.header.grain) || len > grain.len() + grain.len() / 1024 + 64 {
            return Err(input.damaged(format!("grain {number} is not where its table says")));
        }
        self.stored.resize(len, 0);
        input.read_at(at.saturating_add(12), &mut self.stored)?;
        let mut stream = flate2::bufread::ZlibDecoder::new(&self.stored[..]);
        let done = super::read_full(&mut stream as &mut dyn Read, grain)
            .map_err(|error| input.damaged(format!("grain {number} does not decompress: {error}")))?;
        if let Some(rest) = grain.get_mut(done..) {
            // The last grain of a disk may be stored short.
            rest.fill(0);
        }
        Ok(())
    }
}
