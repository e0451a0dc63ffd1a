//! What the targets share: an input read as a script, and the machine around a device.
#![allow(dead_code)]

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use amiable::vmm::backend::{BlockBackend, Wait};
use amiable::vmm::interrupt::{MsiLine, MsiMessage, MsiRouter};
use amiable::vmm::memory::GuestMemory;
use vm_memory::{Bytes, GuestAddress, VolatileSlice};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The most steps of a script: the guest may go on for ever, an input may not.
pub const MOST_STEPS: usize = 256;

/// The rest of an input. Behind its end, all is zero.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Data of an access: 1, 2, 4 or 8 bytes.
    pub fn data(&mut self) -> &'a [u8] {
        let size = 1 << (self.u8() & 3);
        let data = self.bytes(size);
        if data.len() == size { data } else { &[0; 8][..size] }
    }
}

/// Guest memory in two regions with a hole between them: 1 MiB from 0, 64 KiB from 2 MiB.
pub fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20), (GuestAddress(2 << 20), 64 << 10)]).unwrap()
}

/// Write what lies in guest memory.
pub fn poke(memory: &GuestMemory, address: u64, bytes: &[u8]) {
    let _ = memory.write(bytes, GuestAddress(address));
}

/// Lines that nobody listens to.
#[derive(Default)]
pub struct Router(AtomicU32);

impl MsiRouter for Router {
    fn allocate(&self) -> io::Result<MsiLine> {
        Ok(MsiLine { gsi: self.0.fetch_add(1, Ordering::Relaxed), fd: Arc::new(EventFd::new(EFD_NONBLOCK)?) })
    }

    fn route(&self, _: &MsiLine, _: Option<MsiMessage>) -> io::Result<()> {
        Ok(())
    }
}

/// A disk in memory that panics where a device breaks the contract of [`BlockBackend`].
pub struct Disk(Mutex<Vec<u8>>);

pub const DISK_SIZE: usize = 256 << 10;

impl Disk {
    pub fn new() -> Arc<Self> {
        Arc::new(Disk(Mutex::new(vec![0x5a; DISK_SIZE])))
    }

    fn with(&self, offset: u64, length: u64, act: impl FnOnce(&mut [u8])) -> io::Result<()> {
        assert!(offset.is_multiple_of(512) && length.is_multiple_of(512), "{length} bytes at {offset}");
        let end = offset.checked_add(length).unwrap();
        assert!(end <= DISK_SIZE as u64, "{length} bytes at {offset}");
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[offset as usize..end as usize]);
        Ok(())
    }
}

fn total(slices: &[VolatileSlice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

impl BlockBackend for Disk {
    fn size(&self) -> u64 {
        DISK_SIZE as u64
    }

    fn read(&self, to: &[VolatileSlice<'_>], offset: u64, _: Wait) -> io::Result<()> {
        self.with(offset, total(to), |mut data| {
            for slice in to {
                let (part, rest) = data.split_at_mut(slice.len());
                slice.copy_from(part);
                data = rest;
            }
        })
    }

    fn write(&self, from: &[VolatileSlice<'_>], offset: u64, _: Wait) -> io::Result<()> {
        self.with(offset, total(from), |mut data| {
            for slice in from {
                let (part, rest) = data.split_at_mut(slice.len());
                slice.copy_to(part);
                data = rest;
            }
        })
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        self.with(offset, length, |data| data.fill(0))
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.with(offset, length, |data| data.fill(0))
    }
}
