//! The map file of a volume: a header page, then the bitmap of the blocks that the data file holds.
//!
//! | offset | bytes | field, little endian |
//! |--------|-------|----------------------|
//! | 0      | 8     | magic `amblvol\0` |
//! | 8      | 4     | version, 2 |
//! | 12     | 4     | block size, 4096 |
//! | 16     | 8     | volume size in bytes |
//! | 24     | 8     | base size in bytes, 0 without a base |
//! | 32     | 16    | the layer's own id, random |
//! | 48     | 16    | the id of the layer below, 0 over an image or nothing |
//! | 64     | 4     | 1 if the layer is frozen |
//! | 68     | 4     | CRC-32 (IEEE) of bytes 0 to 67 |
//! | 4096   | …     | bit *n* of byte *m*: block 8 *m* + *n* |
//!
//! The header is within one sector, so it is changed as a whole. Version 1 had no ids and could not be frozen: its CRC stands at 32.

use std::io;
use std::path::Path;

use super::bitmap::{Bitmap, PAGE_BYTES};
use super::block_file::BlockFile;
use super::error::StorageError;
use super::volume::VOLUME_BLOCK;
use super::{MAX_SIZE, OpenMode};
use crate::vmm::backend::BLOCK_SIZE;

const MAGIC: &[u8; 8] = b"amblvol\0";
const VERSION: u32 = 2;
/// The bitmap starts here.
const PAGES_AT: u64 = PAGE_BYTES as u64;
/// Pages that one flush writes at a time: they cover 8 GiB.
const BATCH: usize = 64;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Volume size in bytes.
    pub size: u64,
    /// Base size in bytes.
    pub base_size: u64,
    /// The layer's own id; zeros in files of version 1.
    pub id: LayerId,
    /// The id of the layer below, or zeros.
    pub parent: LayerId,
    /// Whether it must not change any more.
    pub frozen: bool,
}

/// Tells layers apart.
pub type LayerId = [u8; 16];

/// The header's length in bytes.
const HEADER: usize = 72;
/// The same in version 1.
const HEADER_1: usize = 36;

impl Header {
    /// The header as bytes.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(VOLUME_BLOCK as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.size.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base_size.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.id);
        bytes[48..64].copy_from_slice(&self.parent);
        bytes[64..68].copy_from_slice(&u32::from(self.frozen).to_le_bytes());
        let sum = crc32(&bytes[..68]);
        bytes[68..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header from bytes, or what is wrong with it.
    pub fn from_bytes(bytes: &[u8; HEADER]) -> Result<Header, String> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if &bytes[..8] != MAGIC {
            return Err("it does not begin as one".into());
        }
        let old = u32_at(8) == 1;
        let sum_at = if old { HEADER_1 - 4 } else { HEADER - 4 };
        if u32_at(sum_at) != crc32(&bytes[..sum_at]) {
            return Err("the checksum of its header is wrong".into());
        }
        if !old && u32_at(8) != VERSION {
            return Err(format!("version {} is not known here; use the newer amiable that made it", u32_at(8)));
        }
        if u64::from(u32_at(12)) != VOLUME_BLOCK {
            return Err(format!("block size {} is not supported", u32_at(12)));
        }
        let id_at = |at: usize| {
            let mut id = LayerId::default();
            if !old {
                id.copy_from_slice(&bytes[at..at + 16]);
            }
            id
        };
        let header = Header {
            size: u64_at(16),
            base_size: u64_at(24),
            id: id_at(32),
            parent: id_at(48),
            frozen: !old && u32_at(64) != 0,
        };
        if header.size == 0
            || header.size > MAX_SIZE
            || !header.size.is_multiple_of(BLOCK_SIZE)
            || header.base_size > header.size
        {
            return Err(format!("the sizes {} over {} are impossible", header.size, header.base_size));
        }
        Ok(header)
    }

    fn map_len(self) -> u64 {
        map_len(self.size)
    }
}

