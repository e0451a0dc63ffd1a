use super::*;

#[test]
fn the_table_keeps_all_pins_and_adds_the_messages() {
    let message = MsiMessage { address: 0x1_FEE0_1000, data: 0x4031 };
    let table = routing_table([(30, message)].into_iter());
    assert_eq!(table.len(), 24 + 16 + 1);
    for gsi in 0..24 {
        let kinds: Vec<u32> = table.iter().filter(|e| e.gsi == gsi).map(|e| e.type_).collect();
        assert_eq!(kinds.len(), if gsi < 16 { 2 } else { 1 });
    }
    let last = table.last().unwrap();
    assert_eq!((last.gsi, last.type_), (30, KVM_IRQ_ROUTING_MSI));
    // SAFETY: an MSI entry, as its type says.
    let msi = unsafe { last.u.msi };
    assert_eq!((msi.address_lo, msi.address_hi, msi.data), (0xFEE0_1000, 1, 0x4031));
}
