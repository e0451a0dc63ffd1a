//! The registers behind the ACPI generic event device (ACPI 6.5 §5.6.9): what happened, for the device's `_EVT` method to read,
//! and PCI slots to eject, for `_EJ0` to write.
//!
//! ```text
//! 0  read: bit 0 the power button was pressed; clears
//! 4  read: a bit for each slot of bus 0 with something new in it; clears
//! 8  read: a bit for each slot whose device the guest shall let go of; clears
//! 12 write: a bit for each slot that the guest has let go of
//! ```
//!
//! Four ports each, to be accessed as a whole. The interrupt is level-triggered and raised as long as there is something to
//! be read: what happens before the guest has a driver for it is not lost.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use crate::vmm::device::{Action, BusDevice};
use crate::vmm::interrupt::LevelLine;

/// Ports taken.
pub const PORTS: u16 = 16;
/// Offset of the register with the power button.
pub const BUTTONS: u64 = 0;
/// The power button's bit.
pub const POWER_BUTTON: u32 = 1;
/// Offset of the register with the slots to be looked at.
pub const PLUGGED: u64 = 4;
/// Offset of the register with the slots to be let go of.
pub const EJECT_REQUESTED: u64 = 8;
/// Offset of the register that takes the slots that were let go of.
pub const EJECT: u64 = 12;

/// What the guest has not read yet.
#[derive(Debug, Default)]
struct Pending {
    buttons: u32,
    plugged: u32,
    eject_requested: u32,
}

/// Events on their way to the guest, from any thread.
pub struct Events {
    pending: Mutex<Pending>,
    line: Box<dyn LevelLine>,
}

impl Events {
    /// Nothing has happened yet; `line` is lowered.
    pub fn new(line: Box<dyn LevelLine>) -> Self {
        Self { pending: Mutex::default(), line }
    }

    /// The power button was pressed.
    pub fn press_power_button(&self) {
        self.change(|pending| pending.buttons |= POWER_BUTTON);
    }

    /// There is something new in `slot` (0 to 31).
    pub fn plugged(&self, slot: u8) {
        self.change(|pending| pending.plugged |= slot_bit(slot));
    }

    /// The guest shall let go of what is in `slot` (0 to 31).
    pub fn request_eject(&self, slot: u8) {
        self.change(|pending| pending.eject_requested |= slot_bit(slot));
    }

    /// Change what is pending, and the line with it.
    fn change<T>(&self, change: impl FnOnce(&mut Pending) -> T) -> T {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let something = |p: &Pending| p.buttons | p.plugged | p.eject_requested != 0;
        let before = something(&pending);
        let result = change(&mut pending);
        let after = something(&pending);
        if before != after {
            // With the lock held: the line always ends as the registers do.
            self.line.set(after);
        }
        result
    }
}

fn slot_bit(slot: u8) -> u32 {
    1u32.checked_shl(slot.into()).unwrap_or(0)
}

/// The registers, as a device on the port bus.
pub struct EventRegisters {
    events: Arc<Events>,
    /// Takes the slots that the guest writes.
    eject: Box<dyn Fn(u32) + Send>,
}

impl EventRegisters {
    /// The registers for `events`. `eject` gets a bit for each slot that the guest has let go of, whatever is in there.
    pub fn new(events: Arc<Events>, eject: impl Fn(u32) + Send + 'static) -> Self {
        Self { events, eject: Box::new(eject) }
    }
}

impl BusDevice for EventRegisters {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xFF);
        let Ok(data) = <&mut [u8; 4]>::try_from(data) else { return };
        let value = match offset {
            BUTTONS => self.events.change(|pending| std::mem::take(&mut pending.buttons)),
            PLUGGED => self.events.change(|pending| std::mem::take(&mut pending.plugged)),
            EJECT_REQUESTED => self.events.change(|pending| std::mem::take(&mut pending.eject_requested)),
            EJECT => 0,
            _ => return,
        };
        *data = value.to_le_bytes();
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if let (EJECT, Ok(slots)) = (offset, <[u8; 4]>::try_from(data)) {
            (self.eject)(u32::from_le_bytes(slots));
        }
        Action::None
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
