use proptest::prelude::*;

use super::*;

fn function() -> ConfigSpace {
    let mut config = ConfigSpace::new(Identity {
        vendor: 0x1d0f,
        device: 0x8061,
        class: 0x01_08_02,
        revision: 3,
        subsystem_vendor: 0x1d0f,
        subsystem: 0x1234,
    });
    config.add_bar(0, 0x4000, BarKind::Mmio64 { prefetchable: true }).unwrap();
    config.add_bar(2, 0x1000, BarKind::Mmio32).unwrap();
    config
}

#[test]
fn header_fields_are_in_their_places() {
    let config = function();
    assert_eq!(config.read_u32(0x00), 0x8061_1d0f);
    assert_eq!(config.read_u32(0x08), 0x0108_0203);
    assert_eq!(config.read_u32(0x2c), 0x1234_1d0f);
    assert_eq!(config.read_u16(0x06), 0, "no capability, no list");
    let mut beyond = [0; 4];
    config.read(0xffe, &mut beyond);
    assert_eq!(beyond, [0, 0, 0xff, 0xff]);
}

#[test]
fn bars_are_sized_and_placed_by_the_guest() {
    let mut config = function();
    config.write(0x10, &u32::MAX.to_le_bytes());
    config.write(0x14, &u32::MAX.to_le_bytes());
    config.write(0x18, &u32::MAX.to_le_bytes());
    config.write(0x1c, &u32::MAX.to_le_bytes());
    assert_eq!(config.read_u32(0x10), 0xffff_c00c);
    assert_eq!(config.read_u32(0x14), 0xffff_ffff);
    assert_eq!(config.read_u32(0x18), 0xffff_f000);
    assert_eq!(config.read_u32(0x1c), 0, "a BAR that does not exist");

    config.set_bar_address(0, 0x80_1234_5678);
    config.set_bar_address(2, 0xc000_1fff);
    config.set_bar_address(3, 0xc000_0000);
    assert_eq!(config.bar_address(0), None, "memory decoding is off");
    config.write(0x04, &[0xff, 0xff]);
    assert_eq!(config.bar_address(0), Some(0x80_1234_4000));
    assert_eq!(config.bar_address(2), Some(0xc000_1000));
    assert_eq!([config.bar_address(1), config.bar_address(3), config.bar_address(9)], [None; 3]);
    assert_eq!(config.read_u16(0x04), 0x0546, "no I/O decoding");
    assert!(config.bus_master());
}

#[test]
fn bars_that_cannot_be_are_refused() {
    let mut config = function();
    assert_eq!(config.add_bar(1, 0x1000, BarKind::Mmio32), Err(ConfigError::BarTaken(1)), "upper half of BAR 0");
    assert_eq!(config.add_bar(2, 0x1000, BarKind::Mmio32), Err(ConfigError::BarTaken(2)));
    assert_eq!(config.add_bar(5, 0x1000, BarKind::Mmio64 { prefetchable: false }), Err(ConfigError::BarTaken(5)));
    assert_eq!(config.add_bar(3, 0x1800, BarKind::Mmio32), Err(ConfigError::BarSize { index: 3, size: 0x1800 }));
    assert_eq!(config.add_bar(3, 1 << 32, BarKind::Mmio32), Err(ConfigError::BarSize { index: 3, size: 1 << 32 }));
}

#[test]
fn capabilities_are_linked_and_masked() {
    let mut config = function();
    let first = config.add_capability(0x09, &[1, 2, 3], &[]).unwrap();
    let second = config.add_capability(0x11, &[0; 10], &[0x00, 0xc0]).unwrap();
    assert_eq!((first, second), (0x40, 0x48));
    assert_eq!(config.read_u16(0x06), 0x10);
    assert_eq!(config.read_u16(0x34) & 0xff, 0x40);
    assert_eq!(config.read_u32(0x40), 0x0201_4809);
    assert_eq!(config.read_u16(0x48), 0x0011, "end of the list");
    config.write(0x40, &[0xff; 20]);
    assert_eq!(config.read_u32(0x40), 0x0201_4809);
    assert_eq!(config.read_u32(0x48), 0xc000_0011);
    assert_eq!(config.add_capability(0x09, &[0; 200], &[]), Err(ConfigError::NoRoom(200)));
}

proptest! {
    #[test]
    fn read_only_bits_survive_any_writes(writes in proptest::collection::vec((any::<u16>(), any::<[u8; 8]>(), 0usize..=8), 0..64)) {
        let mut config = function();
        config.add_capability(0x11, &[0; 10], &[0x00, 0xc0]).unwrap();
        let before = config.clone();
        for (offset, bytes, length) in writes {
            config.write(offset, &bytes[..length]);
        }
        for (i, mask) in before.writable.iter().enumerate() {
            prop_assert_eq!(config.registers[i] & !mask, before.registers[i] & !mask);
        }
        if let Some(address) = config.bar_address(0) {
            prop_assert_eq!(address % 0x4000, 0);
        }
    }
}
