use std::io::Write;

use vm_memory::Bytes;

use super::*;

const GIB: u64 = 1 << 30;

#[test]
fn the_memory_map_is_ascending_and_holds_all_ram() {
    for memory in [GIB / 4, GIB, 2 * GIB, 3 * GIB, 3 * GIB + GIB / 2, 5 * GIB, 16 * GIB] {
        let map = memory_map(memory);
        for pair in map.windows(2) {
            assert!(pair[0].start + pair[0].size <= pair[1].start, "{memory:#x}: {pair:#x?}");
        }
        let ram: u64 = map.iter().filter(|e| e.kind == RangeKind::Ram).map(|e| e.size).sum();
        // All but the legacy area between 640 KiB (less 1 KiB) and 1 MiB.
        assert_eq!(ram, memory - (layout::HIGH_MEMORY - layout::LOW_RAM_END));
        assert!(map.iter().any(|e| e.start == layout::PCI_ECAM && e.kind == RangeKind::Reserved));
        assert!(
            !map.iter()
                .any(|e| e.kind == RangeKind::Ram && e.start < layout::RAM_ABOVE_4G && e.start + e.size > layout::HOLE)
        );
    }
    assert_eq!(memory_map(5 * GIB).last(), Some(&MapEntry { start: 4 * GIB, size: 2 * GIB, kind: RangeKind::Ram }));
}

#[test]
fn odd_sizes_are_refused() {
    assert!(matches!(allocate((1 << 30) + 1), Err(MemoryError::Size(_))));
    assert!(matches!(allocate(1 << 20), Err(MemoryError::Size(_))));
}

#[test]
fn a_file_is_mapped_privately_over_ram() {
    let memory = allocate(32 << 20).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 8192]).unwrap();
    memory.write_slice(&[1; 3], GuestAddress(0x10_0000)).unwrap();
    map_file(&memory, 0x10_0000, &file, 4096, 4096).unwrap();
    let byte: u8 = memory.read_obj(GuestAddress(0x10_0000)).unwrap();
    assert_eq!(byte, 7);
    memory.write_obj(9u8, GuestAddress(0x10_0000)).unwrap();
    let mut on_disk = [0];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut on_disk, 4096).unwrap();
    assert_eq!(on_disk, [7], "the guest's writes must not reach the file");
}

#[test]
fn a_mapping_outside_ram_or_off_a_page_boundary_is_refused() {
    let memory = allocate(32 << 20).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(8192).unwrap();
    assert!(matches!(map_file(&memory, 0x10_0001, &file, 0, 4096), Err(MemoryError::Unaligned(..))));
    assert!(matches!(map_file(&memory, (32 << 20) - 4096, &file, 0, 8192), Err(MemoryError::Outside(..))));
    assert!(matches!(map_file(&memory, u64::MAX - 4095, &file, 0, 4096), Err(MemoryError::Outside(..))));
}

#[test]
fn ram_begins_at_a_huge_pages_boundary() {
    // Other tests map and unmap meanwhile; one of a few attempts is undisturbed.
    let aligned = (0..20).any(|_| {
        let memory = allocate(32 << 20).unwrap();
        memory.get_host_address(GuestAddress(0)).unwrap() as usize % HUGE_PAGE == 0
    });
    assert!(aligned);
}
