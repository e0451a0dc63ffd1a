//! The controller that vCPUs and I/O threads share: registers' state, the tables of queues, and the loop that takes
//! commands and posts completions.
//!
//! Locks are held for short looks, never over an access to the disk, and taken in the order registers, admin,
//! submission queue, completion queue, pool.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admin::{Admin, ErrorEvent};
use super::nvm::{self, Attempt};
use super::pace::Paces;
use super::pool::Pool;
use super::queue::{CompletionQueue, NoMemory, Shadow, SubmissionQueue};
use super::registers::Registers;
use super::spec::{Answer, Command, Status};
use super::statistics::Statistics;
use crate::vmm::backend::BlockBackend;
use crate::vmm::config::VolumeIdentity;
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::msix::MsixHandle;

/// The most commands that a vCPU does itself for one doorbell write.
const INLINE_COMMANDS: u32 = 32;
/// A thread signals after completions of this weight (a command is 1, and 1 more for each of these bytes), lest the
/// first ones wait for a queue that never runs dry.
const SIGNAL_EVERY: u64 = 16;
const BYTES_PER_COMMAND: u64 = 16 << 10;

/// A submission queue's place in the table.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub queue: Option<SubmissionQueue>,
    /// Loops that will look at the queue before they end. While there is one, a doorbell needs to start none.
    runners: u32,
    /// A thread will take it up.
    queued: bool,
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
}

/// Who runs a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runner {
    /// A vCPU at a doorbell: must not wait.
    Vcpu,
    /// An I/O thread.
    Thread,
}

/// What the next look at a submission queue gave.
enum Next {
    Command {
        command: Command,
        completion: u16,
        more: bool,
    },
    Nothing,
    /// The shadow doorbell holds no index of the queue.
    BadTail,
}

