//! The loop that takes commands from an I/O submission queue, has them done and posts their completions.
//!
//! A *runner* is a vCPU at a doorbell or an I/O thread that is in this loop for a queue. The slot counts the runners that
//! will look at the queue again before they leave; only where there is none does a doorbell start one, so at most one
//! vCPU runs a queue at a time. Looking and leaving happen under the slot's lock, with the event index set before the
//! last look: no doorbell falls between.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::admin::ErrorEvent;
use super::controller::{Controller, Slot, lock};
use super::nvm::{self, Attempt};
use super::queue::{NoMemory, SubmissionQueue};
use super::spec::{Answer, Command, Status};

/// The most commands that a vCPU does itself for one doorbell write.
const INLINE_COMMANDS: u32 = 32;
/// A thread signals after completions of this weight (a command is 1, and 1 more for each of these bytes), lest the
/// first ones wait for a queue that never runs dry.
const SIGNAL_EVERY: u64 = 16;
const BYTES_PER_COMMAND: u64 = 16 << 10;

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
        /// When it may be done, if that was asked already.
        due: Option<Instant>,
        completion: u16,
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

impl Controller {
    /// A thread takes up what [`Pool::submit`] was given.
    pub fn run_queued(self: &Arc<Self>, id: u16) {
        if let Some(mut slot) = self.slot(id) {
            slot.queued = false;
        }
        self.run(id, Runner::Thread);
    }

    /// Take and do commands until the queue is empty. The caller counted itself among the slot's runners.
    pub fn run(self: &Arc<Self>, id: u16, runner: Runner) {
        let on_vcpu = runner == Runner::Vcpu;
        let mut finished = None;
        // Completions posted and not yet signalled: one interrupt tells of all.
        let mut signal = None;
        let mut unsignalled = 0;
        let mut budget = INLINE_COMMANDS;
        while let Next::Command { command, mut due, completion } = self.next(id, finished.take(), &mut signal) {
            if on_vcpu && budget == 0 && self.defer(id, command, due) {
                break;
            }
            budget = budget.saturating_sub(1);
            if self.hold.is_used() {
                let at = *due.get_or_insert_with(|| self.hold.due(&command));
                if at > Instant::now() {
                    self.signal(signal.take());
                    if on_vcpu && self.defer(id, command, due) {
                        return;
                    }
                    if !on_vcpu {
                        self.hold_until(at);
                        // Other queues have waited, too.
                        unsignalled = SIGNAL_EVERY;
                    }
                }
            }
            let mut attempt = nvm::execute(self, id, &command, false);
            if attempt == Attempt::WouldBlock {
                self.signal(signal.take());
                if on_vcpu && self.defer(id, command, due) {
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
            // On a vCPU the guest stands still anyway, until the budget ends.
            if unsignalled >= SIGNAL_EVERY && !(on_vcpu && budget > 0) {
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
        if let Some((command, due)) = queue.deferred.take() {
            if queue.stopped {
                queue.in_flight = queue.in_flight.saturating_sub(1);
                return Ok(Next::Nothing);
            }
            return Ok(Next::Command { command, due, completion: queue.completion });
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
        Ok(Next::Command { command, due: None, completion })
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
    fn defer(self: &Arc<Self>, id: u16, command: Command, due: Option<Instant>) -> bool {
        let Some(mut slot) = self.slot(id) else { return false };
        let Some(queue) = slot.queue.as_mut() else { return false };
        queue.deferred = Some((command, due));
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
}
