//! The admin command set (§5), except for features and log pages.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::controller::{Controller, Slot, lock};
use super::features::Features;
use super::identify::{self, ASYNC_EVENT_LIMIT};
use super::log_page::ErrorLog;
use super::prp;
use super::queue::{CompletionQueue, NoMemory, SubmissionQueue, is_valid_ring};
use super::spec::{
    ALL_NAMESPACES, Answer, COMMAND_SIZE, COMPLETION_SIZE, Command, MAX_QUEUE_ENTRIES, NAMESPACE, PAGE_SIZE, Status,
    admin_opcode,
};

const PHYSICALLY_CONTIGUOUS: u32 = 1;
const INTERRUPTS_ENABLED: u32 = 1 << 1;
/// Abort's answer: the command was not aborted. Commands here take as long as the host's disk does.
const NOT_ABORTED: u32 = 1;

const ERROR_LOG: u32 = 0x01;
const CHANGED_NAMESPACES_LOG: u32 = 0x04;
const EVENT_TYPE_NOTICE: u32 = 2;
const NAMESPACE_ATTRIBUTE_CHANGED: u8 = 0;

/// Error events (§5.2, figure 148).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorEvent {
    /// A doorbell of a queue that does not exist.
    InvalidDoorbellRegister = 0,
    /// A doorbell value outside of the queue.
    InvalidDoorbellValue = 1,
}

/// A class of events: reported once, then held back until the host has read the log page.
#[derive(Debug, Default)]
pub(super) struct EventClass {
    /// Its information field.
    pending: Option<u8>,
    /// Reported; cleared by reading the log page.
    pub masked: bool,
}

/// What admin commands work on, beside the queues. A reset brings back the default.
#[derive(Debug, Default)]
pub(super) struct Admin {
    pub features: Features,
    pub error_log: ErrorLog,
    pub error_event: EventClass,
    pub namespace_event: EventClass,
    /// The namespace changed since the log page was read.
    pub namespace_changed: bool,
    /// Outstanding Asynchronous Event Requests.
    requests: Vec<u16>,
}

impl Controller {
    /// Do what is in the admin queue.
    pub fn run_admin(self: &Arc<Self>) {
        let mut admin = lock(&self.admin);
        let mut signal = None;
        while let Some((command, head)) = self.check(self.take_admin()).flatten() {
            if let Some(answer) = self.execute_admin(&mut admin, &command) {
                signal = self.post(0, 0, head, command.cid(), answer).or(signal);
            }
        }
        self.deliver_events(&mut admin);
        self.signal(signal);
    }

    fn take_admin(&self) -> Result<Option<(Command, u32)>, NoMemory> {
        let Some(mut slot) = self.slot(0) else { return Ok(None) };
        let Some(queue) = slot.queue.as_mut().filter(|q| !q.stopped) else { return Ok(None) };
        if let Some(shadow) = self.shadow.tail(0) {
            // Linux has no shadow doorbell for this queue, others may: the register is good for both.
            shadow.ask(&self.memory, queue.tail())?;
        }
        if queue.is_empty() || !self.ready.load(Ordering::Acquire) || !self.reserve_admin()? {
            return Ok(None);
        }
        let command = queue.take(&self.memory)?;
        Ok(Some((command, queue.head())))
    }

    fn reserve_admin(&self) -> Result<bool, NoMemory> {
        match self.completions.first().and_then(|queue| lock(queue).as_mut().map(|q| q.reserve(&self.memory, None))) {
            Some(reserved) => reserved,
            None => Ok(false),
        }
    }

    /// Answer an admin command later than the others, from any thread.
    pub fn answer_admin(&self, cid: u16, answer: Answer) {
        let head = self.slot(0).and_then(|slot| slot.queue.as_ref().map(SubmissionQueue::head));
        if let Some(head) = head {
            self.signal(self.post(0, 0, head, cid, answer));
        }
    }

    /// The guest rang a doorbell that it should not have.
    pub fn invalid_doorbell(&self, event: ErrorEvent) {
        let mut admin = lock(&self.admin);
        admin.error_log.push();
        admin.error_event.pending = Some(event as u8);
        self.deliver_events(&mut admin);
    }

    /// The namespace has a new size.
    pub fn namespace_resized(&self) {
        let mut admin = lock(&self.admin);
        admin.namespace_changed = true;
        if admin.features.namespace_notices() {
            admin.namespace_event.pending = Some(NAMESPACE_ATTRIBUTE_CHANGED);
            self.deliver_events(&mut admin);
        }
    }