/// The length in bytes of the map of a volume of `size` bytes.
pub fn map_len(size: u64) -> u64 {
    let pages = size.div_ceil(VOLUME_BLOCK).div_ceil(PAGE_BYTES as u64 * 8);
    PAGES_AT + pages * PAGE_BYTES as u64
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The open map file.
#[derive(Debug)]
pub struct MapFile {
    file: BlockFile,
    /// Pages on their way to disk.
    buf: Vec<u8>,
    taken: Vec<usize>,
    /// So many of the next changes of the header fail.
    #[cfg(test)]
    pub(super) failing_headers: u32,
}

impl MapFile {
    fn new(file: BlockFile) -> Self {
        MapFile {
            file,
            buf: Vec::new(),
            taken: Vec::new(),
            #[cfg(test)]
            failing_headers: 0,
        }
    }

    /// Make an empty map.
    pub fn create(path: &Path, header: Header) -> Result<Self, StorageError> {
        let is_device = path.exists();
        let file = BlockFile::create(path, header.map_len())?;
        let made = (|| {
            if is_device {
                // It may hold the map of a volume before.
                file.zero(0, header.map_len(), true)?;
            }
            file.write_plain(&header.to_bytes(), 0)
        })();
        if let Err(source) = made {
            if !is_device {
                let _ = std::fs::remove_file(path);
            }
            return Err(StorageError::Io { action: "write", path: path.into(), source });
        }
        Ok(MapFile::new(file))
    }

    /// Open a map and load it.
    pub fn open(path: &Path, mode: OpenMode) -> Result<(Self, Header, Bitmap), StorageError> {
        let file = BlockFile::open(path, mode)?;
        let header = read_header(&file, path)?;
        file.require(path, header.map_len())?;
        let bitmap = Bitmap::new(header.size.div_ceil(VOLUME_BLOCK));
        load(&file, &bitmap).map_err(StorageError::io("read", path))?;
        Ok((MapFile::new(file), header, bitmap))
    }

    /// Write the pages of `bitmap` that changed. Before each batch reaches the file, `data_is_durable` runs: the bits
    /// must never be ahead of the blocks they stand for. Answers whether anything was written.
    pub fn write_back(
        &mut self,
        bitmap: &Bitmap,
        mut data_is_durable: impl FnMut() -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut wrote = false;
        let mut next = Some(0);
        while let Some(first) = next {
            self.buf.resize(BATCH.min(bitmap.pages()) * PAGE_BYTES, 0);
            next = bitmap.take_dirty(first, &mut self.buf, &mut self.taken);
            let result = data_is_durable().and_then(|()| self.write_taken());
            if let Err(error) = result {
                bitmap.give_back(&self.taken);
                return Err(error);
            }
            wrote |= !self.taken.is_empty();
        }
        Ok(wrote)
    }

    fn write_taken(&self) -> io::Result<()> {
        for (bytes, index) in self.buf.chunks_exact(PAGE_BYTES).zip(&self.taken) {
            self.file.write_plain(bytes, PAGES_AT + (index * PAGE_BYTES) as u64)?;
        }
        Ok(())
    }

    /// Write another header. It is durable, and so is all that was written before.
    pub fn replace_header(&mut self, header: Header) -> io::Result<()> {
        #[cfg(test)]
        if self.failing_headers > 0 {
            self.failing_headers -= 1;
            return Err(io::Error::other("a test has it fail"));
        }
        self.file.set_len_at_least(header.map_len())?;
        self.file.write_plain(&header.to_bytes(), 0)?;
        self.file.sync()
    }

    /// Make the file long enough for a volume of `size` bytes.
    pub fn reserve(&self, size: u64) -> io::Result<()> {
        self.file.set_len_at_least(map_len(size))
    }

    /// Let others read the file from now on.
    pub fn share(&self) -> io::Result<()> {
        self.file.share()
    }

    /// Make what was written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Read what is not hole of the bitmap: a chain opens many maps that hold little.
fn load(file: &BlockFile, bitmap: &Bitmap) -> io::Result<()> {
    let mut page = [0; PAGE_BYTES];
    let end = PAGES_AT + (bitmap.pages() * PAGE_BYTES) as u64;
    let mut at = PAGES_AT;
    while let Some(data) = file.next_data(at, end)? {
        let first = (data.start.max(at) - PAGES_AT) / PAGE_BYTES as u64;
        let last = (data.end - PAGES_AT).div_ceil(PAGE_BYTES as u64);
        for index in first..last {
            file.read_plain(&mut page, PAGES_AT + index * PAGE_BYTES as u64)?;
            bitmap.load(index as usize, &page);
        }
        at = PAGES_AT + last * PAGE_BYTES as u64;
    }
    Ok(())
}

/// What a map's header says, without a lock: another process may be changing it.
pub fn peek(path: &Path) -> Result<Header, StorageError> {
    read_header(&BlockFile::open(path, OpenMode::Look)?, path)
}

fn read_header(file: &BlockFile, path: &Path) -> Result<Header, StorageError> {
    let bad = |reason: String| StorageError::BadMap { path: path.into(), reason };
    let mut bytes = [0; HEADER];
    file.read_plain(&mut bytes, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => bad("it is too short".into()),
        _ => StorageError::Io { action: "read", path: path.into(), source: error },
    })?;
    Header::from_bytes(&bytes).map_err(bad)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A header of version 1.
    pub fn header_1(size: u64, base_size: u64) -> [u8; HEADER] {
        let (id, parent) = (LayerId::default(), LayerId::default());
        let mut bytes = Header { size, base_size, id, parent, frozen: false }.to_bytes();
        bytes[8] = 1;
        let sum = crc32(&bytes[..32]);
        bytes[32..36].copy_from_slice(&sum.to_le_bytes());
        // What follows was never written by it.
        bytes[36..].fill(0);
        bytes
    }
}

#[cfg(test)]
#[path = "map_file_tests.rs"]
mod tests;
