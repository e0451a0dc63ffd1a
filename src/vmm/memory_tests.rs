use vm_memory::GuestMemoryBackend;

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
fn ram_begins_at_a_huge_pages_boundary() {
    // Other tests map and unmap meanwhile; one of a few attempts is undisturbed.
    let aligned = (0..20).any(|_| {
        let memory = allocate(32 << 20).unwrap();
        (memory.get_host_address(GuestAddress(0)).unwrap() as usize).is_multiple_of(HUGE_PAGE)
    });
    assert!(aligned);
}

#[test]
fn ram_begins_there_also_where_a_gap_fits_badly() {
    // What a machine before left behind: a gap that is too small for memory and for what would bring it to a boundary.
    let aligned = (0..20).any(|_| {
        let before = MmapRegion::<()>::new((32 << 20) + 3 * PAGE_SIZE as usize).unwrap();
        let _below = MmapRegion::<()>::new(PAGE_SIZE as usize).unwrap();
        drop(before);
        let memory = allocate(32 << 20).unwrap();
        (memory.get_host_address(GuestAddress(0)).unwrap() as usize).is_multiple_of(HUGE_PAGE)
    });
    assert!(aligned);
}
