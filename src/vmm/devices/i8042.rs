//! As much of an i8042 keyboard controller as a reset takes. It is not announced in ACPI: no driver binds to it.

#![forbid(unsafe_code)]

use crate::vmm::device::{Action, BusDevice};

/// "Pulse output port": bit 0 low pulls the processor's reset line.
const PULSE_RESET: u8 = 0xFE;

/// The data or the command port, told apart by `command`.
#[derive(Debug)]
pub struct I8042 {
    /// This is the command port.
    pub command: bool,
}

impl BusDevice for I8042 {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // Both buffers empty: a writer that waits for it may go on.
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Action {
        if self.command && data == [PULSE_RESET] { Action::Reset } else { Action::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_command_port_resets() {
        assert_eq!(I8042 { command: true }.write(0, &[0xFE]), Action::Reset);
        assert_eq!(I8042 { command: true }.write(0, &[0xD1]), Action::None);
        assert_eq!(I8042 { command: false }.write(0, &[0xFE]), Action::None);
        let mut status = [0xFF];
        I8042 { command: true }.read(0, &mut status);
        assert_eq!(status, [0]);
    }
}
