//! The NVM command set (§6): Read, Write, Flush, Write Zeroes and Dataset Management on the one namespace.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vm_memory::VolatileSlice;

use super::controller::Controller;
use super::prp;
use super::spec::{ALL_NAMESPACES, Answer, Command, MAX_TRANSFER, NAMESPACE, Status, io_opcode};
use crate::vmm::backend::{BLOCK_SIZE, Wait};

const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;
const RANGE_SIZE: usize = 16;
const MAX_RANGES: usize = 256;

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is done.
    Done(Answer),
    /// It would have to wait for the disk, and nothing happened.
    WouldBlock,
}

/// Do an I/O command of submission queue `id`. Without `may_wait`, commands are tried that are at hand or likely to be
/// quick, and left alone otherwise.
pub(super) fn execute(controller: &Controller, id: u16, command: &Command, may_wait: bool) -> Attempt {
    let io = Io { controller, id, command, may_wait };
    io.dispatch().unwrap_or_else(|status| Attempt::Done(status.into()))
}

/// The bytes that a Read or Write moves; 0 for others.
pub(super) fn transfer_length(command: &Command) -> u64 {
    match command.opcode() {
        io_opcode::READ | io_opcode::WRITE => (u64::from(command.dword::<12>() & 0xffff) + 1) * BLOCK_SIZE,
        _ => 0,
    }
}

struct Io<'a> {
    controller: &'a Controller,
    id: u16,
    command: &'a Command,
    may_wait: bool,
}

type Outcome = Result<Attempt, Status>;
const SUCCESS: Outcome = Ok(Attempt::Done(Answer { status: Status::SUCCESS, result: 0 }));

