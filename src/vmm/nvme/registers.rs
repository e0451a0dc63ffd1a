//! Controller registers (§3.1), enabling, resetting (§7.3) and shutting down (§7.6).
//!
//! A reset takes the queues away at once, but reports ready until no command is in flight: until then the host's disk
//! may still be writing to guest memory.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::admin::Admin;
use super::controller::{Controller, lock};
use super::queue::{CompletionQueue, SubmissionQueue, is_valid_ring};
use super::spec::{COMMAND_SIZE, COMPLETION_SIZE, MAX_ADMIN_ENTRIES, MAX_QUEUE_ENTRIES, VERSION, register};

/// 1024 entries, contiguous queues required, 20 s to become ready, the NVM command set, pages of 4 KiB only.
const CAPABILITIES: u64 = (MAX_QUEUE_ENTRIES as u64 - 1) | 1 << 16 | 40 << 24 | 1 << 37;

const CC_ENABLE: u32 = 1;
/// Command set, page size and arbitration: all must be 0.
const CC_FORMAT: u32 = 0x3ff0;
const CC_SHUTDOWN: u32 = 0b11 << 14;
/// IOSQES and IOCQES: entries of 64 and 16 bytes.
const CC_ENTRY_SIZES: u32 = 0xff << 16;
const CC_WRITABLE: u32 = CC_ENABLE | CC_FORMAT | CC_SHUTDOWN | CC_ENTRY_SIZES;
const EXPECTED_ENTRY_SIZES: u32 = 4 << 20 | 6 << 16;
const CSTS_READY: u32 = 1;
const CSTS_FATAL: u32 = 1 << 1;
const CSTS_SHUTDOWN_COMPLETE: u32 = 0b10 << 2;
const AQA_WRITABLE: u32 = 0x0fff_0fff;
/// How often [`Controller::close`] looks.
const IN_FLIGHT_POLL: Duration = Duration::from_millis(1);
/// Queue base addresses are those of pages.
const BASE_WRITABLE: u64 = !0xfff;

/// The registers with state.
#[derive(Debug, Default)]
pub struct Registers {
    cc: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    phase: Phase,
    shutdown_complete: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Disabled,
    Enabled,
    /// Disabled, with commands in flight.
    Resetting,
}

impl Controller {
    /// Fill `data` from the register at `offset`; 4 or 8 bytes as the specification demands, and smaller ones as PCI
    /// allows.
    pub fn read_register(&self, offset: u64, data: &mut [u8]) {
        let mut registers = lock(&self.registers);
        let mut value = 0;
        for (i, byte) in data.iter_mut().enumerate() {
            let at = offset.saturating_add(i as u64);
            if i == 0 || at.is_multiple_of(4) {
                value = self.register(&mut registers, at & !3);
            }
            *byte = value.to_le_bytes()[(at % 4) as usize];
        }
    }

    fn register(&self, registers: &mut Registers, offset: u64) -> u32 {
        let half = |value: u64, base: u64| if offset == base { value as u32 } else { (value >> 32) as u32 };
        match offset {
            register::CAP | 0x04 => half(CAPABILITIES, register::CAP),
            register::VS => VERSION,
            register::CC => registers.cc,
            register::CSTS => self.status(registers),
            register::AQA => registers.aqa,
            register::ASQ | 0x2c => half(registers.asq, register::ASQ),
            register::ACQ | 0x34 => half(registers.acq, register::ACQ),
            _ => 0,
        }
    }

    fn status(&self, registers: &mut Registers) -> u32 {
        if registers.phase == Phase::Resetting && self.finish_reset() {
            registers.phase = Phase::Disabled;
        }
        let mut status = 0;
        if registers.phase != Phase::Disabled {
            status |= CSTS_READY;
        }
        if self.fatal.load(Ordering::Acquire) {
            status |= CSTS_FATAL;
        }
        if registers.shutdown_complete {
            status |= CSTS_SHUTDOWN_COMPLETE;
        }
        status
    }