    /// Answer requests with events that wait for them.
    fn deliver_events(&self, admin: &mut Admin) {
        loop {
            let result = if let (false, Some(information)) = (admin.error_event.masked, admin.error_event.pending) {
                ERROR_LOG << 16 | u32::from(information) << 8
            } else if let (false, Some(information)) = (admin.namespace_event.masked, admin.namespace_event.pending) {
                CHANGED_NAMESPACES_LOG << 16 | u32::from(information) << 8 | EVENT_TYPE_NOTICE
            } else {
                return;
            };
            if admin.requests.is_empty() || self.check(self.reserve_admin()) != Some(true) {
                return;
            }
            if let Some(cid) = admin.requests.pop() {
                self.answer_admin(cid, Answer { status: Status::SUCCESS, result });
            }
            if result >> 16 == ERROR_LOG {
                (admin.error_event.masked, admin.error_event.pending) = (true, None);
            } else {
                (admin.namespace_event.masked, admin.namespace_event.pending) = (true, None);
            }
        }
    }

    /// `None`: the answer comes later.
    fn execute_admin(&self, admin: &mut Admin, command: &Command) -> Option<Answer> {
        if command.has_unsupported_flags() {
            return Some(Status::INVALID_FIELD.into());
        }
        let result = match command.opcode() {
            admin_opcode::IDENTIFY => self.identify(command),
            admin_opcode::CREATE_IO_CQ => self.create_completion_queue(command),
            admin_opcode::CREATE_IO_SQ => self.create_submission_queue(command),
            admin_opcode::DELETE_IO_CQ => self.delete_completion_queue(command),
            admin_opcode::DELETE_IO_SQ => match self.delete_submission_queue(command) {
                Ok(true) => Ok(0),
                Ok(false) => return None,
                Err(status) => Err(status),
            },
            admin_opcode::SET_FEATURES => self.set_feature(&mut admin.features, command),
            admin_opcode::GET_FEATURES => self.get_feature(&mut admin.features, command),
            admin_opcode::GET_LOG_PAGE => self.get_log_page(admin, command),
            admin_opcode::DOORBELL_BUFFER_CONFIG => self.doorbell_buffer_config(command),
            admin_opcode::ABORT => Ok(NOT_ABORTED),
            admin_opcode::ASYNC_EVENT_REQUEST if admin.requests.len() >= ASYNC_EVENT_LIMIT => {
                Err(Status::ASYNC_EVENT_LIMIT)
            }
            admin_opcode::ASYNC_EVENT_REQUEST => {
                admin.requests.push(command.cid());
                // An event that may never come must not keep a completion slot from the others.
                if let Some(queue) = self.completions.first().map(lock).as_mut().and_then(|q| q.as_mut()) {
                    queue.release();
                }
                return None;
            }
            _ => Err(Status::INVALID_OPCODE),
        };
        Some(result.into())
    }

    fn identify(&self, command: &Command) -> Result<u32, Status> {
        let nsid = command.nsid();
        let page = match command.dword::<10>() & 0xff {
            0x00 if nsid == NAMESPACE => identify::namespace(self.backend.size()),
            0x01 => identify::controller(&self.identity),
            0x02 if nsid < ALL_NAMESPACES - 1 => {
                let mut list = Box::new([0; PAGE_SIZE as usize]);
                if nsid < NAMESPACE {
                    list[..4].copy_from_slice(&NAMESPACE.to_le_bytes());
                }
                list
            }
            // No identifiers, as on EC2: an empty list.
            0x03 if nsid == NAMESPACE => Box::new([0; PAGE_SIZE as usize]),
            0x00 | 0x02 | 0x03 => return Err(Status::INVALID_NAMESPACE),
            _ => return Err(Status::INVALID_FIELD),
        };
        prp::write(&self.memory, command, page.as_slice()).map(|()| 0)
    }

    /// Queue id and entries of a Create command.
    fn new_queue(&self, command: &Command, entry_size: u64, exists: bool) -> Result<u32, Status> {
        let id = command.dword::<10>() as u16;
        let entries = (command.dword::<10>() >> 16) + 1;
        if !(1..=self.io_queues).contains(&id) || exists {
            Err(Status::INVALID_QUEUE_ID)
        } else if !(2..=MAX_QUEUE_ENTRIES).contains(&entries) || !self.entry_sizes_set.load(Ordering::Relaxed) {
            Err(Status::INVALID_QUEUE_SIZE)
        } else if command.dword::<11>() & PHYSICALLY_CONTIGUOUS == 0 {
            Err(Status::INVALID_FIELD)
        } else if !command.prp1().is_multiple_of(PAGE_SIZE) {
            Err(Status::PRP_OFFSET_INVALID)
        } else if command.prp1() == 0 || !is_valid_ring(&self.memory, command.prp1(), entries, entry_size) {
            Err(Status::DATA_TRANSFER_ERROR)
        } else {
            Ok(entries)
        }
    }