impl Io<'_> {
    fn dispatch(&self) -> Outcome {
        let command = self.command;
        if command.has_unsupported_flags() {
            return Err(Status::INVALID_FIELD);
        }
        let flush = command.opcode() == io_opcode::FLUSH;
        if command.nsid() != NAMESPACE && !(flush && command.nsid() == ALL_NAMESPACES) {
            return Err(Status::INVALID_NAMESPACE);
        }
        match command.opcode() {
            io_opcode::READ => self.read(),
            io_opcode::WRITE => self.write(),
            io_opcode::FLUSH => self.flush(),
            io_opcode::WRITE_ZEROES if self.may_wait => self.write_zeroes(),
            io_opcode::DATASET_MANAGEMENT if self.may_wait => self.dataset_management(),
            io_opcode::WRITE_ZEROES | io_opcode::DATASET_MANAGEMENT => Ok(Attempt::WouldBlock),
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    /// Byte offset and length of the command's blocks.
    fn range(&self) -> Result<(u64, u64), Status> {
        self.checked_range(self.command.slba(), u64::from(self.command.dword::<12>() & 0xffff) + 1)
    }

    fn checked_range(&self, start: u64, blocks: u64) -> Result<(u64, u64), Status> {
        let end = start.checked_add(blocks).ok_or(Status::LBA_OUT_OF_RANGE)?;
        if end > self.controller.backend.size() / BLOCK_SIZE {
            return Err(Status::LBA_OUT_OF_RANGE);
        }
        Ok((start * BLOCK_SIZE, blocks * BLOCK_SIZE))
    }

    fn read(&self) -> Outcome {
        let (offset, length) = self.transfer_range()?;
        let (backend, pace) = (&self.controller.backend, &self.controller.paces.read);
        prp::with_slices(&self.controller.memory, self.command, length, |slices| {
            self.transfer(slices, length, pace, Status::UNRECOVERED_READ_ERROR, |slices, wait| {
                backend.read(slices, offset, wait)
            })
        })
    }

    fn write(&self) -> Outcome {
        let (offset, length) = self.transfer_range()?;
        let durable = self.must_be_durable();
        if durable && !self.may_wait && !self.controller.paces.flush.is_quick() {
            return Ok(Attempt::WouldBlock);
        }
        let (backend, pace) = (&self.controller.backend, &self.controller.paces.write);
        let attempt = prp::with_slices(&self.controller.memory, self.command, length, |slices| {
            self.transfer(slices, length, pace, Status::WRITE_FAULT, |slices, wait| backend.write(slices, offset, wait))
        })?;
        if durable && attempt != Attempt::WouldBlock { self.flush_now() } else { Ok(attempt) }
    }

    fn transfer_range(&self) -> Result<(u64, u64), Status> {
        let (offset, length) = self.range()?;
        if length > MAX_TRANSFER { Err(Status::INVALID_FIELD) } else { Ok((offset, length)) }
    }

    fn transfer(
        &self,
        slices: &[VolatileSlice<'_>],
        length: u64,
        pace: &super::pace::Pace,
        failure: Status,
        access: impl FnOnce(&[VolatileSlice<'_>], Wait) -> io::Result<()>,
    ) -> Outcome {
        let wait = if self.may_wait || pace.is_quick() { Wait::Allowed } else { Wait::Never };
        let start = Instant::now();
        match access(slices, wait) {
            Ok(()) => {}
            Err(error) if wait == Wait::Never && error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Attempt::WouldBlock);
            }
            Err(error) => return Err(self.failed(&error, failure)),
        }
        let time = start.elapsed();
        if wait == Wait::Allowed {
            pace.note(time, length);
        }
        if let Some(statistics) = self.controller.statistics.get(usize::from(self.id)) {
            let reads = self.command.opcode() == io_opcode::READ;
            if reads { &statistics.read } else { &statistics.write }.count(length, time);
        }
        SUCCESS
    }

    /// Force Unit Access, or no write cache.
    fn must_be_durable(&self) -> bool {
        self.command.dword::<12>() & FORCE_UNIT_ACCESS != 0 || !self.controller.write_cache.load(Ordering::Relaxed)
    }

    fn flush(&self) -> Outcome {
        if !self.may_wait && !self.controller.paces.flush.is_quick() {
            return Ok(Attempt::WouldBlock);
        }
        self.flush_now()
    }

    fn flush_now(&self) -> Outcome {
        let start = Instant::now();
        self.controller.backend.flush().map_err(|error| self.failed(&error, Status::WRITE_FAULT))?;
        self.controller.paces.flush.note(start.elapsed(), 0);
        SUCCESS
    }

    fn write_zeroes(&self) -> Outcome {
        let (offset, length) = self.range()?;
        let deallocate = self.command.dword::<12>() & DEALLOCATE != 0;
        let result = self.controller.backend.write_zeroes(offset, length, deallocate);
        result.map_err(|error| self.failed(&error, Status::WRITE_FAULT))?;
        if self.must_be_durable() { self.flush_now() } else { SUCCESS }
    }

    fn dataset_management(&self) -> Outcome {
        let count = (self.command.dword::<10>() & 0xff) as usize + 1;
        if self.command.dword::<11>() & ATTRIBUTE_DEALLOCATE == 0 {
            // The other attributes are hints.
            return SUCCESS;
        }
        let mut bytes = [0; MAX_RANGES * RANGE_SIZE];
        let bytes = &mut bytes[..count * RANGE_SIZE];
        prp::read(&self.controller.memory, self.command, bytes)?;
        let (ranges, _) = bytes.as_chunks::<RANGE_SIZE>();
        for range in ranges {
            let value = u128::from_le_bytes(*range);
            let (blocks, start) = ((value >> 32) as u32, (value >> 64) as u64);
            let (offset, length) = self.checked_range(start, blocks.into())?;
            if length == 0 {
                continue;
            }
            match self.controller.backend.discard(offset, length) {
                // The command is advice: a disk that can't take it is as good.
                Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                    return Err(self.failed(&error, Status::WRITE_FAULT));
                }
                _ => {}
            }
        }
        SUCCESS
    }

    /// The status for an error of the back end.
    fn failed(&self, error: &io::Error, status: Status) -> Status {
        if !self.controller.complained.swap(true, Ordering::Relaxed) {
            log::warn!("the disk behind an NVMe volume fails, and the guest is told so: {error}");
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::CAPACITY_EXCEEDED,
            _ => status,
        }
    }
}

#[cfg(test)]
#[path = "nvm_tests.rs"]
mod tests;
