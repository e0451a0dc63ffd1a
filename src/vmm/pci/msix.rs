//! MSI-X: the capability, the vector table and the pending bits of a function (PCI Local Bus 3.0 §6.8.2).
//!
//! The table belongs to the function and changes under its lock. Threads that raise interrupts hold a [`MsixHandle`]
//! and take no lock: a vector that is open costs one atomic load and one write to an eventfd.
//!
//! A line of the machine is allocated when its vector is first unmasked, and routed anew when its message changed.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::config::{ConfigError, ConfigSpace};
use crate::vmm::interrupt::{MsiLine, MsiMessage, MsiRouter};

/// The capability's id.
pub const CAPABILITY_ID: u8 = 0x11;
/// Bytes of a table entry.
pub const ENTRY_SIZE: u64 = 16;
/// The most vectors of a function.
pub const MAX_VECTORS: u16 = 2048;

const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const CONTROL_ENABLE: u16 = 1 << 15;
const VECTOR_MASK: u32 = 1;
/// The lower two bits of a message's address are reserved.
const ADDRESS_BITS: u32 = !0b11;

/// The state that raising an interrupt needs.
struct Vector {
    /// Enabled, unmasked and routed: a signal goes straight to the line.
    open: AtomicBool,
    /// Signalled while masked.
    pending: AtomicBool,
    line: OnceLock<MsiLine>,
}

impl Vector {
    fn fire(&self) {
        if let Some(line) = self.line.get() {
            // It fails only when the counter is full, and then the interrupt is raised already.
            let _ = line.fd.write(1);
        }
    }

    fn fire_if_pending(&self) {
        if self.pending.swap(false, Ordering::SeqCst) {
            self.fire();
        }
    }
}

struct Shared {
    enabled: AtomicBool,
    vectors: Box<[Vector]>,
}

/// Raises a function's interrupts, from any thread.
#[derive(Clone)]
pub struct MsixHandle(Arc<Shared>);

impl MsixHandle {
    /// Raise `vector`. Masked, it stays pending until it is unmasked; while MSI-X is disabled, or for a vector that
    /// does not exist (such as virtio's `NO_VECTOR`), nothing happens.
    pub fn signal(&self, vector: u16) {
        let Some(vector) = self.0.vectors.get(usize::from(vector)) else { return };
        if vector.open.load(Ordering::Acquire) {
            vector.fire();
        } else if self.0.enabled.load(Ordering::SeqCst) {
            vector.pending.store(true, Ordering::SeqCst);
            // The guest may have unmasked it between the two looks; whoever takes the pending bit fires.
            if vector.open.load(Ordering::SeqCst) {
                vector.fire_if_pending();
            }
        }
    }
}

impl fmt::Debug for MsixHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MsixHandle({} vectors)", self.0.vectors.len())
    }
}

#[derive(Clone, Copy)]
struct Entry {
    /// Address low and high, data, vector control: the registers in their order.
    words: [u32; 4],
    /// What the line was last routed to.
    routed: Option<MsiMessage>,
}

impl Entry {
    fn masked(&self) -> bool {
        self.words[3] & VECTOR_MASK != 0
    }

    fn message(&self) -> MsiMessage {
        MsiMessage { address: u64::from(self.words[1]) << 32 | u64::from(self.words[0]), data: self.words[2] }
    }
}

/// A function's MSI-X table and pending bits, both in one BAR.
pub struct Msix {
    shared: Arc<Shared>,
    entries: Vec<Entry>,
    router: Arc<dyn MsiRouter>,
    bar: u8,
    table_offset: u32,
    pba_offset: u32,
    /// Offset of the capability, once it is in a configuration space.
    capability: Option<u16>,
    enabled: bool,
    masked: bool,
    complained: bool,
    /// The lines were given back.
    released: bool,
}

