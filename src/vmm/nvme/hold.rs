//! Commands that are held back: the disk has a [`Throttle`](crate::vmm::backend::Throttle), as a volume with limits has.
//!
//! A command takes its share of what the disk does as soon as it is taken from its queue, and is due some time later. I/O threads wait for
//! that, each with one command, and the queue behind it waits too; vCPUs never do. A reset, or the controller's end, makes
//! all that is held back due at once, so neither takes longer for it.
#![forbid(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::controller::{Controller, lock};
use super::spec::{Command, MAX_TRANSFER, io_opcode};
use crate::vmm::backend::{Access, BLOCK_SIZE, HeldBack, Throttle};

/// Commands that are held back.
#[derive(Default)]
pub(super) struct Hold {
    throttle: Option<Arc<dyn Throttle>>,
    /// How often all were let go.
    released: Mutex<u64>,
    wake: Condvar,
}

impl Hold {
    /// For a disk with this throttle.
    pub fn new(throttle: Option<Arc<dyn Throttle>>) -> Self {
        Hold { throttle, ..Hold::default() }
    }

    /// Whether commands are held back at all.
    pub fn is_used(&self) -> bool {
        self.throttle.is_some()
    }

    /// A command was taken from its queue. Answers when it may be done.
    pub fn due(&self, command: &Command) -> Instant {
        let now = Instant::now();
        match (&self.throttle, access(command)) {
            (Some(throttle), Some(access)) => now + throttle.take(access, now),
            _ => now,
        }
    }

    /// For how long commands were held back so far.
    pub fn held_back(&self) -> HeldBack {
        self.throttle.as_ref().map_or(HeldBack::default(), |throttle| throttle.held_back())
    }

    /// Let go of all that is held back. Whoever calls this has made the controller not ready.
    pub fn release(&self) {
        if self.is_used() {
            *lock(&self.released) += 1;
            self.wake.notify_all();
        }
    }
}

impl Controller {
    /// Wait until a command is due, or not any longer than the controller is ready.
    pub(super) fn hold_until(&self, due: Instant) {
        let mut released = lock(&self.hold.released);
        let before = *released;
        while self.is_ready() && *released == before {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            released = self.hold.wake.wait_timeout(released, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What a command does to the disk; nothing, for those that are free.
fn access(command: &Command) -> Option<Access> {
    let write = match command.opcode() {
        io_opcode::READ => false,
        io_opcode::WRITE | io_opcode::WRITE_ZEROES => true,
        _ => return None,
    };
    let lba = u64::from(command.dword::<10>()) | u64::from(command.dword::<11>()) << 32;
    let length = (u64::from(command.dword::<12>() & 0xffff) + 1) * BLOCK_SIZE;
    Some(Access { write, offset: lba.saturating_mul(BLOCK_SIZE), length: length.min(MAX_TRANSFER) })
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
