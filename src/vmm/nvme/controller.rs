//! The controller that vCPUs and I/O threads share: the tables of queues, doorbells, and posting completions.
//!
//! Locks are held for short looks, never over an access to the disk, and taken in the order registers, admin,
//! submission queue, completion queue, pool.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admin::{Admin, ErrorEvent};
use super::hold::Hold;
use super::pace::Paces;
use super::pool::Pool;
use super::queue::{CompletionQueue, NoMemory, Shadow, SubmissionQueue};
use super::registers::Registers;
use super::runner::Runner;
use super::spec::Answer;
use super::statistics::Statistics;
use crate::vmm::backend::BlockBackend;
use crate::vmm::config::VolumeIdentity;
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::msix::MsixHandle;

/// A submission queue's place in the table.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub queue: Option<SubmissionQueue>,
    /// Loops that will look at the queue before they end. While there is one, a doorbell needs to start none.
    pub runners: u32,
    /// A thread will take it up.
    pub queued: bool,
}

/// What vCPUs, I/O threads and the host share of a controller.
pub(super) struct Controller {
    pub memory: GuestMemory,
    pub backend: Arc<dyn BlockBackend>,
    pub identity: VolumeIdentity,
    pub interrupts: MsixHandle,
    /// I/O queues that can be created, of each kind.
    pub io_queues: u16,
    pub registers: Mutex<Registers>,
    pub admin: Mutex<Admin>,
    pub submissions: Box<[Mutex<Slot>]>,
    pub completions: Box<[Mutex<Option<CompletionQueue>>]>,
    pub shadow: Shadow,
    /// Enabled and not failed: doorbells count.
    pub ready: AtomicBool,
    /// On its way off the bus: it can't be enabled any more.
    pub closed: AtomicBool,
    /// CSTS.CFS.
    pub fatal: AtomicBool,
    /// CC says that queue entries have the sizes that they have.
    pub entry_sizes_set: AtomicBool,
    /// A failing back end was reported.
    pub complained: AtomicBool,
    /// Volatile write cache enabled (feature 06h).
    pub write_cache: AtomicBool,
    pub paces: Paces,
    pub statistics: Box<[Statistics]>,
    pub pool: Pool,
    /// Commands that are held back.
    pub hold: Hold,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // State is consistent between statements; a panicking thread ends the machine anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    /// A doorbell register was written: `index` counts them from 0.
    pub fn doorbell(self: &Arc<Self>, index: u64, value: u32) {
        if !self.ready.load(Ordering::Acquire) {
            return;
        }
        let Some(id) = u16::try_from(index / 2).ok().filter(|id| *id <= self.io_queues) else {
            return self.invalid_doorbell(ErrorEvent::InvalidDoorbellRegister);
        };
        let result = if index % 2 == 1 {
            self.head_doorbell(id, value)
        } else if id == 0 {
            self.admin_doorbell(value)
        } else {
            self.tail_doorbell(id, value)
        };
        if let Err(event) = result {
            self.invalid_doorbell(event);
        }
    }

    fn tail_doorbell(self: &Arc<Self>, id: u16, value: u32) -> Result<(), ErrorEvent> {
        let mut slot = self.slot(id).ok_or(ErrorEvent::InvalidDoorbellRegister)?;
        let queue = slot.queue.as_mut().ok_or(ErrorEvent::InvalidDoorbellRegister)?;
        // With a shadow doorbell the register only says "look", and its value may be old.
        let valid = if self.shadow.tail(id).is_some() { queue.is_index(value) } else { queue.set_tail(value) };
        if !valid {
            return Err(ErrorEvent::InvalidDoorbellValue);
        }
        self.start(id, slot);
        Ok(())
    }

