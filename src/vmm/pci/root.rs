//! The PCI root: bus 0 with a host bridge in slot 0, reached by ECAM (PCI Express Base 4.0 §7.2.2) and by configuration
//! mechanism #1 (PCI Local Bus 3.0 §3.2.2.3.2), and the map of memory BARs.
//!
//! Several vCPUs access at once. A function's lock is held for one access to that function; the map's for a look-up.
//! The order is function, then map; no function's lock is taken with the map's held.
//!
//! The guest may place BARs anywhere. Only those wholly inside the machine's windows and clear of the others are decoded;
//! where two overlap, the lower slot wins. A BAR moved out of the way lets the other one appear.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use thiserror::Error;

use super::config::{BAR_COUNT, BarKind, ConfigSpace, Identity};
use super::{DirectWrites, Doorbell, PciFunction};

/// Slots of the bus.
pub const SLOTS: u8 = 32;
/// Bytes of ECAM space for one bus.
pub const ECAM_BUS_SIZE: u64 = 1 << 20;
/// The address port of configuration mechanism #1; four data ports follow at 0xcfc.
pub const CONFIG_ADDRESS_PORT: u16 = 0xcf8;
const CONFIG_DATA_PORT: u16 = 0xcfc;
const CONFIG_ENABLE: u32 = 1 << 31;

/// Intel 440FX, as on Nitro. No Linux driver binds to it.
const HOST_BRIDGE: Identity = Identity {
    vendor: 0x8086,
    device: 0x1237,
    class: 0x06_00_00,
    revision: 2,
    subsystem_vendor: 0x1d0f,
    subsystem: 0x1237,
};

/// Why a function can't be added.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RootError {
    /// Slot 0 is the host bridge's, and there are 32.
    #[error("PCI slot {0} is taken or does not exist")]
    SlotTaken(u8),
    /// The window for BARs of this kind is full.
    #[error("no address left for BAR {bar} ({size:#x} bytes) of PCI slot {slot}")]
    NoAddress {
        /// The function's slot.
        slot: u8,
        /// The BAR.
        bar: usize,
        /// Its size in bytes.
        size: u64,
    },
}

impl From<RootError> for io::Error {
    fn from(error: RootError) -> Self {
        io::Error::other(error)
    }
}

/// Turns writes to guest-physical addresses into eventfds (`KVM_IOEVENTFD`). Where that fails, the write reaches the
/// function's [`PciFunction::write_bar`], which must do the same.
pub trait IoEventFds: Send + Sync {
    /// Signal the doorbell on writes to `address`.
    fn register(&self, address: u64, doorbell: &Doorbell) -> io::Result<()>;
    /// Undo [`register`](Self::register).
    fn unregister(&self, address: u64, doorbell: &Doorbell) -> io::Result<()>;
}

/// No eventfds: every write goes to the function.
#[derive(Debug)]
pub struct NoIoEventFds;

impl IoEventFds for NoIoEventFds {
    fn register(&self, _: u64, _: &Doorbell) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn unregister(&self, _: u64, _: &Doorbell) -> io::Result<()> {
        Ok(())
    }
}

type Function = Arc<Mutex<dyn PciFunction>>;

/// A BAR's name: slot and index.
type BarId = (u8, usize);

/// A decoded BAR.
#[derive(Clone)]
struct Mapping {
    range: Range<u64>,
    id: BarId,
    /// In front of the function, to be dropped before it.
    direct: Option<Arc<dyn DirectWrites>>,
    function: Function,
}

/// A function with what it said once.
struct Occupant {
    function: Function,
    doorbells: Vec<Doorbell>,
    direct: Option<Arc<dyn DirectWrites>>,
}

#[derive(Default)]
struct Map {
    slots: BTreeMap<u8, Occupant>,
    /// Where the guest wants each BAR whose function decodes memory.
    wanted: BTreeMap<BarId, Range<u64>>,
    /// Those that are decoded, by address.
    decoded: Vec<Mapping>,
    /// Registered doorbells: address and doorbell.
    registered: BTreeMap<BarId, Vec<(u64, Doorbell)>>,
}

