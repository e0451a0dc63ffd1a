use super::super::bytes::u64_at;
use super::*;

#[test]
fn pvh_enters_in_32_bit_protected_mode() {
    let entry = Entry::Pvh { address: 0x100_0850 };
    let (regs, sregs) = (entry.regs(), entry.sregs(kvm_sregs::default()));
    assert_eq!((regs.rip, regs.rbx, regs.rflags), (0x100_0850, layout::PVH_START_INFO, 2));
    assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (1, 0, 0));
    assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.base, sregs.cs.limit), (0, 1, 0, 0xFFFF_FFFF));
    assert_eq!(sregs.tr.type_, 0xB);
}

#[test]
fn linux_enters_in_64_bit_mode_with_paging() {
    let entry = Entry::Linux64 { address: 0x100_0200 };
    let (regs, sregs) = (entry.regs(), entry.sregs(kvm_sregs::default()));
    assert_eq!((regs.rip, regs.rsi), (0x100_0200, layout::ZERO_PAGE));
    assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer), (0x8000_0001, layout::PAGE_TABLES, 0x20, 0x500));
    assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db, sregs.ds.selector), (0x10, 1, 0, 0x18));
}

#[test]
fn the_tables_map_4_gib_one_to_one() {
    let tables = identity_page_tables();
    let entry = |at: u64| u64_at(&tables, (at - layout::PAGE_TABLES) as usize).unwrap();
    for address in [0u64, 0x100_0000, 0xBFE0_0000, 0xFFE0_0000] {
        let pdpt = entry(layout::PAGE_TABLES) & !0xFFF;
        let pd = entry(pdpt + (address >> 30) * 8) & !0xFFF;
        let leaf = entry(pd + (address >> 21 & 0x1FF) * 8);
        assert_eq!(leaf, address | 0x83);
    }
    assert!(layout::PAGE_TABLES + tables.len() as u64 <= layout::CMDLINE);
}
