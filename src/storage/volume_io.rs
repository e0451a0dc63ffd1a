//! How a volume reads, writes and zeroes.

use std::io;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use vm_memory::VolatileSlice;

use super::volume::{VOLUME_BLOCK, Volume};
use super::{Layer, LayerId, checked_end, read_plain};
use crate::boot::Disk;
use crate::vmm::backend::{BlockBackend, Wait};
use crate::vmm::volatile_io::Window;

/// Whole blocks within a range of bytes, `first..end`. The volume's last block counts as whole when the range goes to
/// the end of the volume.
fn whole_blocks(offset: u64, end: u64, size: u64) -> (u64, u64) {
    let first = offset.div_ceil(VOLUME_BLOCK);
    let last = if end == size { end.div_ceil(VOLUME_BLOCK) } else { end / VOLUME_BLOCK };
    (first, last)
}

impl Volume {
    /// Read what the layer does not hold.
    fn read_base(&self, to: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()> {
        let in_base = self.base_size.saturating_sub(offset).min(to.len() as u64);
        let (below, beyond) = to.split_at(in_base as usize);
        if let Some(base) = &self.base
            && !below.is_empty()
        {
            base.read_layer(below, offset, wait)?;
        }
        beyond.zero();
        Ok(())
    }

    fn write_window(&self, from: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()> {
        let end = checked_end(offset, from.len() as u64, self.size)?;
        self.check_writable()?;
        if from.is_empty() {
            return Ok(());
        }
        let (first, last) = (offset / VOLUME_BLOCK, end.div_ceil(VOLUME_BLOCK));
        if self.held.holds_all(first, last) {
            self.data.write(from, offset, wait)?;
        } else if self.partial_edges(offset, end).iter().all(Option::is_none) {
            let _shared = match wait {
                Wait::Allowed => self.first_touch.read().unwrap_or_else(PoisonError::into_inner),
                Wait::Never => self.first_touch.try_read().map_err(|_| io::ErrorKind::WouldBlock)?,
            };
            self.data.write(from, offset, wait)?;
            self.held.set(first, last);
        } else {
            if wait == Wait::Never {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let _alone = self.first_touch.write().unwrap_or_else(PoisonError::into_inner);
            // Looked at again: somebody else may just have filled the block, and written it since.
            for (start, end) in self.partial_edges(offset, end).into_iter().flatten() {
                self.fill(start, end)?;
            }
            self.data.write(from, offset, wait)?;
            self.held.set(first, last);
        }
        self.data_dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// What a write of `offset..end` leaves out of the first and the last block it touches, where the layer does not hold
    /// them yet.
    fn partial_edges(&self, offset: u64, end: u64) -> [Option<(u64, u64)>; 2] {
        let block_end = end.next_multiple_of(VOLUME_BLOCK).min(self.size);
        let block_start = offset - offset % VOLUME_BLOCK;
        let missing = |byte: u64| !self.held.run(byte / VOLUME_BLOCK, byte / VOLUME_BLOCK + 1).0;
        [
            (block_start < offset && missing(offset)).then_some((block_start, offset)),
            (end < block_end && missing(end)).then_some((end, block_end)),
        ]
    }

    /// Copy a part of a block from the base.
    fn fill(&self, start: u64, end: u64) -> io::Result<()> {
        let mut buf = [0; VOLUME_BLOCK as usize];
        let Some(buf) = buf.get_mut(..(end - start) as usize) else { return Ok(()) };
        let slices = [VolatileSlice::from(&mut *buf)];
        let window = Window::whole(&slices).ok_or(io::ErrorKind::InvalidInput)?;
        self.read_base(window, start, Wait::Allowed)?;
        self.data.write(window, start, Wait::Allowed)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.mode.writable() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// Write zeros to less than a block.
    fn zero_part(&self, start: u64, end: u64) -> io::Result<()> {
        let mut zeros = [0; VOLUME_BLOCK as usize];
        let Some(zeros) = zeros.get_mut(..(end - start) as usize) else { return Ok(()) };
        let slices = [VolatileSlice::from(zeros)];
        self.write_window(Window::whole(&slices).ok_or(io::ErrorKind::InvalidInput)?, start, Wait::Allowed)
    }

    /// Zero whole blocks, `first..last`. Blocks past the base that the layer does not hold are zeros already.
    fn zero_blocks(&self, first: u64, last: u64, deallocate: bool) -> io::Result<()> {
        let base_blocks = self.base_size.div_ceil(VOLUME_BLOCK);
        let _shared = self.first_touch.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = first;
        while at < last {
            let (held, run_end) = self.held.run(at, last);
            // Within the base all is zeroed in one piece, held or not.
            let run_end = if at < base_blocks { last.min(base_blocks).max(run_end) } else { run_end };
            if held || at < base_blocks {
                let end = (run_end * VOLUME_BLOCK).min(self.size);
                self.data.zero(at * VOLUME_BLOCK, end - at * VOLUME_BLOCK, deallocate)?;
                self.held.set(at, run_end);
            }
            at = run_end;
        }
        Ok(())
    }
}

impl Layer for Volume {
    fn size(&self) -> u64 {
        self.size
    }

    fn id(&self) -> LayerId {
        Volume::id(self)
    }

    fn next_data(&self, from: u64, limit: u64) -> io::Result<Option<Range<u64>>> {
        let mut at = from;
        while at < limit {
            let (held, end) = self.held.run(at / VOLUME_BLOCK, limit.div_ceil(VOLUME_BLOCK));
            let end = (end * VOLUME_BLOCK).min(limit);
            let found = match &self.base {
                _ if held => self.data.next_data(at, end)?,
                Some(base) if at < self.base_size => base.next_data(at, end.min(self.base_size))?,
                _ => None,
            };
            if found.is_some() {
                return Ok(found);
            }
            at = end;
        }
        Ok(None)
    }

    fn read_layer(&self, mut to: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()> {
        let mut at = offset;
        let end = offset.checked_add(to.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        while at < end {
            let (held, run_end) = self.held.run(at / VOLUME_BLOCK, end.div_ceil(VOLUME_BLOCK));
            let run_end = (run_end * VOLUME_BLOCK).min(end);
            let (part, rest) = to.split_at((run_end - at) as usize);
            if held {
                self.data.read(part, at, wait)?
            } else {
                self.read_base(part, at, wait)?
            }
            to = rest;
            at = run_end;
        }
        Ok(())
    }
}

impl Disk for Volume {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read_plain(self, offset, buf)
    }
}

impl BlockBackend for Volume {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        let to = Window::whole(to).ok_or(io::ErrorKind::InvalidInput)?;
        checked_end(offset, to.len() as u64, self.size)?;
        self.read_layer(to, offset, wait)
    }

    fn write(&self, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        self.write_window(Window::whole(from).ok_or(io::ErrorKind::InvalidInput)?, offset, wait)
    }

    fn flush(&self) -> io::Result<()> {
        Volume::flush(self)
    }

    fn write_zeroes(&self, offset: u64, length: u64, deallocate: bool) -> io::Result<()> {
        let end = checked_end(offset, length, self.size)?;
        self.check_writable()?;
        let (first, last) = whole_blocks(offset, end, self.size);
        if first > last {
            // All within one block.
            return self.zero_part(offset, end);
        }
        let (inner_start, inner_end) = (first * VOLUME_BLOCK, (last * VOLUME_BLOCK).min(self.size));
        if offset < inner_start {
            self.zero_part(offset, inner_start.min(end))?;
        }
        if first < last {
            self.zero_blocks(first, last, deallocate)?;
            self.data_dirty.store(true, Ordering::Release);
        }
        if inner_end < end {
            self.zero_part(inner_end, end)?;
        }
        Ok(())
    }

    /// Blocks of the base stay as they are; the layer's own become zeros and give their space back.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = checked_end(offset, length, self.size)?;
        self.check_writable()?;
        let (first, last) = whole_blocks(offset, end, self.size);
        if first >= last || self.held.run(first, last) == (false, last) {
            return Ok(());
        }
        let inner_end = (last * VOLUME_BLOCK).min(self.size);
        self.data.punch(first * VOLUME_BLOCK, inner_end - first * VOLUME_BLOCK)?;
        self.data_dirty.store(true, Ordering::Release);
        Ok(())
    }
}
