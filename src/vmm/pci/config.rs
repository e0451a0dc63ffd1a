//! Configuration space of a type 0 function (PCI Local Bus 3.0 §6.1, 6.2 and 6.7).
//!
//! Two byte arrays do it all: what the registers read as, and which of their bits the guest may change. A BAR of
//! size `s` has the address bits below `s` fixed to zero, so that the guest's sizing (write ones, read back) needs no
//! code of its own.
#![forbid(unsafe_code)]

use std::io;

use thiserror::Error;

/// Bytes of a function's configuration space, with the extended part that only ECAM reaches.
pub const CONFIG_SPACE_SIZE: u16 = 4096;
/// BARs of a type 0 function.
pub const BAR_COUNT: usize = 6;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CACHE_LINE_SIZE: usize = 0x0c;
const BAR_0: usize = 0x10;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const FIRST_CAPABILITY: usize = 0x40;
const END_OF_CAPABILITIES: usize = 0x100;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Memory decoding, bus master, parity response, SERR# and interrupt disable. There are no I/O BARs.
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | COMMAND_BUS_MASTER | 1 << 6 | 1 << 8 | 1 << 10;
const STATUS_CAPABILITIES_LIST: u8 = 1 << 4;

const BAR_64_BIT: u8 = 0b100;
const BAR_PREFETCHABLE: u8 = 0b1000;
/// A smaller BAR would share a page of the guest's address space with its neighbour.
const MIN_BAR_SIZE: u64 = 4096;

/// A mistake in a function's layout: the device's code is wrong, not the guest.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The BAR does not exist, or it is in use.
    #[error("BAR {0} does not exist or is taken")]
    BarTaken(usize),
    /// The size is not a power of two from 4 KiB that the BAR's address width can hold.
    #[error("BAR {index} can't have {size:#x} bytes: not a power of two from 4 KiB up, or too large for its kind")]
    BarSize {
        /// The BAR.
        index: usize,
        /// Its size in bytes.
        size: u64,
    },
    /// The first 256 bytes are used up.
    #[error("no room for a capability of {0} bytes")]
    NoRoom(usize),
}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Who the function says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Base class, sub-class and programming interface: `0x01_08_02` is NVM Express.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

/// What a memory BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// A 32-bit address.
    Mmio32,
    /// A 64-bit address; takes two registers.
    Mmio64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    size: u64,
    kind: BarKind,
}

/// The registers of one function. Memory decoding is off and BARs are unassigned until firmware (the machine) and the
/// guest set them.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    /// What registers read as.
    registers: Vec<u8>,
    /// Bits that the guest may change.
    writable: Vec<u8>,
    bars: [Option<Bar>; BAR_COUNT],
    /// Where the next capability goes, and where the pointer to it is.
    next_capability: usize,
    link: usize,
}

impl ConfigSpace {
    /// A function with no BAR and no capability. It has no interrupt pin: functions here use MSI-X.
    pub fn new(identity: Identity) -> Self {
        let mut config = ConfigSpace {
            registers: vec![0; usize::from(CONFIG_SPACE_SIZE)],
            writable: vec![0; usize::from(CONFIG_SPACE_SIZE)],
            bars: [None; BAR_COUNT],
            next_capability: FIRST_CAPABILITY,
            link: CAPABILITIES_POINTER,
        };
        config.set(0x00, &identity.vendor.to_le_bytes());
        config.set(0x02, &identity.device.to_le_bytes());
        config.set(0x08, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes());
        config.set(0x2c, &identity.subsystem_vendor.to_le_bytes());
        config.set(0x2e, &identity.subsystem.to_le_bytes());
        config.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        config.allow(CACHE_LINE_SIZE, &[0xff]);
        config.allow(INTERRUPT_LINE, &[0xff]);
        config
    }

