//! The guest-physical memory map of the x86_64 machine. Constants are in ascending order: read the map top to bottom.
//!
//! ```text
//! 0x0000_0000  RAM: boot structures in the first 640 KiB
//! 0x000A_0000  reserved: ACPI tables at 0xE_0000, SMBIOS at 0xF_0000 (backed by RAM, like a shadowed ROM)
//! 0x0010_0000  RAM: kernel, initial RAM disk, all the rest, up to 3 GiB
//! 0xC000_0000  hole: 32-bit PCI window, PCI configuration space, interrupt controllers, KVM's own pages
//! 0x1_0000_0000 RAM beyond 3 GiB
//!  end of RAM  64-bit PCI window, rounded up to its own size
//! ```

/// Flat descriptors for the entry into the kernel.
pub const GDT: u64 = 0x500;
/// `hvm_start_info` of the PVH boot protocol.
pub const PVH_START_INFO: u64 = 0x6000;
/// `hvm_modlist_entry` of the initial RAM disk.
pub const PVH_MODLIST: u64 = 0x6040;
/// `hvm_memmap_table_entry` array.
pub const PVH_MEMMAP: u64 = 0x7000;
/// `boot_params` of the Linux boot protocol.
pub const ZERO_PAGE: u64 = 0x8000;
/// Identity-mapping page tables for the 64-bit Linux entry: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Room for the command line, with its final NUL.
pub const CMDLINE_SIZE: u64 = 0x1_0000;
/// End of conventional memory: a kilobyte below 640 KiB, where firmware would have its extended data area.
pub const LOW_RAM_END: u64 = 0x9_FC00;

/// RSDP and the ACPI tables. The RSDP is at the very start, where a scan finds it.
pub const ACPI_TABLES: u64 = 0xE_0000;
/// Room for the ACPI tables.
pub const ACPI_TABLES_SIZE: u64 = 0x1_0000;
/// SMBIOS entry point and structures: where a scan finds them.
pub const SMBIOS: u64 = 0xF_0000;
/// Room for SMBIOS.
pub const SMBIOS_SIZE: u64 = 0xFFF0;
/// Where a processor in real mode begins after a reset, and where Linux jumps to reboot by the BIOS: up to the end of the
/// first megabyte.
pub const RESET_VECTOR: u64 = 0xF_FFF0;

/// RAM above the legacy area. No kernel is loaded below it.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// RAM ends here at the latest, and goes on at [`RAM_ABOVE_4G`].
pub const HOLE: u64 = 0xC000_0000;
/// Addresses for 32-bit BARs.
pub const PCI_MMIO32: u64 = 0xC000_0000;
/// Bytes of the 32-bit PCI window.
pub const PCI_MMIO32_SIZE: u64 = 0x2000_0000;
/// PCI Express configuration space (ECAM) of bus 0, as the MCFG table says.
pub const PCI_ECAM: u64 = 0xE000_0000;
/// Bytes of configuration space: 32 devices of 8 functions of 4 KiB.
pub const PCI_ECAM_SIZE: u64 = 0x10_0000;
/// I/O APIC.
pub const IO_APIC: u64 = 0xFEC0_0000;
/// Local APICs.
pub const LOCAL_APIC: u64 = 0xFEE0_0000;
/// One page with which KVM runs unpaged guest code on Intel machines that need it.
pub const KVM_IDENTITY_MAP: u64 = 0xFFFB_C000;
/// Three pages of a task state segment for the same purpose.
pub const KVM_TSS: u64 = 0xFFFB_D000;

/// RAM that does not fit below [`HOLE`].
pub const RAM_ABOVE_4G: u64 = 0x1_0000_0000;

/// Bytes of the 64-bit PCI window, where the processor's address width leaves room for it.
pub const PCI_MMIO64_SIZE: u64 = 16 << 30;

// Port addresses.

/// First interrupt controller, and the second at 0xA0 (in KVM). i8042 keyboard controller: data.
pub const PORT_I8042_DATA: u16 = 0x60;
/// i8042: command and status.
pub const PORT_I8042_COMMAND: u16 = 0x64;
/// CMOS real-time clock: index, and data at 0x71.
pub const PORT_RTC: u16 = 0x70;
/// Firmware's progress codes, and the delay after port accesses.
pub const PORT_POST: u16 = 0x80;
/// COM1, eight ports.
pub const PORT_COM1: u16 = 0x3F8;
/// ACPI sleep control, sleep status and reset registers, one port each.
pub const PORT_ACPI: u16 = 0x600;
/// The registers behind the ACPI generic event device, 16 ports.
pub const PORT_EVENTS: u16 = 0x610;
/// PCI configuration mechanism 1: address, and data at 0xCFC.
pub const PORT_PCI_CONFIG: u16 = 0xCF8;

// Interrupt lines of the I/O APIC (global system interrupts).

/// COM1.
pub const GSI_COM1: u32 = 4;
/// The ACPI generic event device.
pub const GSI_GED: u32 = 9;
/// Pins of the I/O APIC. Message-signalled interrupts are routed from here on.
pub const GSI_MSI_BASE: u32 = 24;

/// The RAM ranges (address, bytes) of a machine with `memory` bytes, in ascending order.
pub fn ram_ranges(memory: u64) -> Vec<(u64, u64)> {
    if memory <= HOLE { vec![(0, memory)] } else { vec![(0, HOLE), (RAM_ABOVE_4G, memory - HOLE)] }
}

/// The 64-bit PCI window (address, bytes) above `memory` bytes of RAM on a processor with `address_bits` physical address
/// bits; `None` where RAM leaves no room.
pub fn pci_mmio64(memory: u64, address_bits: u32) -> Option<(u64, u64)> {
    let ram_end = ram_ranges(memory).last().map_or(0, |(start, size)| start.saturating_add(*size)).max(RAM_ABOVE_4G);
    let start = ram_end.checked_next_multiple_of(PCI_MMIO64_SIZE)?;
    let end = start.checked_add(PCI_MMIO64_SIZE)?;
    (end <= 1u64.checked_shl(address_bits)?).then_some((start, PCI_MMIO64_SIZE))
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