/// Bus 0 and its functions.
pub struct PciRoot {
    windows: [Range<u64>; 2],
    /// What is left of the windows for BARs to be added.
    free: Mutex<[Range<u64>; 2]>,
    map: RwLock<Map>,
    config_address: AtomicU32,
    eventfds: Arc<dyn IoEventFds>,
}

impl PciRoot {
    /// A bus whose BARs may lie in `mmio32` (below 4 GiB) and `mmio64` (may be empty; then 64-bit BARs go to `mmio32`).
    pub fn new(mmio32: Range<u64>, mmio64: Range<u64>, eventfds: Arc<dyn IoEventFds>) -> Self {
        let windows = [mmio32, mmio64];
        let root = PciRoot {
            free: Mutex::new(windows.clone()),
            windows,
            map: RwLock::default(),
            config_address: AtomicU32::new(0),
            eventfds,
        };
        let bridge = HostBridge { config: ConfigSpace::new(HOST_BRIDGE) };
        let occupant = Occupant { function: Arc::new(Mutex::new(bridge)), doorbells: Vec::new(), direct: None };
        root.write_map().slots.insert(0, occupant);
        root
    }

    /// Put a function into a slot (1 to 31) and assign addresses to its BARs. It decodes them when the guest switches
    /// memory decoding on.
    pub fn add(&self, slot: u8, function: Function) -> Result<(), RootError> {
        {
            let mut guard = lock(&function);
            for bar in 0..BAR_COUNT {
                if let (Some(size), Some(kind)) = (guard.config().bar_size(bar), guard.config().bar_kind(bar)) {
                    let address = self.allocate(size, kind).ok_or(RootError::NoAddress { slot, bar, size })?;
                    guard.config_mut().set_bar_address(bar, address);
                }
            }
        }
        self.plug(slot, function)
    }

    /// Put a function into a slot (1 to 31) of a bus in use: the guest assigns addresses to its BARs.
    pub fn plug(&self, slot: u8, function: Function) -> Result<(), RootError> {
        let (doorbells, direct) = {
            let guard = lock(&function);
            (guard.doorbells(), guard.direct_writes())
        };
        let mut map = self.write_map();
        if slot >= SLOTS || map.slots.contains_key(&slot) {
            return Err(RootError::SlotTaken(slot));
        }
        map.slots.insert(slot, Occupant { function, doorbells, direct });
        Ok(())
    }

    /// Take the function in a slot (1 to 31) off the bus: from now on the slot reads as all ones. A vCPU may still be in the
    /// middle of an access; it holds on to the function until then.
    pub fn remove(&self, slot: u8) -> Option<Function> {
        let mut map = self.write_map();
        let occupant = if slot == 0 { None } else { map.slots.remove(&slot) }?;
        map.wanted.retain(|id, _| id.0 != slot);
        self.rebuild(&mut map);
        Some(occupant.function)
    }

