//! The PVH boot protocol: `hvm_start_info` version 1 with memory map and module list
//! (`xen/include/public/arch-x86/hvm/start_info.h`).

#![forbid(unsafe_code)]

use crate::vmm::layout;
use crate::vmm::memory::MapEntry;

const MAGIC: u32 = 0x336E_C578;
const VERSION: u32 = 1;

/// The bytes of `hvm_start_info`, to be placed at [`layout::PVH_START_INFO`].
pub fn start_info(map_entries: usize, has_initrd: bool, rsdp: u64) -> Vec<u8> {
    let mut b = Vec::with_capacity(56);
    b.extend(MAGIC.to_le_bytes());
    b.extend(VERSION.to_le_bytes());
    b.extend(0u32.to_le_bytes()); // flags
    b.extend(u32::from(has_initrd).to_le_bytes()); // nr_modules
    b.extend(if has_initrd { layout::PVH_MODLIST } else { 0 }.to_le_bytes());
    b.extend(layout::CMDLINE.to_le_bytes());
    b.extend(rsdp.to_le_bytes());
    b.extend(layout::PVH_MEMMAP.to_le_bytes());
    b.extend((map_entries as u32).to_le_bytes());
    b.extend(0u32.to_le_bytes()); // reserved
    b
}

/// The bytes of the memory map, to be placed at [`layout::PVH_MEMMAP`].
pub fn memory_map(map: &[MapEntry]) -> Vec<u8> {
    let mut b = Vec::with_capacity(map.len() * 24);
    for entry in map {
        b.extend(entry.start.to_le_bytes());
        b.extend(entry.size.to_le_bytes());
        b.extend((entry.kind as u32).to_le_bytes());
        b.extend(0u32.to_le_bytes());
    }
    b
}

/// The bytes of the module list with the initial RAM disk, to be placed at [`layout::PVH_MODLIST`].
pub fn module_list(address: u64, size: u64) -> Vec<u8> {
    [address, size, 0, 0].iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[cfg(test)]
#[path = "pvh_tests.rs"]
mod tests;
