//! Set Features and Get Features (§5.21, §5.14).
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::controller::Controller;
use super::identify::NAMESPACE_NOTICES;
use super::spec::{Command, Status};

mod id {
    pub const ARBITRATION: u8 = 0x01;
    pub const POWER_MANAGEMENT: u8 = 0x02;
    pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
    pub const ERROR_RECOVERY: u8 = 0x05;
    pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    pub const INTERRUPT_COALESCING: u8 = 0x08;
    pub const INTERRUPT_VECTOR: u8 = 0x09;
    pub const WRITE_ATOMICITY: u8 = 0x0a;
    pub const ASYNC_EVENTS: u8 = 0x0b;
}

const SAVE: u32 = 1 << 31;
const POWER_STATE: u32 = 0x1f;

/// Features that are only kept: they guide hardware, or say what the host wants to hear of.
#[derive(Debug, Default)]
pub struct Features {
    arbitration: u32,
    temperature_threshold: u32,
    error_recovery: u32,
    interrupt_coalescing: u32,
    write_atomicity: u32,
    async_events: u32,
}

impl Features {
    /// The host wants to hear of changed namespaces.
    pub fn namespace_notices(&self) -> bool {
        self.async_events & NAMESPACE_NOTICES != 0
    }

    fn kept(&mut self, id: u8) -> Option<&mut u32> {
        Some(match id {
            id::ARBITRATION => &mut self.arbitration,
            id::TEMPERATURE_THRESHOLD => &mut self.temperature_threshold,
            id::ERROR_RECOVERY => &mut self.error_recovery,
            id::INTERRUPT_COALESCING => &mut self.interrupt_coalescing,
            id::WRITE_ATOMICITY => &mut self.write_atomicity,
            id::ASYNC_EVENTS => &mut self.async_events,
            _ => return None,
        })
    }
}

impl Controller {
    pub(super) fn set_feature(&self, features: &mut Features, command: &Command) -> Result<u32, Status> {
        let value = command.dword::<11>();
        let id = command.dword::<10>() as u8;
        if command.dword::<10>() & SAVE != 0 {
            return Err(Status::FEATURE_NOT_SAVEABLE);
        }
        match id {
            // There is one power state.
            id::POWER_MANAGEMENT if value & POWER_STATE == 0 => Ok(0),
            id::VOLATILE_WRITE_CACHE => {
                self.write_cache.store(value & 1 != 0, Ordering::Relaxed);
                Ok(0)
            }
            id::NUMBER_OF_QUEUES if value & 0xffff == 0xffff || value >> 16 == 0xffff => Err(Status::INVALID_FIELD),
            id::NUMBER_OF_QUEUES if self.has_io_queues() => Err(Status::COMMAND_SEQUENCE_ERROR),
            id::NUMBER_OF_QUEUES => Ok(self.number_of_queues()),
            id::INTERRUPT_VECTOR if value & 0xffff <= u32::from(self.io_queues) => Ok(0),
            _ => {
                *features.kept(id).ok_or(Status::INVALID_FIELD)? = value;
                Ok(0)
            }
        }
    }

    pub(super) fn get_feature(&self, features: &mut Features, command: &Command) -> Result<u32, Status> {
        match command.dword::<10>() as u8 {
            id::POWER_MANAGEMENT => Ok(0),
            id::VOLATILE_WRITE_CACHE => Ok(self.write_cache.load(Ordering::Relaxed).into()),
            id::NUMBER_OF_QUEUES => Ok(self.number_of_queues()),
            id::INTERRUPT_VECTOR => {
                let vector = command.dword::<11>() & 0xffff;
                if vector <= u32::from(self.io_queues) { Ok(vector) } else { Err(Status::INVALID_FIELD) }
            }
            id => features.kept(id).map(|value| *value).ok_or(Status::INVALID_FIELD),
        }
    }

    /// Both counts, less one, whatever the host asked for.
    fn number_of_queues(&self) -> u32 {
        let last = u32::from(self.io_queues) - 1;
        last << 16 | last
    }

    fn has_io_queues(&self) -> bool {
        (1..=self.io_queues).any(|id| self.slot(id).is_some_and(|slot| slot.queue.is_some()))
    }
}