    fn allocate(&self, size: u64, kind: BarKind) -> Option<u64> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let [free32, free64] = &mut *free;
        let window = if kind == BarKind::Mmio32 || free64.is_empty() { free32 } else { free64 };
        let start = window.start.checked_next_multiple_of(size)?;
        let end = start.checked_add(size).filter(|end| *end <= window.end)?;
        window.start = end;
        Some(start)
    }

    /// Fill `data` from `offset` in the ECAM window. Absent functions read as ones.
    pub fn ecam_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some((slot, register)) = ecam_target(offset) else { return };
        self.config_read(slot, register, data);
    }

    /// Write `data` at `offset` in the ECAM window.
    pub fn ecam_write(&self, offset: u64, data: &[u8]) {
        let Some((slot, register)) = ecam_target(offset) else { return };
        self.config_write(slot, register, data);
    }

    /// Fill `data` from I/O port 0xcf8 to 0xcff.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if port == CONFIG_ADDRESS_PORT && data.len() == 4 {
            data.copy_from_slice(&self.config_address.load(Ordering::SeqCst).to_le_bytes());
        } else if let Some((slot, register)) = self.port_target(port, data.len()) {
            self.config_read(slot, register, data);
        }
    }

    /// Write `data` to I/O port 0xcf8 to 0xcff.
    pub fn port_write(&self, port: u16, data: &[u8]) {
        if let (CONFIG_ADDRESS_PORT, Ok(value)) = (port, <[u8; 4]>::try_from(data)) {
            self.config_address.store(u32::from_le_bytes(value) & 0x80ff_fffc, Ordering::SeqCst);
        } else if let Some((slot, register)) = self.port_target(port, data.len()) {
            self.config_write(slot, register, data);
        }
    }

    /// Slot and register that an access to a data port goes to.
    fn port_target(&self, port: u16, length: usize) -> Option<(u8, u16)> {
        let byte = port.checked_sub(CONFIG_DATA_PORT).filter(|byte| usize::from(*byte) + length <= 4)?;
        let address = self.config_address.load(Ordering::SeqCst);
        let (bus, function) = (address >> 16 & 0xff, address >> 8 & 7);
        let present = address & CONFIG_ENABLE != 0 && bus == 0 && function == 0;
        present.then_some(((address >> 11 & 0x1f) as u8, (address & 0xfc) as u16 + byte))
    }

    fn function(&self, slot: u8) -> Option<Function> {
        self.read_map(|map| map.slots.get(&slot).map(|occupant| Arc::clone(&occupant.function)))
    }

    fn config_read(&self, slot: u8, register: u16, data: &mut [u8]) {
        let Some(function) = self.function(slot) else { return };
        let mut function = lock(&function);
        for (at, range) in words(register, data.len()) {
            function.read_config(at, &mut data[range]);
        }
    }

    fn config_write(&self, slot: u8, register: u16, data: &[u8]) {
        let Some(shared) = self.function(slot) else { return };
        let mut function = lock(&shared);
        for (at, range) in words(register, data.len()) {
            function.write_config(at, &data[range]);
        }
        self.remap(slot, &shared, function.config());
    }

    /// Take over where a function's BARs are now. Called with the function's lock held, so that the map always ends as
    /// its registers do. A function that was taken off the bus meanwhile changes nothing.
    fn remap(&self, slot: u8, function: &Function, config: &ConfigSpace) {
        let present = |map: &Map| map.slots.get(&slot).is_some_and(|o| Arc::ptr_eq(&o.function, function));
        let wanted: [Option<Range<u64>>; BAR_COUNT] = std::array::from_fn(|bar| {
            let start = config.bar_address(bar)?;
            Some(start..start.checked_add(config.bar_size(bar)?)?)
        });
        let unchanged = self.read_map(|map| {
            let as_before = |(bar, range): (usize, &Option<_>)| map.wanted.get(&(slot, bar)) == range.as_ref();
            !present(map) || wanted.iter().enumerate().all(as_before)
        });
        if unchanged {
            return;
        }
        let mut map = self.write_map();
        if !present(&map) {
            return;
        }
        for (bar, range) in wanted.into_iter().enumerate() {
            match range {
                Some(range) => map.wanted.insert((slot, bar), range),
                None => map.wanted.remove(&(slot, bar)),
            };
        }
        self.rebuild(&mut map);
    }

    fn rebuild(&self, map: &mut Map) {
        let mut decoded: Vec<Mapping> = Vec::with_capacity(map.wanted.len());
        for (id, range) in &map.wanted {
            let inside = self.windows.iter().any(|w| w.start <= range.start && range.end <= w.end);
            let clear = decoded.iter().all(|m| range.end <= m.range.start || m.range.end <= range.start);
            let Some(occupant) = map.slots.get(&id.0).filter(|_| inside && clear) else { continue };
            let (function, direct) = (Arc::clone(&occupant.function), occupant.direct.clone());
            decoded.push(Mapping { range: range.clone(), id: *id, function, direct });
        }
        decoded.sort_by_key(|m| m.range.start);

        let stays = |old: &Mapping| decoded.iter().any(|new| new.id == old.id && new.range == old.range);
        for gone in map.decoded.iter().filter(|old| !stays(old)) {
            self.unregister(map.registered.remove(&gone.id).unwrap_or_default());
        }
        for mapping in &decoded {
            if map.registered.contains_key(&mapping.id) {
                continue;
            }
            let doorbells = map.slots.get(&mapping.id.0).map_or(&[][..], |o| &o.doorbells);
            map.registered.insert(mapping.id, self.register(mapping, doorbells));
        }
        map.decoded = decoded;
    }

    fn register(&self, mapping: &Mapping, doorbells: &[Doorbell]) -> Vec<(u64, Doorbell)> {
        let mut registered = Vec::new();
        for doorbell in doorbells.iter().filter(|d| d.bar == mapping.id.1) {
            let Some(address) = mapping.range.start.checked_add(doorbell.offset) else { continue };
            match self.eventfds.register(address, doorbell) {
                Ok(()) => registered.push((address, doorbell.clone())),
                Err(error) => log::debug!("doorbell at {address:#x} takes the slow way: {error}"),
            }
        }
        registered
    }

    fn unregister(&self, doorbells: Vec<(u64, Doorbell)>) {
        for (address, doorbell) in doorbells {
            if let Err(error) = self.eventfds.unregister(address, &doorbell) {
                log::warn!("can't take back the doorbell at {address:#x}: {error}");
            }
        }
    }

    /// Fill `data` from a BAR; `false` if no function decodes the whole of it.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) -> bool {
        let Some((mapping, offset)) = self.target(address, data.len()) else { return false };
        lock(&mapping.function).read_bar(mapping.id.1, offset, data);
        true
    }

    /// Write `data` to a BAR; `false` if no function decodes the whole of it.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> bool {
        let Some((mapping, offset)) = self.target(address, data.len()) else { return false };
        let bar = mapping.id.1;
        if !mapping.direct.is_some_and(|direct| direct.write(bar, offset, data)) {
            lock(&mapping.function).write_bar(bar, offset, data);
        }
        true
    }

    /// The mapping that decodes the whole access, and the offset in its BAR.
    fn target(&self, address: u64, length: usize) -> Option<(Mapping, u64)> {
        let end = address.checked_add(length as u64)?;
        self.read_map(|map| {
            let next = map.decoded.partition_point(|m| m.range.start <= address);
            let mapping = map.decoded.get(next.checked_sub(1)?)?;
            (end <= mapping.range.end).then(|| (mapping.clone(), address - mapping.range.start))
        })
    }

    /// Shut every function down, once the vCPUs have stopped.
    pub fn shutdown(&self) {
        let functions: Vec<Function> =
            self.read_map(|map| map.slots.values().map(|occupant| Arc::clone(&occupant.function)).collect());
        for function in functions {
            lock(&function).shutdown();
        }
    }

    fn read_map<T>(&self, look: impl FnOnce(&Map) -> T) -> T {
        look(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write_map(&self) -> std::sync::RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(function: &Mutex<dyn PciFunction>) -> MutexGuard<'_, dyn PciFunction + 'static> {
    // A panic in a vCPU thread ends the machine; until then the others need an answer.
    function.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Slot and register behind an ECAM offset, for function 0 of bus 0.
fn ecam_target(offset: u64) -> Option<(u8, u16)> {
    let function = offset >> 12 & 7;
    (offset < ECAM_BUS_SIZE && function == 0).then_some(((offset >> 15) as u8, (offset & 0xfff) as u16))
}

/// Cut an access into pieces that don't cross a multiple of 4: registers, and ranges of the data. What runs over the end
/// of the configuration space is left out.
fn words(register: u16, length: usize) -> impl Iterator<Item = (u16, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = usize::from(register) + done;
        if done >= length || at >= usize::from(super::config::CONFIG_SPACE_SIZE) {
            return None;
        }
        let range = done..length.min(done + 4 - at % 4);
        done = range.end;
        Some((at as u16, range))
    })
}

struct HostBridge {
    config: ConfigSpace,
}

impl PciFunction for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn read_bar(&mut self, _: usize, _: u64, _: &mut [u8]) {}
    fn write_bar(&mut self, _: usize, _: u64, _: &[u8]) {}
    fn shutdown(&mut self) {}
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
