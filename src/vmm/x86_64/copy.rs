//! Copying a kernel's file into guest memory: its holes left out, and the rest shared between two threads.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::elf::Segment;
use crate::vmm::backend::Wait;
use crate::vmm::memory::GuestMemory;
use crate::vmm::volatile_io;

/// Pieces end at multiples of this many bytes of guest memory, so that no two threads meet in one huge page, which the host
/// clears at first touch.
const PIECE: u64 = 4 << 20;
/// With less to copy, a second thread costs more than it brings.
const WORTH_A_THREAD: u64 = 4 << 20;

/// A run of bytes to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    address: u64,
    offset: u64,
    size: u64,
}

/// Copy the data of `segments`, whose bounds were checked. What the file has as holes is zero in guest memory already: of a
/// Debian kernel's 53 MB those are 22.
///
/// Mapping the file instead would cost nothing here and much more later: each 4 KiB page that the guest touches is then a
/// fault of its own in KVM (13,000 of them before the first line of user space), where huge pages take a few dozen.
pub fn copy_segments(memory: &GuestMemory, file: &File, segments: &[Segment]) -> io::Result<()> {
    let mut pieces = Vec::new();
    for Segment { offset, address, file_size, .. } in segments.iter().copied() {
        let end = offset.saturating_add(file_size);
        let mut at = offset;
        while let Some((from, to)) = next_data(file, at, end) {
            split(address + (from - offset), from, to - from, &mut pieces);
            at = to;
        }
    }
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            copy(memory, file, *piece)?;
        }
        Ok(())
    };
    let total: u64 = pieces.iter().map(|p| p.size).sum();
    if total < WORTH_A_THREAD || processors() < 2 {
        return work();
    }
    thread::scope(|scope| {
        let helper = thread::Builder::new().name("loader".into()).spawn_scoped(scope, work);
        let mine = work();
        // Without a helper all was done here.
        let theirs =
            helper.map_or(Ok(()), |h| h.join().unwrap_or_else(|_| Err(io::Error::other("the loader panicked"))));
        mine.and(theirs)
    })
}

/// Processors that this process may use; 1 if that can't be known.
fn processors() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count())
}

/// Cut a run at multiples of [`PIECE`].
fn split(mut address: u64, mut offset: u64, mut left: u64, pieces: &mut Vec<Piece>) {
    while left > 0 {
        let size = left.min(PIECE - address % PIECE);
        pieces.push(Piece { address, offset, size });
        (address, offset, left) = (address + size, offset + size, left - size);
    }
}

/// The next data of `file` within `[from, end)`. A file that can't tell its holes (a block device) is all data.
fn next_data(file: &File, from: u64, end: u64) -> Option<(u64, u64)> {
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return None,
        Err(_) => from,
    };
    if start >= end {
        return None;
    }
    let stop = seek(file, SeekFrom::Hole(start)).unwrap_or(end).clamp(start, end);
    Some((start, if stop == start { end } else { stop }))
}

fn copy(memory: &GuestMemory, file: &File, piece: Piece) -> io::Result<()> {
    let to = memory.get_slice(GuestAddress(piece.address), piece.size as usize).map_err(io::Error::other)?;
    volatile_io::read_exact_at(file.as_fd(), &[to], piece.offset, Wait::Allowed)
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
