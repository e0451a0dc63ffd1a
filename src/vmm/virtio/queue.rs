//! A split virtqueue from the device's side (VIRTIO 1.2 §2.7), on top of `virtio-queue`.
//!
//! The driver is hostile: a chain has at most as many descriptors as the queue has entries, also where it is indirect;
//! readable ones come before writable ones; a chain that breaks off is an error, and an error means that the device
//! asks for a reset. Used elements are published in batches, so that a frame in several buffers appears at once.
#![forbid(unsafe_code)]

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryError};

use super::interrupt::Interrupt;
use crate::vmm::memory::GuestMemory;

const RING_HEADER: u64 = 4;
const RING_INDEX: u64 = 2;
const AVAIL_ENTRY: u64 = 2;
const USED_ENTRY: u64 = 8;
const AVAIL_NO_INTERRUPT: u16 = 1;

/// The driver broke the queue.
#[derive(Debug, Error)]
pub enum QueueError {
    /// The rings can't be read or written, or their indices make no sense.
    #[error("bad ring: {0}")]
    Ring(#[source] virtio_queue::Error),
    /// A descriptor chain can't be followed.
    #[error("bad descriptor chain at {head}: {why}")]
    Chain {
        /// Its first descriptor.
        head: u16,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Chains come as fast as they are served, for longer than a driver has reason to.
    #[error("the driver floods the queue")]
    Flooded,
    /// A ring or buffer lies outside guest memory.
    #[error("not guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
}

impl From<virtio_queue::Error> for QueueError {
    fn from(error: virtio_queue::Error) -> Self {
        QueueError::Ring(error)
    }
}

/// A piece of guest memory. Its address is the driver's word: it may lie anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: GuestAddress,
    /// Bytes.
    pub length: u32,
}

/// The buffers of one or more chains. Kept by the device and reused.
#[derive(Debug, Default)]
pub struct Buffers {
    /// To be read by the device.
    pub readable: Vec<Segment>,
    /// To be written by the device.
    pub writable: Vec<Segment>,
}

impl Buffers {
    /// Forget them, keeping the room.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }
}

/// A chain taken from the available ring. It must go to the used ring, or back.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its first descriptor, by which the driver knows it.
    pub head: u16,
    /// Bytes to read.
    pub readable: u64,
    /// Bytes to write.
    pub writable: u64,
}

/// The device's end of a queue.
pub struct DeviceQueue {
    index: u16,
    queue: Queue,
    memory: GuestMemory,
    interrupt: Interrupt,
    /// The used index when the driver was last told, or found to want no interrupt.
    told: u16,
}

impl DeviceQueue {
    /// `queue` is set up and was found valid.
    pub fn new(index: u16, queue: Queue, memory: GuestMemory, interrupt: Interrupt) -> Self {
        DeviceQueue { index, told: queue.next_used(), queue, memory, interrupt }
    }

    /// Entries of the rings.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The memory that the buffers are in.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Whether the next [`pop`](Self::pop) finds a chain.
    pub fn has_available(&self) -> Result<bool, QueueError> {
        Ok(self.queue.avail_idx(&self.memory, Ordering::Acquire)?.0 != self.queue.next_avail())
    }

    /// Take the next chain and append its buffers to `buffers`.
    pub fn pop(&mut self, buffers: &mut Buffers) -> Result<Option<Chain>, QueueError> {
        let limit = self.queue.size();
        let Some(descriptors) = self.queue.iter(&self.memory)?.next() else { return Ok(None) };
        let mut chain = Chain { head: descriptors.head_index(), readable: 0, writable: 0 };
        let bad = |why| QueueError::Chain { head: chain.head, why };
        if chain.head >= limit {
            return Err(bad("no such descriptor"));
        }
        let (mut seen, mut goes_on) = (0, true);
        for descriptor in descriptors {
            if seen == limit {
                return Err(bad("longer than the queue"));
            }
            seen += 1;
            goes_on = descriptor.has_next();
            let segment = Segment { address: descriptor.addr(), length: descriptor.len() };
            let (list, total) = if descriptor.is_write_only() {
                (&mut buffers.writable, &mut chain.writable)
            } else if chain.writable > 0 {
                return Err(bad("readable after writable"));
            } else {
                (&mut buffers.readable, &mut chain.readable)
            };
            if segment.length > 0 {
                list.push(segment);
                *total += u64::from(segment.length);
            }
        }
        // The iterator ends without a word where it can't follow.
        if goes_on {
            return Err(bad("breaks off"));
        }
        Ok(Some(chain))
    }

