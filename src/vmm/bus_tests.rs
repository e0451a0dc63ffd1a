use super::*;

/// Reads as its offset, powers off when 1 is written.
struct Probe;

impl BusDevice for Probe {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn write(&mut self, _offset: u64, data: &[u8]) -> Action {
        if data == [1] { Action::PowerOff } else { Action::None }
    }
}

struct Everywhere;

impl Decoder for Everywhere {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0x77);
        address >= 0x1000
    }
    fn write(&self, _address: u64, _data: &[u8]) -> bool {
        false
    }
}

fn read(bus: &Bus, address: u64) -> [u8; 2] {
    let mut data = [0; 2];
    bus.read(address, &mut data);
    data
}

#[test]
fn accesses_reach_the_device_of_their_range() {
    let mut bus = Bus::default();
    bus.add(0x60, 1, Arc::new(Mutex::new(Probe)));
    bus.add(0x20, 8, Arc::new(Mutex::new(Probe)));
    assert_eq!(read(&bus, 0x25), [5, 5]);
    assert_eq!(bus.write(0x60, &[1]), Action::PowerOff);
    assert_eq!(bus.write(0x61, &[1]), Action::None);
}

#[test]
fn nobodys_addresses_read_as_ones() {
    let mut bus = Bus::default();
    bus.add(0x20, 8, Arc::new(Mutex::new(Probe)));
    for address in [0, 0x1F, 0x27, 0x28, u64::MAX] {
        assert_eq!(read(&bus, address), [0xFF; 2], "{address:#x}");
    }
}

#[test]
fn the_decoder_is_asked_for_the_rest() {
    let mut bus = Bus::default();
    bus.add(0x20, 8, Arc::new(Mutex::new(Probe)));
    bus.set_decoder(Arc::new(Everywhere));
    assert_eq!(read(&bus, 0x20), [0; 2]);
    assert_eq!(read(&bus, 0x1000), [0x77; 2]);
    assert_eq!(read(&bus, 0x500), [0xFF; 2], "also when the decoder scribbled and then said no");
}
