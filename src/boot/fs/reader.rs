//! The bytes of one partition for the file-system libraries: a small block cache, and a budget that ends every loop.
//!
//! The libraries walk structures that a hostile image may bend into circles. Each walk reads, so a limit on reads is a
//! limit on everything they do.

use std::io;

use crate::boot::SharedDisk;

/// A cache line: one file-system block as a rule.
const LINE: usize = 4096;
/// Lines in the direct-mapped cache: 1 MiB.
const LINES: u64 = 256;

/// How much one opened file system may read before every further read fails.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Read calls, also those that the cache answers.
    pub calls: u64,
    /// Bytes from the disk.
    pub bytes: u64,
}

impl Default for Budget {
    /// Ample for a kernel, initrds and log files of a real image (fatfs alone makes a call per cluster and per directory
    /// slot), and a few seconds at most.
    fn default() -> Self {
        Self { calls: 8 << 20, bytes: 2 << 30 }
    }
}

/// Reads one partition. Offsets are relative to its start.
pub struct PartitionReader {
    disk: SharedDisk,
    start: u64,
    length: u64,
    budget: Budget,
    lines: Vec<Option<(u64, Box<[u8]>)>>,
}

impl PartitionReader {
    /// The bytes from `start` to `start + length` of `disk`, cut at the disk's end.
    pub fn new(disk: SharedDisk, start: u64, length: u64) -> Self {
        let length = length.min(disk.size().saturating_sub(start));
        Self { disk, start, length, budget: Budget::default(), lines: (0..LINES).map(|_| None).collect() }
    }

    /// A second reader of the same bytes.
    pub fn fresh(&self) -> Self {
        Self { budget: self.budget, ..Self::new(self.disk.clone(), self.start, self.length) }
    }

    /// Change how much may still be read.
    pub fn limit(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Fill `buf` from `offset`.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.length);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.budget.calls = self.budget.calls.checked_sub(1).ok_or_else(exhausted)?;
        // Long reads are file contents: they would only push metadata out of the cache.
        if buf.len() >= 4 * LINE {
            return self.fetch(offset, buf);
        }
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let within = (at % LINE as u64) as usize;
            let line = self.line(at / LINE as u64)?;
            let from = line.get(within..).filter(|from| !from.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
            let n = from.len().min(rest.len());
            rest.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            done += n;
        }
        Ok(())
    }

    fn line(&mut self, number: u64) -> io::Result<&[u8]> {
        let slot = (number % LINES) as usize;
        let cached = matches!(self.lines.get(slot), Some(Some((n, _))) if *n == number);
        if !cached {
            let at = number * LINE as u64;
            let mut bytes = vec![0; LINE.min(usize::try_from(self.length - at).unwrap_or(LINE))].into_boxed_slice();
            self.fetch(at, &mut bytes)?;
            if let Some(line) = self.lines.get_mut(slot) {
                *line = Some((number, bytes));
            }
        }
        match self.lines.get(slot) {
            Some(Some((_, bytes))) => Ok(bytes),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn fetch(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.budget.bytes = self.budget.bytes.checked_sub(buf.len() as u64).ok_or_else(exhausted)?;
        let at = self.start.checked_add(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.disk.read_at(at, buf)
    }
}

fn exhausted() -> io::Error {
    io::Error::other("the file system made this reader read more than a sound one would")
}

impl ext4_view::Ext4Read for PartitionReader {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(PartitionReader::read(self, start_byte, dst)?)
    }
}

impl lamxfs::BlockRead for PartitionReader {
    type Error = io::Error;
    fn read_at(&mut self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), io::Error> {
        self.read(offset_bytes, buf)
    }
}

impl lambutter::BlockRead for PartitionReader {
    type Error = io::Error;
    fn read_at(&mut self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), io::Error> {
        self.read(offset_bytes, buf)
    }
}