    /// Put the last `count` chains back, to pop them again later.
    pub fn put_back(&mut self, count: u16) {
        self.queue.set_next_avail(self.queue.next_avail().wrapping_sub(count));
    }

    /// Note a chain as used, with `written` bytes in its writable buffers. The driver sees it after
    /// [`publish`](Self::publish).
    pub fn push_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        let next = self.queue.next_used();
        let at = RING_HEADER + u64::from(next % self.queue.size()) * USED_ENTRY;
        let element = u64::from(head) | u64::from(written) << 32;
        self.memory.write_obj(element.to_le(), self.used_ring(at)?)?;
        self.queue.set_next_used(next.wrapping_add(1));
        Ok(())
    }

    /// Show the driver all chains used so far.
    pub fn publish(&mut self) -> Result<(), QueueError> {
        let index = self.queue.next_used().to_le();
        Ok(self.memory.store(index, self.used_ring(RING_INDEX)?, Ordering::Release)?)
    }

    /// Raise the queue's interrupt if the driver wants one for what was published since the last call.
    pub fn interrupt(&mut self) -> Result<(), QueueError> {
        let new = self.queue.next_used();
        let old = std::mem::replace(&mut self.told, new);
        if new == old {
            return Ok(());
        }
        // The used index must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        let wanted = if self.queue.event_idx_enabled() {
            let at = RING_HEADER + u64::from(self.queue.size()) * AVAIL_ENTRY;
            let event = u16::from_le(self.memory.load(self.avail_ring(at)?, Ordering::Relaxed)?);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            u16::from_le(self.memory.load(self.avail_ring(0)?, Ordering::Relaxed)?) & AVAIL_NO_INTERRUPT == 0
        };
        if wanted {
            self.interrupt.queue_used(self.index);
        }
        Ok(())
    }

    /// Ask the driver for a kick at the next chain. `true`: chains came in the meantime, look again.
    pub fn enable_kicks(&mut self) -> Result<bool, QueueError> {
        Ok(self.queue.enable_notification(&self.memory)?)
    }

    /// Tell the driver that kicks are not needed now.
    pub fn disable_kicks(&mut self) -> Result<(), QueueError> {
        Ok(self.queue.disable_notification(&self.memory)?)
    }

    fn used_ring(&self, offset: u64) -> Result<GuestAddress, QueueError> {
        ring_address(self.queue.used_ring(), offset)
    }

    fn avail_ring(&self, offset: u64) -> Result<GuestAddress, QueueError> {
        ring_address(self.queue.avail_ring(), offset)
    }
}

fn ring_address(ring: u64, offset: u64) -> Result<GuestAddress, QueueError> {
    GuestAddress(ring).checked_add(offset).ok_or(QueueError::Ring(virtio_queue::Error::AddressOverflow))
}

/// Copy from the start of `segments` until `to` is full. Answers the bytes copied: fewer where the segments end.
pub fn gather(memory: &GuestMemory, segments: &[Segment], to: &mut [u8]) -> Result<usize, QueueError> {
    let mut done = 0;
    for segment in segments {
        let rest = &mut to[done..];
        let length = rest.len().min(segment.length as usize);
        if length == 0 && rest.is_empty() {
            break;
        }
        memory.read_slice(&mut rest[..length], segment.address)?;
        done += length;
    }
    Ok(done)
}

/// Copy `parts`, one after the other, into `segments`. Answers the bytes copied: fewer where the segments end.
pub fn scatter(memory: &GuestMemory, segments: &[Segment], parts: &[&[u8]]) -> Result<usize, QueueError> {
    let mut done = 0;
    let mut segments = segments.iter();
    let mut room = Segment { address: GuestAddress(0), length: 0 };
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            if room.length == 0 {
                let Some(next) = segments.next() else { return Ok(done) };
                room = *next;
                continue;
            }
            let length = rest.len().min(room.length as usize);
            memory.write_slice(&rest[..length], room.address)?;
            room.address = GuestAddress(room.address.0.wrapping_add(length as u64));
            room.length -= length as u32;
            rest = &rest[length..];
            done += length;
        }
    }
    Ok(done)
}

/// What is left of `segments` after their first `bytes`.
pub fn advance(segments: &mut [Segment], mut bytes: usize) -> &mut [Segment] {
    let mut done = 0;
    while let Some(segment) = segments.get_mut(done) {
        if bytes < segment.length as usize {
            segment.address = GuestAddress(segment.address.0.wrapping_add(bytes as u64));
            segment.length -= bytes as u32;
            break;
        }
        bytes -= segment.length as usize;
        done += 1;
    }
    segments.get_mut(done..).unwrap_or_default()
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
