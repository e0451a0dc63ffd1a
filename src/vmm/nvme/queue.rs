//! Submission and completion queues (§4.1), and the shadow doorbells of Doorbell Buffer Config (§5.7, §7.13).
//!
//! With shadow doorbells the guest writes its index to memory first and touches the register only if that passes the
//! event index that we left. Two parties then look at each other's memory, so each needs a full barrier between its
//! own store and its load: we store the event index, fence, and look at the index once more.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::spec::{Answer, COMMAND_SIZE, COMPLETION_SIZE, Command, PAGE_SIZE};
use crate::vmm::memory::GuestMemory;

/// Guest memory that a queue or buffer was said to lie in is not there.
#[derive(Debug, PartialEq, Eq)]
pub struct NoMemory;

/// Where the guest put its shadow doorbells and event indexes; both 0 while it has none.
#[derive(Debug, Default)]
pub struct Shadow {
    doorbells: AtomicU64,
    events: AtomicU64,
}

/// The two dwords of one doorbell.
#[derive(Clone, Copy, Debug)]
pub struct ShadowDoorbell {
    value: GuestAddress,
    event: GuestAddress,
}

impl Shadow {
    /// Take the two pages into use. Existing indexes must be written to them first.
    pub fn set(&self, doorbells: u64, events: u64) {
        self.doorbells.store(doorbells, Ordering::Release);
        self.events.store(events, Ordering::Release);
    }

    /// The dwords of the tail doorbell of submission queue `id`.
    pub fn tail(&self, id: u16) -> Option<ShadowDoorbell> {
        self.at(u64::from(id) * 2)
    }

    /// The dwords of the head doorbell of completion queue `id`.
    pub fn head(&self, id: u16) -> Option<ShadowDoorbell> {
        self.at(u64::from(id) * 2 + 1)
    }

    fn at(&self, index: u64) -> Option<ShadowDoorbell> {
        let (doorbells, events) = (self.doorbells.load(Ordering::Acquire), self.events.load(Ordering::Acquire));
        // Both are multiples of the page size, so the sums can't overflow.
        let at = |base: u64| GuestAddress(base + index * 4);
        (doorbells != 0 && events != 0).then(|| ShadowDoorbell { value: at(doorbells), event: at(events) })
    }
}

impl ShadowDoorbell {
    /// The guest's index.
    pub fn load(&self, memory: &GuestMemory) -> Result<u32, NoMemory> {
        memory.load::<u32>(self.value, Ordering::Acquire).map(u32::from_le).map_err(|_| NoMemory)
    }

    /// Write the guest's index for it: where a queue starts.
    pub fn store(&self, memory: &GuestMemory, value: u32) -> Result<(), NoMemory> {
        memory.store(value.to_le(), self.value, Ordering::Release).map_err(|_| NoMemory)
    }

    /// Ask for a register write once the index passes `event`.
    pub fn ask(&self, memory: &GuestMemory, event: u32) -> Result<(), NoMemory> {
        memory.store(event.to_le(), self.event, Ordering::Release).map_err(|_| NoMemory)
    }

    /// [`ask`](Self::ask), then look whether the index moved before the guest could see that.
    pub fn ask_and_load(&self, memory: &GuestMemory, event: u32) -> Result<u32, NoMemory> {
        self.ask(memory, event)?;
        fence(Ordering::SeqCst);
        self.load(memory)
    }
}

/// Whether `entries` entries of `size` bytes at `base` are guest memory, and `base` starts a page.
pub fn is_valid_ring(memory: &GuestMemory, base: u64, entries: u32, size: u64) -> bool {
    base.is_multiple_of(PAGE_SIZE) && memory.check_range(GuestAddress(base), (u64::from(entries) * size) as usize)
}

/// A submission queue. The guest produces at the tail, we consume at the head.
#[derive(Debug)]
pub struct SubmissionQueue {
    base: u64,
    size: u32,
    head: u32,
    tail: u32,
    /// The completion queue that answers go to.
    pub completion: u16,
    /// Commands taken and not answered.
    pub in_flight: u32,
    /// A command that was taken and would have blocked a vCPU, and when it is due if that was asked.
    pub deferred: Option<(Command, Option<Instant>)>,
    /// Nothing is taken any more: a reset waits for what is in flight.
    pub stopped: bool,
    /// The Delete I/O Submission Queue command that waits for what is in flight.
    pub delete: Option<u16>,
}

impl SubmissionQueue {
    /// An empty queue of `size` entries, at least 2, in memory that [`is_valid_ring`] approved.
    pub fn new(base: u64, size: u32, completion: u16) -> Self {
        SubmissionQueue {
            base,
            size,
            head: 0,
            tail: 0,
            completion,
            in_flight: 0,
            deferred: None,
            stopped: false,
            delete: None,
        }
    }

