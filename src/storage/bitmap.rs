//! Which blocks a layer holds: one bit a block, read without locks, set under one.
//!
//! Bits only ever go from 0 to 1. They live in pages of 4 KiB, allocated when the first bit is set, so that a large
//! empty volume costs next to nothing. A page is also the unit in which the map file is written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
const PAGE_WORDS: usize = PAGE_BYTES / 8;
const PAGE_BITS: u64 = PAGE_BYTES as u64 * 8;

type Page = Box<[AtomicU64]>;

/// A growing set of block numbers below [`len`](Self::len).
#[derive(Debug)]
pub struct Bitmap {
    len: u64,
    pages: Box<[OnceLock<Page>]>,
    /// One bit a page: it has bits that the map file does not have. Guards all setting of bits, so that no bit is
    /// visible whose page is not marked.
    dirty: Mutex<Box<[u64]>>,
}

impl Bitmap {
    /// An empty set of blocks below `len`.
    pub fn new(len: u64) -> Self {
        let pages = len.div_ceil(PAGE_BITS) as usize;
        Bitmap {
            len,
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            dirty: Mutex::new(vec![0; pages.div_ceil(64)].into()),
        }
    }

    /// Make room for blocks below `len`, which is no less than before.
    pub fn grow(&mut self, len: u64) {
        let pages = len.div_ceil(PAGE_BITS) as usize;
        self.len = len;
        let mut slots = std::mem::take(&mut self.pages).into_vec();
        slots.resize_with(pages, OnceLock::new);
        self.pages = slots.into();
        let dirty = self.dirty.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut marks = std::mem::take(dirty).into_vec();
        marks.resize(pages.div_ceil(64), 0);
        *dirty = marks.into();
    }

    /// The number of pages.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Take a page's bytes from the map file, before the bitmap is shared. Bits beyond the end are ignored.
    pub fn load(&self, index: usize, bytes: &[u8]) {
        let Some(slot) = self.pages.get(index) else { return };
        if bytes.iter().all(|byte| *byte == 0) {
            return;
        }
        let page = slot.get_or_init(empty_page);
        let mut left = self.len.saturating_sub(index as u64 * PAGE_BITS);
        for (word, bytes) in page.iter().zip(bytes.chunks_exact(8)) {
            let mut raw = [0; 8];
            raw.copy_from_slice(bytes);
            let below_end = if left < 64 { (1 << left) - 1 } else { u64::MAX };
            word.store(u64::from_le_bytes(raw) & below_end, Ordering::Release);
            left = left.saturating_sub(64);
        }
    }

    /// Whether `from` is in the set, and where the run of blocks that are like it ends, at `limit` at the latest.
    /// `from < limit <= len`.
    pub fn run(&self, from: u64, limit: u64) -> (bool, u64) {
        let held = self.word(from) >> (from % 64) & 1 == 1;
        let mut at = from;
        while at < limit {
            let page_end = (at - at % PAGE_BITS).saturating_add(PAGE_BITS);
            if !held && self.page(at).is_none() {
                at = page_end;
                continue;
            }
            let word = if held { !self.word(at) } else { self.word(at) };
            let rest = word >> (at % 64);
            if rest != 0 {
                at += u64::from(rest.trailing_zeros());
                break;
            }
            at = (at - at % 64) + 64;
        }
        (held, at.min(limit))
    }

    /// Whether all of `from..to` are in the set.
    pub fn holds_all(&self, from: u64, to: u64) -> bool {
        from >= to || self.run(from, to) == (true, to)
    }

    /// Put `from..to` into the set.
    pub fn set(&self, from: u64, to: u64) {
        let to = to.min(self.len);
        let mut dirty = self.lock();
        let mut at = from;
        while at < to {
            let word_end = (at - at % 64) + 64;
            let n = word_end.min(to) - at;
            let mask = (u64::MAX >> (64 - n)) << (at % 64);
            let index = (at / PAGE_BITS) as usize;
            if let (Some(slot), Some(marks)) = (self.pages.get(index), dirty.get_mut(index / 64)) {
                let page = slot.get_or_init(empty_page);
                if let Some(word) = page.get((at % PAGE_BITS / 64) as usize)
                    && word.fetch_or(mask, Ordering::Release) & mask != mask
                {
                    *marks |= 1 << (index % 64);
                }
            }
            at += n;
        }
    }

    /// Take up to as many dirty pages as fit into `buf`, from page `first` on: their bytes go to `buf`, their numbers
    /// to `taken`; they are clean then. Answers the page to go on with, or `None` after the last one.
    pub fn take_dirty(&self, first: usize, buf: &mut [u8], taken: &mut Vec<usize>) -> Option<usize> {
        taken.clear();
        let mut dirty = self.lock();
        let mut room = buf.chunks_exact_mut(PAGE_BYTES);
        let mut index = first;
        while index < self.pages.len() {
            let Some(marks) = dirty.get_mut(index / 64) else { break };
            if *marks >> (index % 64) == 0 {
                index = (index / 64 + 1) * 64;
                continue;
            }
            if *marks >> (index % 64) & 1 == 1 {
                let Some(bytes) = room.next() else { return Some(index) };
                *marks &= !(1 << (index % 64));
                taken.push(index);
                if let Some(page) = self.pages.get(index).and_then(OnceLock::get) {
                    for (word, bytes) in page.iter().zip(bytes.chunks_exact_mut(8)) {
                        bytes.copy_from_slice(&word.load(Ordering::Acquire).to_le_bytes());
                    }
                }
            }
            index += 1;
        }
        None
    }

    /// Mark pages as dirty again whose writing failed.
    pub fn give_back(&self, pages: &[usize]) {
        let mut dirty = self.lock();
        for index in pages {
            if let Some(marks) = dirty.get_mut(index / 64) {
                *marks |= 1 << (index % 64);
            }
        }
    }

    /// The number of blocks in the set.
    pub fn count(&self) -> u64 {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        pages.flat_map(|page| page.iter()).map(|word| u64::from(word.load(Ordering::Acquire).count_ones())).sum()
    }

    fn page(&self, block: u64) -> Option<&Page> {
        self.pages.get((block / PAGE_BITS) as usize)?.get()
    }

    fn word(&self, block: u64) -> u64 {
        let word = self.page(block).and_then(|page| page.get((block % PAGE_BITS / 64) as usize));
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, Box<[u64]>> {
        // Nothing that runs under the lock can leave it half done.
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn empty_page() -> Page {
    (0..PAGE_WORDS).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(test)]
#[path = "bitmap_tests.rs"]
mod tests;