/// A command that was done, to be answered.
struct Finished {
    cid: u16,
    completion: u16,
    answer: Answer,
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
        if !queue.set_tail(value) {
            return Err(ErrorEvent::InvalidDoorbellValue);
        }
        drop(slot);
        self.process(id);
        Ok(())
    }

    fn head_doorbell(self: &Arc<Self>, id: u16, value: u32) -> Result<(), ErrorEvent> {
        let starved = {
            let completions = self.completions.get(usize::from(id));
            let mut guard = lock(completions.ok_or(ErrorEvent::InvalidDoorbellRegister)?);
            let queue = guard.as_mut().ok_or(ErrorEvent::InvalidDoorbellRegister)?;
            if !queue.set_head(value) {
                return Err(ErrorEvent::InvalidDoorbellValue);
            }
            if let (0, Some(shadow)) = (id, self.shadow.head(0)) {
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
        let Some(mut slot) = self.slot(id).filter(|_| id != 0) else { return };
        if slot.runners == 0 && slot.queue.is_some() {
            slot.runners = 1;
            drop(slot);
            self.run(id, Runner::Vcpu);
        }
    }

    /// A thread takes up what [`Pool::submit`] was given.
    pub fn run_queued(self: &Arc<Self>, id: u16) {
        if let Some(mut slot) = self.slot(id) {
            slot.queued = false;
        }
        self.run(id, Runner::Thread);
    }

    /// Take and do commands until the queue is empty. The caller counted itself among the slot's runners.
    fn run(self: &Arc<Self>, id: u16, runner: Runner) {
        let on_vcpu = runner == Runner::Vcpu;
        let mut finished = None;
        // Completions posted and not yet signalled: one interrupt tells of all.
        let mut signal = None;
        let mut unsignalled = 0;
        for turn in 0u32.. {
            let (command, completion) = match self.next(id, finished.take(), &mut signal) {
                Next::Command { command, completion } => (command, completion),
                Next::Nothing | Next::BadTail => break,
            };
            if on_vcpu && turn == INLINE_COMMANDS && self.defer(id, command) {
                break;
            }
            let mut attempt = nvm::execute(self, id, &command, false);
            if attempt == Attempt::WouldBlock {
                self.signal(signal.take());
                if on_vcpu && self.defer(id, command) {
                    return;
                }
                self.step_aside(id);
                attempt = nvm::execute(self, id, &command, true);
                self.rejoin(id);
            }
            let answer = match attempt {
                Attempt::Done(answer) => answer,
                Attempt::WouldBlock => Status::INTERNAL_ERROR.into(),
            };
            finished = Some(Finished { cid: command.cid(), completion, answer });
            unsignalled += 1 + nvm::transfer_length(&command) / BYTES_PER_COMMAND;
            if unsignalled >= SIGNAL_EVERY {
                unsignalled = 0;
                if self.give_way(id, runner, &mut finished, &mut signal) {
                    break;
                }
                self.signal(signal.take());
            }
        }
        self.signal(signal);
    }

    /// Look for the next command. The last runner to find none leaves, and from then on the guest rings.
    fn next(self: &Arc<Self>, id: u16, finished: Option<Finished>, signal: &mut Option<u16>) -> Next {
        let Some(mut slot) = self.slot(id) else { return Next::Nothing };
        let next = match slot.queue.as_mut() {
            Some(queue) => {
                self.finish(id, queue, finished, signal);
                self.check(self.take(id, queue)).unwrap_or(Next::Nothing)
            }
            None => Next::Nothing,
        };
        if matches!(next, Next::Command { .. }) {
            return next;
        }
        slot.runners = slot.runners.saturating_sub(1);
        self.finish_delete(slot);
        if matches!(next, Next::BadTail) {
            self.invalid_doorbell(ErrorEvent::InvalidDoorbellValue);
        }
        next
    }

    fn finish(&self, id: u16, queue: &mut SubmissionQueue, finished: Option<Finished>, signal: &mut Option<u16>) {
        if let Some(Finished { cid, completion, answer }) = finished {
            queue.in_flight = queue.in_flight.saturating_sub(1);
            *signal = self.post(completion, id, queue.head(), cid, answer).or(*signal);
        }
    }

    /// A runner has done its share of one queue: post what it did. A thread, if other queues wait, lines this one up
    /// behind them; `true` if so.
    fn give_way(
        self: &Arc<Self>,
        id: u16,
        runner: Runner,
        finished: &mut Option<Finished>,
        signal: &mut Option<u16>,
    ) -> bool {
        let Some(mut slot) = self.slot(id) else { return false };
        if let Some(queue) = slot.queue.as_mut() {
            self.finish(id, queue, finished.take(), signal);
        }
        if runner == Runner::Vcpu || slot.queued || !self.pool.is_contended() {
            return false;
        }
        slot.queued = self.pool.submit(self, id);
        slot.queued
    }

    fn take(&self, id: u16, queue: &mut SubmissionQueue) -> Result<Next, NoMemory> {
        if let Some(command) = queue.deferred.take() {
            if queue.stopped {
                queue.in_flight = queue.in_flight.saturating_sub(1);
                return Ok(Next::Nothing);
            }
            return Ok(Next::Command { command, completion: queue.completion });
        }
        if queue.stopped || queue.delete.is_some() || !self.ready.load(Ordering::Acquire) {
            return Ok(Next::Nothing);
        }
        if !self.refresh_tail(id, queue)? {
            return Ok(Next::BadTail);
        }
        if queue.is_empty() {
            return Ok(Next::Nothing);
        }
        let completion = queue.completion;
        let Some(slot) = self.completions.get(usize::from(completion)) else { return Ok(Next::Nothing) };
        let reserved = match lock(slot).as_mut() {
            Some(slots) => slots.reserve(&self.memory, self.shadow.head(completion))?,
            None => false,
        };
        if !reserved {
            return Ok(Next::Nothing);
        }
        let command = queue.take(&self.memory)?;
        queue.in_flight += 1;
        Ok(Next::Command { command, completion })
    }

    /// Take over the shadow doorbell. If nothing is new, the guest will ring. `false` if it holds no index of the queue.
    fn refresh_tail(&self, id: u16, queue: &mut SubmissionQueue) -> Result<bool, NoMemory> {
        let Some(shadow) = self.shadow.tail(id) else { return Ok(true) };
        let mut tail = shadow.load(&self.memory)?;
        if tail == queue.head() {
            tail = shadow.ask_and_load(&self.memory, tail)?;
        }
        Ok(tail == queue.tail() || queue.set_tail(tail))
    }

    /// Leave a command, and the rest of the queue, to the I/O threads, with this runner's count. `false` if there are
    /// none.
    fn defer(self: &Arc<Self>, id: u16, command: Command) -> bool {
        let Some(mut slot) = self.slot(id) else { return false };
        let Some(queue) = slot.queue.as_mut() else { return false };
        queue.deferred = Some(command);
        if slot.queued {
            slot.runners = slot.runners.saturating_sub(1);
            return true;
        }
        // With the lock held: the thread's first look comes after this one.
        slot.queued = self.pool.submit(self, id);
        if !slot.queued
            && let Some(queue) = slot.queue.as_mut()
        {
            queue.deferred = None;
        }
        slot.queued
    }

    /// This runner is about to wait for the disk. A thread goes on with what is in the queue; if there is nothing, the
    /// guest rings for the next command.
    fn step_aside(self: &Arc<Self>, id: u16) {
        let Some(mut slot) = self.slot(id) else { return };
        let more = slot.queue.as_mut().is_some_and(|queue| {
            // A bad index is dealt with at the next look.
            !matches!(self.check(self.refresh_tail(id, queue)), Some(true)) || !queue.is_empty()
        });
        if more && !slot.queued {
            slot.queued = self.pool.submit(self, id);
            if slot.queued {
                return;
            }
        }
        slot.runners = slot.runners.saturating_sub(1);
    }

    fn rejoin(&self, id: u16) {
        if let Some(mut slot) = self.slot(id) {
            slot.runners += 1;
        }
    }

    /// Complete the deletion of a queue that nothing is in flight from any more.
    fn finish_delete(&self, mut slot: MutexGuard<'_, Slot>) {
        let Some(queue) = slot.queue.as_ref().filter(|queue| queue.in_flight == 0) else { return };
        let Some(cid) = queue.delete else { return };
        slot.queue = None;
        drop(slot);
        self.answer_admin(cid, Status::SUCCESS.into());
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
        self.ready.store(false, Ordering::Release);
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