    /// Take a write of 4 or 8 bytes at `offset`; others are ignored.
    pub fn write_register(self: &Arc<Self>, offset: u64, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(4) {
            return;
        }
        let mut registers = lock(&self.registers);
        for (i, word) in data.as_chunks::<4>().0.iter().enumerate() {
            let value = u32::from_le_bytes(*word);
            let low = |old: u64| (old & !0xffff_ffff | u64::from(value)) & BASE_WRITABLE;
            let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
            match offset + 4 * i as u64 {
                register::CC => self.configure(&mut registers, value & CC_WRITABLE),
                register::AQA => registers.aqa = value & AQA_WRITABLE,
                register::ASQ => registers.asq = low(registers.asq),
                0x2c => registers.asq = high(registers.asq),
                register::ACQ => registers.acq = low(registers.acq),
                0x34 => registers.acq = high(registers.acq),
                // INTMS and INTMC are not for MSI-X; the rest is read-only or absent.
                _ => {}
            }
        }
    }

    fn configure(self: &Arc<Self>, registers: &mut Registers, value: u32) {
        let old = std::mem::replace(&mut registers.cc, value);
        self.entry_sizes_set.store(value & CC_ENTRY_SIZES == EXPECTED_ENTRY_SIZES, Ordering::Relaxed);
        if (value & !old) & CC_ENABLE != 0 {
            self.enable(registers);
        } else if (old & !value) & CC_ENABLE != 0 {
            self.reset(registers);
        }
        if value & CC_SHUTDOWN != 0 && old & CC_SHUTDOWN == 0 {
            // The vCPU waits for it: Linux looks once and then sleeps for 100 ms.
            if let Err(error) = self.backend.flush() {
                log::warn!("can't flush a volume at the guest's shutdown: {error}");
            }
            registers.shutdown_complete = true;
        }
    }

    fn enable(&self, registers: &mut Registers) {
        let submission = (registers.aqa & 0xfff) + 1;
        let completion = (registers.aqa >> 16 & 0xfff) + 1;
        let sizes = 2..=MAX_ADMIN_ENTRIES;
        let ring = |base, entries, size| base != 0 && is_valid_ring(&self.memory, base, entries, size);
        let valid = !self.closed.load(Ordering::Acquire)
            && registers.cc & CC_FORMAT == 0
            && (registers.phase == Phase::Disabled || self.finish_reset())
            && sizes.contains(&submission)
            && sizes.contains(&completion)
            && ring(registers.asq, submission, COMMAND_SIZE as u64)
            && ring(registers.acq, completion, COMPLETION_SIZE);
        registers.shutdown_complete = false;
        if !valid {
            self.fail();
            return;
        }
        if let Some(mut slot) = self.slot(0) {
            slot.queue = Some(SubmissionQueue::new(registers.asq, submission, 0));
        }
        if let Some(queue) = self.completions.first() {
            *lock(queue) = Some(CompletionQueue::new(registers.acq, completion, Some(0)));
        }
        registers.phase = Phase::Enabled;
        self.ready.store(true, Ordering::Release);
    }

    fn reset(&self, registers: &mut Registers) {
        self.not_ready();
        let mut admin = lock(&self.admin);
        for slot in &self.submissions {
            if let Some(queue) = lock(slot).queue.as_mut() {
                queue.stopped = true;
                queue.delete = None;
            }
        }
        for queue in &self.completions {
            *lock(queue) = None;
        }
        *admin = Admin::default();
        self.shadow.set(0, 0);
        self.write_cache.store(true, Ordering::Relaxed);
        self.fatal.store(false, Ordering::Release);
        registers.shutdown_complete = false;
        registers.phase = if self.finish_reset() { Phase::Disabled } else { Phase::Resetting };
    }

    /// Take no more commands, and wait until those in flight are done: then the host's disk does not write to guest memory
    /// any more, and the guest may be told that the controller is gone. A command that takes longer than `patience` is
    /// left behind.
    pub fn close(&self, patience: Duration) {
        {
            let _registers = lock(&self.registers);
            self.closed.store(true, Ordering::Release);
            self.not_ready();
        }
        // Whoever does admin commands looks at `ready` before the next one.
        drop(lock(&self.admin));
        let deadline = Instant::now() + patience;
        while self.in_flight() > 0 {
            if Instant::now() >= deadline {
                log::warn!("a volume was taken away with commands in flight: the host's disk does not answer");
                return;
            }
            std::thread::sleep(IN_FLIGHT_POLL);
        }
    }

    /// Drop the stopped queues that have nothing in flight; `true` if that is all of them.
    fn finish_reset(&self) -> bool {
        let mut finished = true;
        for slot in &self.submissions {
            let mut slot = lock(slot);
            match &slot.queue {
                Some(queue) if queue.in_flight > 0 => finished = false,
                _ => slot.queue = None,
            }
        }
        finished
    }
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