    /// Add BAR `index` of `size` bytes: a power of two, at least 4 KiB.
    pub fn add_bar(&mut self, index: usize, size: u64, kind: BarKind) -> Result<(), ConfigError> {
        let registers = if kind == BarKind::Mmio32 { 1 } else { 2 };
        let upper_half_of_previous =
            index.checked_sub(1).is_some_and(|i| matches!(self.bar(i), Some(Bar { kind: BarKind::Mmio64 { .. }, .. })));
        if index + registers > BAR_COUNT
            || upper_half_of_previous
            || self.bars[index..index + registers].iter().any(Option::is_some)
        {
            return Err(ConfigError::BarTaken(index));
        }
        let largest = if kind == BarKind::Mmio32 { 1 << 31 } else { 1 << 62 };
        if !size.is_power_of_two() || !(MIN_BAR_SIZE..=largest).contains(&size) {
            return Err(ConfigError::BarSize { index, size });
        }
        let address_bits = !(size - 1);
        let at = BAR_0 + 4 * index;
        self.allow(at, &(address_bits as u32).to_le_bytes());
        if let BarKind::Mmio64 { prefetchable } = kind {
            self.allow(at + 4, &((address_bits >> 32) as u32).to_le_bytes());
            self.set(at, &[BAR_64_BIT | if prefetchable { BAR_PREFETCHABLE } else { 0 }]);
        }
        self.bars[index] = Some(Bar { size, kind });
        Ok(())
    }

    /// Append a capability to the list and answer its offset. `body` is what follows the id and the next pointer;
    /// `writable` are the bits of it that the guest may change (bytes that it lacks are read-only).
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u16, ConfigError> {
        let offset = self.next_capability;
        let end = offset + 2 + body.len();
        if end > END_OF_CAPABILITIES || writable.len() > body.len() {
            return Err(ConfigError::NoRoom(body.len()));
        }
        self.set(offset, &[id, 0]);
        self.set(offset + 2, body);
        self.allow(offset + 2, writable);
        self.set(self.link, &[offset as u8]);
        self.registers[STATUS] |= STATUS_CAPABILITIES_LIST;
        self.link = offset + 1;
        self.next_capability = end.next_multiple_of(4);
        Ok(offset as u16)
    }

    /// Fill `data` from `offset`. What lies beyond the end reads as ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = self.registers.get(usize::from(offset) + i).copied().unwrap_or(0xff);
        }
    }

    /// The guest writes `data` at `offset`; only writable bits change.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (i, value) in data.iter().enumerate() {
            let at = usize::from(offset) + i;
            if let (Some(register), Some(mask)) = (self.registers.get_mut(at), self.writable.get(at)) {
                *register = *register & !mask | value & mask;
            }
        }
    }

    /// Two bytes at `offset`, little-endian.
    pub fn read_u16(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    /// Four bytes at `offset`, little-endian.
    pub fn read_u32(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Where BAR `index` is decoded; `None` while memory decoding is off, and for a BAR that does not exist. The guest
    /// chooses the address: it may lie anywhere, but is a multiple of the BAR's size.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let bar = self.bar(index)?;
        if self.read_u16(COMMAND as u16) & COMMAND_MEMORY == 0 {
            return None;
        }
        let at = (BAR_0 + 4 * index) as u16;
        let low = u64::from(self.read_u32(at) & !0xf);
        Some(match bar.kind {
            BarKind::Mmio32 => low,
            BarKind::Mmio64 { .. } => low | u64::from(self.read_u32(at + 4)) << 32,
        })
    }

    /// Assign an address to BAR `index`, as firmware does. Bits that the BAR does not decode are dropped.
    pub fn set_bar_address(&mut self, index: usize, address: u64) {
        let at = (BAR_0 + 4 * index) as u16;
        match self.bar(index).map(|bar| bar.kind) {
            Some(BarKind::Mmio32) => self.write(at, &(address as u32).to_le_bytes()),
            Some(BarKind::Mmio64 { .. }) => self.write(at, &address.to_le_bytes()),
            None => {}
        }
    }

    /// Bytes of BAR `index`, if it exists.
    pub fn bar_size(&self, index: usize) -> Option<u64> {
        self.bar(index).map(|bar| bar.size)
    }

    /// The kind of BAR `index`, if it exists.
    pub fn bar_kind(&self, index: usize) -> Option<BarKind> {
        self.bar(index).map(|bar| bar.kind)
    }

    /// Whether the guest lets the function read and write memory.
    pub fn bus_master(&self) -> bool {
        self.read_u16(COMMAND as u16) & COMMAND_BUS_MASTER != 0
    }

    fn bar(&self, index: usize) -> Option<Bar> {
        self.bars.get(index).copied().flatten()
    }

    /// Set registers at construction.
    fn set(&mut self, offset: usize, data: &[u8]) {
        self.registers[offset..offset + data.len()].copy_from_slice(data);
    }

    /// Let the guest write bits, at construction.
    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
