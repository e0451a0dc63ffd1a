use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::ByteValued;

use super::*;
use crate::vmm::memory::RangeKind;

#[test]
fn start_info_has_the_layout_of_the_protocol() {
    let bytes = start_info(5, true, layout::ACPI_TABLES);
    let info = hvm_start_info::from_slice(&bytes).unwrap();
    assert_eq!((info.magic, info.version, info.nr_modules), (0x336E_C578, 1, 1));
    assert_eq!((info.modlist_paddr, info.cmdline_paddr), (layout::PVH_MODLIST, layout::CMDLINE));
    assert_eq!((info.rsdp_paddr, info.memmap_paddr, info.memmap_entries), (0xE_0000, layout::PVH_MEMMAP, 5));
    let bytes = start_info(5, false, 0);
    let info = hvm_start_info::from_slice(&bytes).unwrap();
    assert_eq!((info.nr_modules, info.modlist_paddr), (0, 0));
}

#[test]
fn memory_map_and_modules_have_the_layout_of_the_protocol() {
    let bytes = memory_map(&[MapEntry { start: 1, size: 2, kind: RangeKind::Reserved }]);
    let entry = hvm_memmap_table_entry::from_slice(&bytes).unwrap();
    assert_eq!((entry.addr, entry.size, entry.type_), (1, 2, 2));
    let bytes = module_list(0x1000, 77);
    let module = hvm_modlist_entry::from_slice(&bytes).unwrap();
    assert_eq!((module.paddr, module.size, module.cmdline_paddr), (0x1000, 77, 0));
}
