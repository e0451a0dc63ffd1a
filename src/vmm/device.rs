//! The contract of a device on a bus.

/// What a device wants the machine to do after an access. The machine, not the device, acts on it.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Nothing beyond the device's own state.
    #[default]
    None,
    /// The guest powered the machine off.
    PowerOff,
    /// The guest asked for a reset (a reboot).
    Reset,
}

/// A device behind a range of port or memory addresses.
///
/// `offset` counts from the start of the device's range. `data` is 1, 2, 4 or 8 bytes in guest (little-endian) order.
/// Accesses that the device does not decode read as all ones and are ignored on write.
pub trait BusDevice: Send {
    /// Fill `data` from the register at `offset`.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Write `data` to the register at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]) -> Action;
}