impl Msix {
    /// `vectors` (1 to 2048) with their table at `table_offset` and their pending bits at `pba_offset` of `bar`. Both
    /// offsets are multiples of 8; the areas must not overlap.
    pub fn new(
        vectors: u16,
        bar: u8,
        table_offset: u32,
        pba_offset: u32,
        router: Arc<dyn MsiRouter>,
    ) -> io::Result<Self> {
        let table = u64::from(table_offset)..u64::from(table_offset) + u64::from(vectors) * ENTRY_SIZE;
        let pba = u64::from(pba_offset)..u64::from(pba_offset) + pba_size(vectors);
        if !(1..=MAX_VECTORS).contains(&vectors)
            || usize::from(bar) >= super::config::BAR_COUNT
            || (table_offset | pba_offset) & 7 != 0
            || table.start < pba.end && pba.start < table.end
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "MSI-X table and pending bits can't be laid out so",
            ));
        }
        let new_vector =
            |_| Vector { open: AtomicBool::new(false), pending: AtomicBool::new(false), line: OnceLock::new() };
        let shared = Shared { enabled: AtomicBool::new(false), vectors: (0..vectors).map(new_vector).collect() };
        let entry = Entry { words: [0, 0, 0, VECTOR_MASK], routed: None };
        Ok(Msix {
            shared: Arc::new(shared),
            entries: vec![entry; usize::from(vectors)],
            router,
            bar,
            table_offset,
            pba_offset,
            capability: None,
            enabled: false,
            masked: false,
            complained: false,
            released: false,
        })
    }

    /// Add the capability to the function's configuration space.
    pub fn add_capability(&mut self, config: &mut ConfigSpace) -> Result<u16, ConfigError> {
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(self.entries.len() as u16 - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(self.table_offset | u32::from(self.bar)).to_le_bytes());
        body[6..].copy_from_slice(&(self.pba_offset | u32::from(self.bar)).to_le_bytes());
        let writable = (CONTROL_ENABLE | CONTROL_FUNCTION_MASK).to_le_bytes();
        let offset = config.add_capability(CAPABILITY_ID, &body, &writable)?;
        self.capability = Some(offset);
        Ok(offset)
    }

    /// A handle for whoever raises the interrupts.
    pub fn handle(&self) -> MsixHandle {
        MsixHandle(Arc::clone(&self.shared))
    }

    /// The number of vectors.
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// To be called after every write to the function's configuration space: picks up enable and function mask.
    pub fn config_written(&mut self, config: &ConfigSpace) {
        let Some(capability) = self.capability else { return };
        let control = config.read_u16(capability + 2);
        let (enabled, masked) = (control & CONTROL_ENABLE != 0, control & CONTROL_FUNCTION_MASK != 0);
        if (enabled, masked) == (self.enabled, self.masked) {
            return;
        }
        (self.enabled, self.masked) = (enabled, masked);
        self.shared.enabled.store(enabled && !self.released, Ordering::SeqCst);
        for index in 0..self.entries.len() {
            self.update(index);
        }
        if !enabled {
            self.shared.vectors.iter().for_each(|vector| vector.pending.store(false, Ordering::SeqCst));
        }
    }

    /// Fill `data` if `offset` of the BAR lies in the table or the pending bits; `false` if it does not.
    pub fn read_bar(&self, offset: u64, data: &mut [u8]) -> bool {
        let byte_at: &dyn Fn(u64) -> u8 = if let Some(start) = self.in_table(offset) {
            &move |i| self.table_byte(start + i)
        } else if let Some(start) = self.in_pba(offset) {
            &move |i| self.pba_byte(start + i)
        } else {
            return false;
        };
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = byte_at(i as u64);
        }
        true
    }

    /// Take `data` if `offset` of the BAR lies in the table or the pending bits; `false` if it does not. The table
    /// takes aligned writes of 4 and 8 bytes, as the specification demands; others, and writes to the pending bits,
    /// change nothing.
    pub fn write_bar(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some(start) = self.in_table(offset) else { return self.in_pba(offset).is_some() };
        if !matches!(data.len(), 4 | 8) || !start.is_multiple_of(data.len() as u64) {
            return true;
        }
        let index = (start / ENTRY_SIZE) as usize;
        let first = (start % ENTRY_SIZE / 4) as usize;
        if let Some(entry) = self.entries.get_mut(index) {
            let (values, _) = data.as_chunks::<4>();
            for (word, value) in entry.words.iter_mut().skip(first).zip(values) {
                *word = u32::from_le_bytes(*value);
            }
            entry.words[0] &= ADDRESS_BITS;
            entry.words[3] &= VECTOR_MASK;
            self.update(index);
        }
        true
    }

    /// Give all lines back, for a function that leaves a machine which goes on. It raises no interrupts any more.
    pub fn release(&mut self) {
        self.released = true;
        self.shared.enabled.store(false, Ordering::SeqCst);
        for vector in &self.shared.vectors {
            vector.open.store(false, Ordering::SeqCst);
            if let Some(line) = vector.line.get()
                && let Err(error) = self.router.free(line)
            {
                log::warn!("can't give back interrupt line {}: {error}", line.gsi);
            }
        }
    }

    fn in_table(&self, offset: u64) -> Option<u64> {
        let start = offset.checked_sub(self.table_offset.into())?;
        (start < self.entries.len() as u64 * ENTRY_SIZE).then_some(start)
    }

    fn in_pba(&self, offset: u64) -> Option<u64> {
        let start = offset.checked_sub(self.pba_offset.into())?;
        (start < pba_size(self.vectors())).then_some(start)
    }

    fn table_byte(&self, at: u64) -> u8 {
        let word = self.entries.get((at / ENTRY_SIZE) as usize).map_or(0, |e| e.words[(at % ENTRY_SIZE / 4) as usize]);
        word.to_le_bytes()[(at % 4) as usize]
    }

    fn pba_byte(&self, at: u64) -> u8 {
        let vectors = self.shared.vectors.iter().skip(at as usize * 8).take(8);
        vectors.enumerate().fold(0, |byte, (i, v)| byte | u8::from(v.pending.load(Ordering::SeqCst)) << i)
    }

    /// Bring a vector's line in step with its table entry.
    fn update(&mut self, index: usize) {
        let (Some(entry), Some(vector)) = (self.entries.get_mut(index), self.shared.vectors.get(index)) else { return };
        if self.released || !self.enabled || self.masked || entry.masked() {
            vector.open.store(false, Ordering::SeqCst);
            return;
        }
        if let Err(error) = route(entry, vector, self.router.as_ref()) {
            vector.open.store(false, Ordering::SeqCst);
            if !self.complained {
                log::warn!("MSI-X vector {index} has no interrupt line: {error}");
                self.complained = true;
            }
            return;
        }
        vector.open.store(true, Ordering::SeqCst);
        vector.fire_if_pending();
    }
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix").field("vectors", &self.entries.len()).field("enabled", &self.enabled).finish()
    }
}

fn route(entry: &mut Entry, vector: &Vector, router: &dyn MsiRouter) -> io::Result<()> {
    let line = match vector.line.get() {
        Some(line) => line,
        None => {
            let line = router.allocate()?;
            vector.line.get_or_init(|| line)
        }
    };
    let message = entry.message();
    if entry.routed != Some(message) {
        entry.routed = None;
        router.route(line, Some(message))?;
        entry.routed = Some(message);
    }
    Ok(())
}

/// Bytes of the pending bits: whole quadwords.
fn pba_size(vectors: u16) -> u64 {
    u64::from(vectors).div_ceil(64) * 8
}

#[cfg(test)]
#[path = "msix_tests.rs"]
mod tests;
