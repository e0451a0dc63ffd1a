//! Guest memory: one anonymous private mapping per RAM range of the guest-physical address space.
//!
//! Nothing is touched before it is needed: pages appear as the guest uses them, huge ones where the host has them. One of
//! the few files with `unsafe` code.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use vm_memory::mmap::{FromRangesError, MmapRegion};
use vm_memory::{GuestAddress, GuestRegionMmap};

use super::layout;

/// The guest's RAM. Cheap to clone: the regions are shared.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// The unit of mappings.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes of a huge page of the host.
const HUGE_PAGE: usize = 2 << 20;

/// The stack of each thread of a machine: less than a huge page. What is mapped right below the guest's memory ends at a huge
/// page's boundary, and a stack of 2 MiB there would be one huge page at its first use.
pub const THREAD_STACK: usize = 1 << 20;

/// Why guest memory could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size is not a multiple of 1 MiB, or too small for a kernel.
    #[error("{0} bytes of guest memory: it must be a multiple of 1 MiB, and 16 MiB at least")]
    Size(u64),
    /// The host refused the mapping.
    #[error("cannot map {0} bytes of guest memory")]
    Map(u64, #[source] FromRangesError),
}

/// Map `memory` bytes of RAM as [`layout::ram_ranges`] says.
pub fn allocate(memory: u64) -> Result<GuestMemory, MemoryError> {
    if !memory.is_multiple_of(1 << 20) || memory < 16 << 20 {
        return Err(MemoryError::Size(memory));
    }
    let regions = layout::ram_ranges(memory).into_iter().map(|(start, size)| {
        let mapping = map_aligned(size as usize)?;
        GuestRegionMmap::new(mapping, GuestAddress(start)).ok_or(FromRangesError::InvalidGuestRegion)
    });
    let regions = regions.collect::<Result<Vec<_>, _>>().map_err(|e| MemoryError::Map(memory, e))?;
    GuestMemory::from_regions(regions).map_err(|e| MemoryError::Map(memory, e.into()))
}

/// Map `size` bytes at a huge page's boundary: only where host and guest addresses agree within a huge page can one entry of KVM's
/// page tables cover it, and a guest's start is mostly faults on fresh memory.
fn map_aligned(size: usize) -> Result<MmapRegion<()>, FromRangesError> {
    let mapping = map_at_boundary(size)?;
    // SAFETY: the range is the mapping just made, alive and exclusively ours; advice changes no contents.
    unsafe {
        // Huge pages where the host has them only for who asks. A host that has none says so, and all works without.
        libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_HUGEPAGE);
    }
    Ok(mapping)
}

fn map_at_boundary(size: usize) -> Result<MmapRegion<()>, FromRangesError> {
    let is_aligned = |mapping: &MmapRegion<()>| (mapping.as_ptr() as usize).is_multiple_of(HUGE_PAGE);
    let mut mapping = MmapRegion::new(size)?;
    if size < HUGE_PAGE || is_aligned(&mapping) {
        return Ok(mapping);
    }
    // Linux takes the highest gap that fits. There is an aligned one now, and each gap above it is filled by a try that missed.
    let Some(_gap) = AlignedGap::new(size) else { return Ok(mapping) };
    let mut misses = Vec::new();
    for _ in 0..MOST_TRIES {
        let Ok(next) = MmapRegion::new(size) else { break };
        misses.push(std::mem::replace(&mut mapping, next));
        if is_aligned(&mapping) {
            break;
        }
    }
    Ok(mapping)
}

/// As many gaps above the aligned one are overcome. With more, or should another thread be quicker, all works the same but slower.
const MOST_TRIES: usize = 8;

/// A gap of the address space that begins at a huge page's boundary, between two reserved pieces that end with this.
struct AlignedGap {
    below: Range<usize>,
    above: Range<usize>,
}

impl AlignedGap {
    fn new(size: usize) -> Option<Self> {
        let all = size.checked_add(HUGE_PAGE)?;
        // SAFETY: a new mapping where the kernel likes it, which nothing may touch.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), all, ProtFlags::empty(), MapFlags::PRIVATE) }.ok()? as usize;
        let from = start.next_multiple_of(HUGE_PAGE);
        unmap(&(from..from + size));
        Some(Self { below: start..from, above: from + size..start + all })
    }
}

impl Drop for AlignedGap {
    fn drop(&mut self) {
        unmap(&self.below);
        unmap(&self.above);
    }
}

/// Give a piece of an [`AlignedGap`]'s reservation back.
fn unmap(piece: &Range<usize>) {
    if !piece.is_empty() {
        // SAFETY: the piece is of a mapping that `AlignedGap::new` made, that nothing refers to, and that is unmapped once.
        let _ = unsafe { munmap(piece.start as *mut c_void, piece.len()) };
    }
}

/// What a range of the guest-physical address space holds, as the kernel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeKind {
    /// Usable RAM.
    Ram = 1,
    /// Not for the kernel to use.
    Reserved = 2,
}

/// One entry of the memory map (ACPI 6.5 §15; the types' numbers are those of E820).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// What it holds.
    pub kind: RangeKind,
}

/// The memory map of a machine with `memory` bytes of RAM, ascending. Configuration space is part of it: the kernel
/// does not use an MCFG table whose range is not reserved.
pub fn memory_map(memory: u64) -> Vec<MapEntry> {
    let ram = |start, size| MapEntry { start, size, kind: RangeKind::Ram };
    let reserved = |start, size| MapEntry { start, size, kind: RangeKind::Reserved };
    let ranges = layout::ram_ranges(memory);
    let mut map = vec![
        ram(0, layout::LOW_RAM_END),
        reserved(layout::LOW_RAM_END, 0xA_0000 - layout::LOW_RAM_END),
        reserved(layout::ACPI_TABLES, layout::HIGH_MEMORY - layout::ACPI_TABLES),
    ];
    let (_, low) = ranges[0];
    map.push(ram(layout::HIGH_MEMORY, low - layout::HIGH_MEMORY));
    map.push(reserved(layout::PCI_ECAM, layout::PCI_ECAM_SIZE));
    map.extend(ranges[1..].iter().map(|&(start, size)| ram(start, size)));
    map
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
