//! Physical Region Pages (§4.3): where a command's data lies in guest memory.
//!
//! Neighbouring pages become one slice, so that a transfer into contiguous guest memory is one `iovec`. The walk is
//! bounded by the transfer's length, which the caller bounds by MDTS: only the first list may start inside a page, so
//! each further list page moves at least 511 pages of data on.
#![forbid(unsafe_code)]

use std::cell::Cell;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

use super::spec::{Command, PAGE_SIZE, Status};
use crate::vmm::memory::GuestMemory;

/// Entries fetched from a list at a time.
const ENTRIES_AT_ONCE: usize = 64;
const ENTRY_SIZE: u64 = 8;

thread_local! {
    /// The last command's slices, emptied: no command allocates.
    static SCRATCH: Cell<Vec<VolatileSlice<'static>>> = const { Cell::new(Vec::new()) };
}

/// Find the `length` bytes that `command` names and hand them to `f`.
pub fn with_slices<R>(
    memory: &GuestMemory,
    command: &Command,
    length: u64,
    f: impl FnOnce(&[VolatileSlice<'_>]) -> Result<R, Status>,
) -> Result<R, Status> {
    let mut walk = Walk { memory, slices: SCRATCH.take(), start: 0, length: 0 };
    let result = walk.command(command.prp1(), command.prp2(), length).and_then(|()| f(&walk.slices));
    SCRATCH.set(recycle(walk.slices));
    result
}

/// Copy `data` to where `command` wants it.
pub fn write(memory: &GuestMemory, command: &Command, data: &[u8]) -> Result<(), Status> {
    with_slices(memory, command, data.len() as u64, |slices| {
        let mut rest = data;
        for slice in slices {
            let (part, tail) = rest.split_at(slice.len().min(rest.len()));
            slice.copy_from(part);
            rest = tail;
        }
        Ok(())
    })
}

/// Fill `data` from what `command` names.
pub fn read(memory: &GuestMemory, command: &Command, data: &mut [u8]) -> Result<(), Status> {
    with_slices(memory, command, data.len() as u64, |slices| {
        let mut rest = &mut *data;
        for slice in slices {
            let (part, tail) = rest.split_at_mut(slice.len().min(rest.len()));
            slice.copy_to(part);
            rest = tail;
        }
        Ok(())
    })
}

/// An empty vector of slices of any lifetime from one with elements: the allocation stays.
fn recycle<'b>(mut slices: Vec<VolatileSlice<'_>>) -> Vec<VolatileSlice<'b>> {
    slices.clear();
    slices.into_iter().map_while(|_| None).collect()
}

struct Walk<'m> {
    memory: &'m GuestMemory,
    slices: Vec<VolatileSlice<'m>>,
    /// The run of contiguous memory that is being collected.
    start: u64,
    length: u64,
}

impl Walk<'_> {
    fn command(&mut self, prp1: u64, prp2: u64, length: u64) -> Result<(), Status> {
        if prp1 & 3 != 0 {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        let first = length.min(PAGE_SIZE - prp1 % PAGE_SIZE);
        self.add(prp1, first)?;
        let rest = length - first;
        if rest > PAGE_SIZE {
            self.lists(prp2, rest)?;
        } else if rest > 0 {
            self.page(prp2, rest)?;
        }
        self.end_run()
    }

    fn lists(&mut self, mut list: u64, mut rest: u64) -> Result<(), Status> {
        if !list.is_multiple_of(ENTRY_SIZE) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        loop {
            let here = (PAGE_SIZE - list % PAGE_SIZE) / ENTRY_SIZE;
            let needed = rest.div_ceil(PAGE_SIZE);
            // Where more is needed than fits, the last entry points to the next list.
            let data = if needed <= here { needed } else { here - 1 };
            self.list(list, data, &mut rest)?;
            if rest == 0 {
                return Ok(());
            }
            let mut next = [0; ENTRY_SIZE as usize];
            self.fetch(list + data * ENTRY_SIZE, &mut next)?;
            list = u64::from_le_bytes(next);
            if !list.is_multiple_of(PAGE_SIZE) {
                return Err(Status::PRP_OFFSET_INVALID);
            }
        }
    }

    /// Add the pages that `entries` list entries at `list` point to.
    fn list(&mut self, mut list: u64, mut entries: u64, rest: &mut u64) -> Result<(), Status> {
        let mut bytes = [0; ENTRIES_AT_ONCE * ENTRY_SIZE as usize];
        while entries > 0 {
            let count = entries.min(ENTRIES_AT_ONCE as u64);
            let chunk = &mut bytes[..(count * ENTRY_SIZE) as usize];
            self.fetch(list, chunk)?;
            for entry in chunk.as_chunks::<8>().0 {
                let length = PAGE_SIZE.min(*rest);
                self.page(u64::from_le_bytes(*entry), length)?;
                *rest -= length;
            }
            entries -= count;
            list += count * ENTRY_SIZE;
        }
        Ok(())
    }

    fn fetch(&self, address: u64, to: &mut [u8]) -> Result<(), Status> {
        self.memory.read_slice(to, GuestAddress(address)).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    fn page(&mut self, address: u64, length: u64) -> Result<(), Status> {
        if !address.is_multiple_of(PAGE_SIZE) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        self.add(address, length)
    }

    fn add(&mut self, address: u64, length: u64) -> Result<(), Status> {
        if self.start.checked_add(self.length) != Some(address) {
            self.end_run()?;
            (self.start, self.length) = (address, 0);
        }
        self.length += length;
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), Status> {
        for slice in self.memory.get_slices(GuestAddress(self.start), self.length as usize) {
            self.slices.push(slice.map_err(|_| Status::DATA_TRANSFER_ERROR)?);
        }
        self.length = 0;
        Ok(())
    }
}

#[cfg(test)]
#[path = "prp_tests.rs"]
mod tests;