    fn head_doorbell(self: &Arc<Self>, id: u16, value: u32) -> Result<(), ErrorEvent> {
        let starved = {
            let completions = self.completions.get(usize::from(id));
            let mut guard = lock(completions.ok_or(ErrorEvent::InvalidDoorbellRegister)?);
            let queue = guard.as_mut().ok_or(ErrorEvent::InvalidDoorbellRegister)?;
            let shadow = self.shadow.head(id);
            let head = match shadow.filter(|_| id != 0) {
                Some(shadow) => self.check(shadow.load(&self.memory)).unwrap_or(value),
                None => value,
            };
            if !queue.set_head(head) {
                return Err(ErrorEvent::InvalidDoorbellValue);
            }
            if let (0, Some(shadow)) = (id, shadow) {
                // Not every driver uses the shadow of the admin queue: keep it on the register.
                self.check(shadow.ask(&self.memory, value));
            }
            std::mem::take(&mut queue.starved)
        };
        if !starved {
            return Ok(());
        }
        if id == 0 {
            self.run_admin();
            return Ok(());
        }
        for submission in 1..=self.io_queues {
            let feeds = |slot: MutexGuard<'_, Slot>| slot.queue.as_ref().is_some_and(|q| q.completion == id);
            if self.slot(submission).is_some_and(feeds) {
                self.process(submission);
            }
        }
        Ok(())
    }

    fn admin_doorbell(self: &Arc<Self>, value: u32) -> Result<(), ErrorEvent> {
        let mut slot = self.slot(0).ok_or(ErrorEvent::InvalidDoorbellRegister)?;
        let queue = slot.queue.as_mut().ok_or(ErrorEvent::InvalidDoorbellRegister)?;
        if !queue.set_tail(value) {
            return Err(ErrorEvent::InvalidDoorbellValue);
        }
        drop(slot);
        self.run_admin();
        Ok(())
    }

    /// Do what is in I/O submission queue `id` now, without waiting for the disk if there are threads for that: the part
    /// of a doorbell after the register.
    pub fn process(self: &Arc<Self>, id: u16) {
        if let Some(slot) = self.slot(id).filter(|_| id != 0) {
            self.start(id, slot);
        }
    }

    /// Run a queue here unless somebody does already.
    fn start(self: &Arc<Self>, id: u16, mut slot: MutexGuard<'_, Slot>) {
        if slot.runners == 0 && slot.queue.is_some() {
            slot.runners = 1;
            drop(slot);
            self.run(id, Runner::Vcpu);
        }
    }

    pub fn post(&self, completion: u16, submission: u16, head: u32, cid: u16, answer: Answer) -> Option<u16> {
        let mut guard = lock(self.completions.get(usize::from(completion))?);
        let queue = guard.as_mut()?;
        let shadow = if completion == 0 { None } else { self.shadow.head(completion) };
        self.check(queue.post(&self.memory, shadow, answer, cid, submission, head))?;
        queue.vector
    }

    pub fn signal(&self, vector: Option<u16>) {
        if let Some(vector) = vector {
            self.interrupts.signal(vector);
        }
    }

    pub fn slot(&self, id: u16) -> Option<MutexGuard<'_, Slot>> {
        self.submissions.get(usize::from(id)).map(lock)
    }

    /// Queue memory that is gone is fatal (§9.5: the host must reset the controller).
    pub fn check<T>(&self, result: Result<T, NoMemory>) -> Option<T> {
        if result.is_err() {
            self.fail();
        }
        result.ok()
    }

    /// Controller fatal status: nothing works until the host resets the controller.
    pub fn fail(&self) {
        self.fatal.store(true, Ordering::Release);
        self.not_ready();
    }

    /// Whether it is enabled and has not failed.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Take no more commands. What is held back is done at once.
    pub fn not_ready(&self) {
        self.ready.store(false, Ordering::Release);
        self.hold.release();
    }

    /// Commands taken from I/O queues and not answered.
    pub fn in_flight(&self) -> u64 {
        let of = |slot: &Mutex<Slot>| lock(slot).queue.as_ref().map_or(0, |q| u64::from(q.in_flight));
        self.submissions.iter().skip(1).map(of).sum()
    }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
