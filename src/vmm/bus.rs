//! The machine's port and memory buses. What nobody decodes reads as all ones, as on a real bus: zeros make drivers believe
//! in devices that are not there.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use super::device::{Action, BusDevice};

/// A device shared between vCPUs.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// A device that claims addresses by itself, such as the PCI root with its movable BARs.
pub trait Decoder: Send + Sync {
    /// Fill `data` from `address`; `false` if nothing is there.
    fn read(&self, address: u64, data: &mut [u8]) -> bool;
    /// Write `data` at `address`; `false` if nothing is there.
    fn write(&self, address: u64, data: &[u8]) -> bool;
}

/// Address ranges and their devices.
#[derive(Default)]
pub struct Bus {
    /// (first address, bytes, device), ascending.
    ranges: Vec<(u64, u64, SharedDevice)>,
    decoder: Option<Arc<dyn Decoder>>,
}

impl Bus {
    /// Put `device` at `size` addresses from `start`. Ranges must not overlap: the machine's map is fixed.
    pub fn add(&mut self, start: u64, size: u64, device: SharedDevice) {
        let at = self.ranges.partition_point(|(first, ..)| *first < start);
        debug_assert!(at == 0 || self.ranges[at - 1].0 + self.ranges[at - 1].1 <= start);
        debug_assert!(self.ranges.get(at).is_none_or(|(next, ..)| start + size <= *next));
        self.ranges.insert(at, (start, size, device));
    }

    /// Who is asked for addresses outside the fixed ranges.
    pub fn set_decoder(&mut self, decoder: Arc<dyn Decoder>) {
        self.decoder = Some(decoder);
    }

    /// The device at `address`, and the offset in its range. An access that crosses the range's end is nobody's.
    fn find(&self, address: u64, length: usize) -> Option<(u64, &SharedDevice)> {
        let at = self.ranges.partition_point(|(first, ..)| *first <= address).checked_sub(1)?;
        let (first, size, device) = &self.ranges[at];
        let offset = address - first;
        (offset.checked_add(length as u64)? <= *size).then_some((offset, device))
    }

    /// Fill `data` from `address`.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xFF);
        if let Some((offset, device)) = self.find(address, data.len()) {
            device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        } else if let Some(decoder) = &self.decoder
            && !decoder.read(address, data)
        {
            data.fill(0xFF);
        }
    }

    /// Write `data` at `address`.
    pub fn write(&self, address: u64, data: &[u8]) -> Action {
        if let Some((offset, device)) = self.find(address, data.len()) {
            return device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        }
        if let Some(decoder) = &self.decoder {
            decoder.write(address, data);
        }
        Action::None
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