    /// Where the next command is taken from.
    pub fn head(&self) -> u32 {
        self.head
    }

    /// The last tail seen.
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Whether the queue has an entry `index`.
    pub fn is_index(&self, index: u32) -> bool {
        index < self.size
    }

    /// The guest moved its tail; `false` if there is no such entry.
    pub fn set_tail(&mut self, tail: u32) -> bool {
        if tail < self.size {
            self.tail = tail;
        }
        tail < self.size
    }

    /// Whether no entries wait.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Fetch the entry at the head. The queue must not be empty.
    pub fn take(&mut self, memory: &GuestMemory) -> Result<Command, NoMemory> {
        let mut bytes = [0; COMMAND_SIZE];
        let address = self.base + u64::from(self.head) * COMMAND_SIZE as u64;
        // The tail, which says that the entry is complete, was read before.
        fence(Ordering::Acquire);
        memory.read_slice(&mut bytes, GuestAddress(address)).map_err(|_| NoMemory)?;
        self.head = if self.head + 1 == self.size { 0 } else { self.head + 1 };
        Ok(Command::from_bytes(&bytes))
    }
}

/// A completion queue. We produce at the tail, the guest consumes at the head.
#[derive(Debug)]
pub struct CompletionQueue {
    base: u64,
    size: u32,
    head: u32,
    tail: u32,
    phase: bool,
    /// Slots promised to commands in flight.
    reserved: u32,
    /// Someone found no slot and waits for the head to move.
    pub starved: bool,
    /// The interrupt vector, if interrupts are enabled.
    pub vector: Option<u16>,
}

impl CompletionQueue {
    /// An empty queue of `size` entries, at least 2, in memory that [`is_valid_ring`] approved.
    pub fn new(base: u64, size: u32, vector: Option<u16>) -> Self {
        CompletionQueue { base, size, head: 0, tail: 0, phase: true, reserved: 0, starved: false, vector }
    }

    /// The last head seen.
    pub fn head(&self) -> u32 {
        self.head
    }

    fn occupied(&self) -> u32 {
        if self.tail >= self.head { self.tail - self.head } else { self.tail + self.size - self.head }
    }

    /// The guest consumed up to `head`; `false` if it can't have.
    pub fn set_head(&mut self, head: u32) -> bool {
        let consumed = if head >= self.head { head - self.head } else { (head + self.size).wrapping_sub(self.head) };
        let valid = head < self.size && consumed <= self.occupied();
        if valid {
            self.head = head;
        }
        valid
    }

    /// Promise a slot to a command about to be taken. Without one, the queue is starved until its head moves.
    pub fn reserve(&mut self, memory: &GuestMemory, shadow: Option<ShadowDoorbell>) -> Result<bool, NoMemory> {
        if self.occupied() + self.reserved + 1 >= self.size {
            if let Some(shadow) = shadow {
                let mut head = shadow.load(memory)?;
                if head == self.head {
                    head = shadow.ask_and_load(memory, head)?;
                }
                self.set_head(head);
            }
            if self.occupied() + self.reserved + 1 >= self.size {
                self.starved = true;
                return Ok(false);
            }
        }
        self.reserved += 1;
        Ok(true)
    }

    /// Give a promised slot back unused.
    pub fn release(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Use a promised slot. The caller signals [`vector`](Self::vector) afterwards, once for several completions.
    pub fn post(
        &mut self,
        memory: &GuestMemory,
        shadow: Option<ShadowDoorbell>,
        answer: Answer,
        cid: u16,
        submission: u16,
        head: u32,
    ) -> Result<(), NoMemory> {
        self.release();
        let address = GuestAddress(self.base + u64::from(self.tail) * COMPLETION_SIZE);
        let status = u32::from(answer.status.0) << 1 | u32::from(self.phase);
        let mut first = [0; 12];
        first[..4].copy_from_slice(&answer.result.to_le_bytes());
        first[8..].copy_from_slice(&(u32::from(submission) << 16 | head & 0xffff).to_le_bytes());
        memory.write_slice(&first, address).map_err(|_| NoMemory)?;
        // The dword with the phase tag goes last: who sees it sees the rest, and the data.
        let last = (status << 16 | u32::from(cid)).to_le();
        memory.store(last, GuestAddress(address.0 + 12), Ordering::Release).map_err(|_| NoMemory)?;
        self.tail += 1;
        if self.tail == self.size {
            self.tail = 0;
            self.phase = !self.phase;
        }
        // We look at the guest's head when we need it: an event index that its head never passes keeps it off the
        // register.
        shadow.map_or(Ok(()), |shadow| shadow.ask(memory, self.tail))
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
