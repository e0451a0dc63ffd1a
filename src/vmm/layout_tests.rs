use super::*;

const GIB: u64 = 1 << 30;

#[test]
fn ram_below_the_hole_is_one_range() {
    assert_eq!(ram_ranges(GIB), [(0, GIB)]);
    assert_eq!(ram_ranges(2 * GIB), [(0, 2 * GIB)]);
    assert_eq!(ram_ranges(3 * GIB), [(0, 3 * GIB)]);
}

#[test]
fn ram_beyond_the_hole_goes_on_at_4_gib() {
    assert_eq!(ram_ranges(3 * GIB + GIB / 2), [(0, 3 * GIB), (4 * GIB, GIB / 2)]);
    assert_eq!(ram_ranges(5 * GIB), [(0, 3 * GIB), (4 * GIB, 2 * GIB)]);
    assert_eq!(ram_ranges(16 * GIB), [(0, 3 * GIB), (4 * GIB, 13 * GIB)]);
}

#[test]
fn the_map_is_in_order_and_nothing_overlaps() {
    let map = [
        (GDT, 0x100),
        (PVH_START_INFO, 0x40),
        (PVH_MODLIST, 0x40),
        (PVH_MEMMAP, 0x1000),
        (ZERO_PAGE, 0x1000),
        (PAGE_TABLES, 6 * 0x1000),
        (CMDLINE, CMDLINE_SIZE),
        (LOW_RAM_END, 0),
        (ACPI_TABLES, ACPI_TABLES_SIZE),
        (SMBIOS, SMBIOS_SIZE),
        (RESET_VECTOR, 0x10),
        (HIGH_MEMORY, HOLE - HIGH_MEMORY),
        (PCI_MMIO32, PCI_MMIO32_SIZE),
        (PCI_ECAM, PCI_ECAM_SIZE),
        (IO_APIC, 0x1000),
        (LOCAL_APIC, 0x1000),
        (KVM_IDENTITY_MAP, 0x1000),
        (KVM_TSS, 0x3000),
        (RAM_ABOVE_4G, 0),
    ];
    for pair in map.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{:#x?}", pair);
    }
}

#[test]
fn the_64_bit_window_lies_above_ram_and_within_the_address_width() {
    assert_eq!(pci_mmio64(GIB, 46), Some((16 * GIB, PCI_MMIO64_SIZE)));
    assert_eq!(pci_mmio64(16 * GIB, 40), Some((32 * GIB, PCI_MMIO64_SIZE)));
    assert_eq!(pci_mmio64(50 * GIB, 36), None);
    assert_eq!(pci_mmio64(u64::MAX, 52), None);
}
