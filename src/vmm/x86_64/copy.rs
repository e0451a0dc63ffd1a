//! Copying a kernel's file into guest memory: its holes left out, the rest shared between threads, and begun before the rest of
//! the machine is there.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::elf::Segment;
use crate::vmm::backend::Wait;
use crate::vmm::memory::{GuestMemory, THREAD_STACK};
use crate::vmm::volatile_io;

/// Pieces end at multiples of this many bytes of guest memory, so that no two threads meet in one huge page, which the host
/// clears at first touch. They are no larger, for all wait for the last one.
const PIECE: u64 = 2 << 20;
/// With less to copy, a thread costs more than it brings.
const WORTH_A_THREAD: u64 = 4 << 20;
/// The most threads that copy beside the one that waits for them: more do not make memory faster.
const MOST_THREADS: usize = 2;

/// A run of bytes to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    address: u64,
    offset: u64,
    size: u64,
}

/// A copy that is under way.
#[derive(Debug)]
pub struct Copying {
    work: Arc<Work>,
    helpers: Vec<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct Work {
    memory: GuestMemory,
    file: Arc<File>,
    pieces: Vec<Piece>,
    /// The first piece that nobody has taken yet.
    next: AtomicUsize,
}

impl Work {
    /// Copy a piece, unless all are taken.
    fn one(&self) -> io::Result<bool> {
        let Some(piece) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return Ok(false) };
        copy(&self.memory, &self.file, *piece).map(|()| true)
    }

    /// Copy pieces until none is left.
    fn run(&self) -> io::Result<()> {
        while self.one()? {}
        Ok(())
    }
}

/// Begin to copy the data of `segments`, whose bounds were checked. What the file has as holes is zero in guest memory already: of
/// a Debian kernel's 53 MB those are 22.
///
/// Mapping the file instead would cost nothing here and much more later: each 4 KiB page that the guest touches is then a
/// fault of its own in KVM (13,000 of them before the first line of user space), where huge pages take a few dozen.
pub fn begin(memory: &GuestMemory, file: &Arc<File>, segments: &[Segment]) -> Copying {
    let mut pieces = Vec::new();
    for Segment { offset, address, file_size, .. } in segments.iter().copied() {
        let end = offset.saturating_add(file_size);
        let mut at = offset;
        while let Some((from, to)) = next_data(file, at, end) {
            split(address + (from - offset), from, to - from, &mut pieces);
            at = to;
        }
    }
    let total: u64 = pieces.iter().map(|p| p.size).sum();
    let work = Work { memory: memory.clone(), file: Arc::clone(file), pieces, next: AtomicUsize::new(0) };
    let work = Arc::new(work);
    // Half of the processors: the other half builds the machine meanwhile.
    let threads = if total < WORTH_A_THREAD { 0 } else { (processors() / 2).clamp(1, MOST_THREADS) };
    let helper = |_| {
        let work = Arc::clone(&work);
        let thread = Builder::new().name("loader".into()).stack_size(THREAD_STACK);
        // One that does not start is not missed: whoever finishes does what is left.
        thread.spawn(move || work.run()).ok()
    };
    let helpers = (0..threads).filter_map(helper).collect();
    Copying { work, helpers }
}

impl Copying {
    /// Help with the copy for a moment. `false`: there is nothing to help with any more.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn help(&self) -> io::Result<bool> {
        self.work.one()
    }

    /// Copy what is left, and wait for the others.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn finish(mut self) -> io::Result<()> {
        let mine = self.work.run();
        let theirs = std::mem::take(&mut self.helpers).into_iter().map(|helper| {
            helper.join().unwrap_or_else(|_| Err(io::Error::other("a thread that loads the kernel panicked")))
        });
        // All of them are waited for, whatever the first one says.
        theirs.fold(mine, |result, theirs| result.and(theirs))
    }
}

impl Drop for Copying {
    /// Nobody needs it any more: threads that copy end after the piece that they are at.
    fn drop(&mut self) {
        self.work.next.store(self.work.pieces.len(), Ordering::Relaxed);
    }
}

/// Processors that this process may use; 1 if that can't be known.
fn processors() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize)
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
