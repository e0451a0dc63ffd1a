//! The ACPI sleep and reset registers of a hardware-reduced machine (ACPI 6.5 §4.8.3.6, §4.8.3.7), one port each.

#![forbid(unsafe_code)]

use crate::vmm::device::{Action, BusDevice};

/// Offset of the sleep control register.
pub const SLEEP_CONTROL_OFFSET: u16 = 0;
/// Offset of the sleep status register.
pub const SLEEP_STATUS_OFFSET: u16 = 1;
/// Offset of the reset register.
pub const RESET_OFFSET: u16 = 2;
/// Ports taken.
pub const PORTS: u16 = 3;
/// What is written to the reset register.
pub const RESET_VALUE: u8 = 1;
/// The sleep type of S5 (soft off), as the DSDT's `_S5_` says.
pub const S5_SLEEP_TYPE: u8 = 5;

const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7;

/// The registers. There is no state: S5 and reset end the machine, other sleep states do not exist.
#[derive(Debug, Default)]
pub struct AcpiRegisters;

impl BusDevice for AcpiRegisters {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // Never woken, nothing pending.
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        let &[value] = data else { return Action::None };
        let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        match u16::try_from(offset) {
            Ok(SLEEP_CONTROL_OFFSET) if value & SLEEP_ENABLE != 0 && sleep_type == S5_SLEEP_TYPE => Action::PowerOff,
            Ok(RESET_OFFSET) if value == RESET_VALUE => Action::Reset,
            _ => Action::None,
        }
    }
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