    fn create_completion_queue(&self, command: &Command) -> Result<u32, Status> {
        let id = command.dword::<10>() as u16;
        let slot = self.completions.get(usize::from(id)).ok_or(Status::INVALID_QUEUE_ID)?;
        let mut queue = lock(slot);
        let entries = self.new_queue(command, COMPLETION_SIZE, queue.is_some())?;
        let vector = (command.dword::<11>() >> 16) as u16;
        let vector = (command.dword::<11>() & INTERRUPTS_ENABLED != 0).then_some(vector);
        // One vector a queue, and the admin queue's.
        if vector.is_some_and(|vector| vector > self.io_queues) {
            return Err(Status::INVALID_INTERRUPT_VECTOR);
        }
        *queue = Some(CompletionQueue::new(command.prp1(), entries, vector));
        if let Some(shadow) = self.shadow.head(id) {
            self.check(shadow.store(&self.memory, 0).and_then(|()| shadow.ask(&self.memory, 0)));
        }
        Ok(0)
    }

    fn create_submission_queue(&self, command: &Command) -> Result<u32, Status> {
        let id = command.dword::<10>() as u16;
        let completion = (command.dword::<11>() >> 16) as u16;
        let mut slot = self.slot(id).ok_or(Status::INVALID_QUEUE_ID)?;
        let entries = self.new_queue(command, COMMAND_SIZE as u64, slot.queue.is_some())?;
        if !(1..=self.io_queues).contains(&completion) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        let exists = |queue| lock::<Option<CompletionQueue>>(queue).is_some();
        if !self.completions.get(usize::from(completion)).is_some_and(exists) {
            return Err(Status::COMPLETION_QUEUE_INVALID);
        }
        slot.queue = Some(SubmissionQueue::new(command.prp1(), entries, completion));
        if let Some(shadow) = self.shadow.tail(id) {
            self.check(shadow.store(&self.memory, 0).and_then(|()| shadow.ask(&self.memory, 0)));
        }
        Ok(0)
    }

    fn delete_completion_queue(&self, command: &Command) -> Result<u32, Status> {
        let id = command.dword::<10>() as u16;
        let feeds = |slot: &std::sync::Mutex<Slot>| lock(slot).queue.as_ref().is_some_and(|q| q.completion == id);
        if id != 0 && self.submissions.iter().any(feeds) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        let slot = self.completions.get(usize::from(id)).filter(|_| id != 0).ok_or(Status::INVALID_QUEUE_ID)?;
        lock(slot).take().map(|_| 0).ok_or(Status::INVALID_QUEUE_ID)
    }

    /// `false` if commands are in flight: whoever completes the last one answers.
    fn delete_submission_queue(&self, command: &Command) -> Result<bool, Status> {
        let id = command.dword::<10>() as u16;
        let mut slot = self.slot(id).filter(|_| id != 0).ok_or(Status::INVALID_QUEUE_ID)?;
        let queue = slot.queue.as_mut().filter(|q| q.delete.is_none()).ok_or(Status::INVALID_QUEUE_ID)?;
        if queue.in_flight > 0 {
            queue.delete = Some(command.cid());
            return Ok(false);
        }
        slot.queue = None;
        Ok(true)
    }

    fn doorbell_buffer_config(&self, command: &Command) -> Result<u32, Status> {
        let (doorbells, events) = (command.prp1(), command.prp2());
        for page in [doorbells, events] {
            let memory = self.memory.check_range(GuestAddress(page), PAGE_SIZE as usize);
            if page == 0 || !page.is_multiple_of(PAGE_SIZE) || !memory {
                return Err(Status::INVALID_FIELD);
            }
        }
        self.shadow.set(doorbells, events);
        // Queues that exist go on from where they are.
        for id in 0..=self.io_queues {
            let tail = self.slot(id).and_then(|slot| slot.queue.as_ref().map(SubmissionQueue::tail));
            let head = self.completions.get(usize::from(id)).and_then(|q| lock(q).as_ref().map(CompletionQueue::head));
            for (value, shadow) in [(tail, self.shadow.tail(id)), (head, self.shadow.head(id))] {
                if let (Some(value), Some(shadow)) = (value, shadow) {
                    self.check(shadow.store(&self.memory, value).and_then(|()| shadow.ask(&self.memory, value)));
                }
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
