use super::*;
use crate::vmm::nvme::testing::{Driver, Entry, MemoryDisk};
use crate::vmm::pci::PciFunction;
use std::sync::atomic::Ordering;

const CC: u64 = register::CC;
const CSTS: u64 = register::CSTS;

#[test]
fn registers_read_in_any_width() {
    let mut driver = Driver::cold(2, 0);
    let mut long = [0; 8];
    driver.function.read_bar(0, register::CAP, &mut long);
    let capabilities = u64::from_le_bytes(long);
    assert_eq!(capabilities & 0xffff, 1023);
    assert_eq!((capabilities >> 32 & 0xf, capabilities >> 37 & 0xff, capabilities >> 48), (0, 1, 0));
    assert_eq!(driver.read32(0), capabilities as u32);
    assert_eq!(driver.read32(4), (capabilities >> 32) as u32);
    let mut byte = [0];
    driver.function.read_bar(0, 7, &mut byte);
    assert_eq!(byte[0], long[7]);
    let mut half = [0; 2];
    driver.function.read_bar(0, register::VS + 2, &mut half);
    assert_eq!(half, [1, 0]);
    // No controller memory buffer, no subsystem reset; doorbells can't be read.
    assert_eq!([driver.read32(0x38), driver.read32(0x20), driver.read32(0x1000)], [0; 3]);
}

#[test]
fn queue_addresses_take_halves_and_wholes() {
    let mut driver = Driver::cold(1, 0);
    driver.write32(register::ASQ, 0x1234_5678);
    driver.write32(register::ASQ + 4, 9);
    assert_eq!((driver.read32(register::ASQ), driver.read32(register::ASQ + 4)), (0x1234_5000, 9));
    driver.write64(register::ACQ, 0xa_bcde_f123);
    assert_eq!((driver.read32(register::ACQ), driver.read32(register::ACQ + 4)), (0xbcde_f000, 0xa));
    // One and two bytes, and unaligned writes, change nothing.
    driver.function.write_bar(0, register::ACQ, &[0xff; 2]);
    driver.function.write_bar(0, register::ACQ + 2, &[0xff; 4]);
    assert_eq!(driver.read32(register::ACQ), 0xbcde_f000);
    driver.write32(register::AQA, u32::MAX);
    assert_eq!(driver.read32(register::AQA), 0x0fff_0fff);
}

#[test]
fn bad_configurations_are_fatal_until_reset() {
    for (aqa, asq, acq, cc) in [
        (0, 0x1000, 0x2000, 0x46_0001),                     // queues of one entry
        (0x1f_001f, 0, 0x2000, 0x46_0001),                  // no queue
        (0x1f_001f, 0x1000, 0x1_0000_0000_0000, 0x46_0001), // not in memory
        (0x0fff_0fff, 0x7f_f000, 0x2000, 0x46_0001),        // over the end
        (0x1f_001f, 0x1000, 0x2000, 0x46_0011),             // unknown command set
        (0x1f_001f, 0x1000, 0x2000, 0x46_0081),             // pages of 8 KiB
        (0x1f_001f, 0x1000, 0x2000, 0x46_0801),             // weighted arbitration
    ] {
        let mut driver = Driver::cold(1, 0);
        driver.write32(register::AQA, aqa);
        driver.write64(register::ASQ, asq);
        driver.write64(register::ACQ, acq);
        driver.write32(CC, cc);
        assert_eq!(driver.read32(CSTS), CSTS_FATAL, "{aqa:#x} {asq:#x} {acq:#x} {cc:#x}");
        driver.ring_tail(0, 1);
        driver.write32(CC, 0);
        assert_eq!(driver.read32(CSTS), 0);
        driver.enable();
    }
}

#[test]
fn reset_takes_queues_and_settings_away() {
    let mut driver = Driver::new(2, 0);
    driver.admin_ok(Entry::new(0x09, 0).dword(10, 6).dword(11, 0));
    driver.enable_shadow();
    driver.write32(CC, 0);
    assert_eq!(driver.read32(CSTS), 0);
    driver.ring_tail(1, 1);
    driver.enable();
    assert_eq!(driver.admin_ok(Entry::new(0x0a, 0).dword(10, 6)), 1);
    driver.create_queues(1);
    assert_eq!(driver.call(1, Entry::new(0, 1)).status, super::super::spec::Status::SUCCESS);
}

#[test]
fn shutdown_flushes() {
    let mut driver = Driver::new(1, 0);
    driver.write32(CC, 0x46_4001);
    assert_eq!(driver.read32(CSTS), CSTS_READY | CSTS_SHUTDOWN_COMPLETE);
    assert_eq!(driver.disk.flushes.load(Ordering::SeqCst), 1);
    // Another write with the notification still set is not another shutdown.
    driver.write32(CC, 0x46_4001);
    assert_eq!(driver.disk.flushes.load(Ordering::SeqCst), 1);
    driver.write32(CC, 0);
    assert_eq!(driver.read32(CSTS), 0);
    driver.enable();
}

/// Wait until `count` accesses stand at the held disk.
fn wait_for(disk: &MemoryDisk, count: usize) {
    while disk.waiting.load(Ordering::SeqCst) != count {
        std::thread::yield_now();
    }
}

#[test]
fn reset_is_not_over_while_the_disk_is_at_work() {
    let mut driver = Driver::new(1, 2);
    driver.disk.cold.store(true, Ordering::SeqCst);
    driver.disk.hold(true);
    driver.submit(1, Entry::io(2, 0, 1).prps(0x20_0000, 0));
    wait_for(&driver.disk, 1);
    driver.write32(CC, 0);
    assert_eq!(driver.read32(CSTS), CSTS_READY);
    // Enabling now is against the rules.
    driver.write32(CC, 0x46_0001);
    assert_eq!(driver.read32(CSTS) & CSTS_FATAL, CSTS_FATAL);
    driver.write32(CC, 0);
    driver.disk.hold(false);
    while driver.read32(CSTS) != 0 {
        std::thread::yield_now();
    }
    // The answer went nowhere.
    assert_eq!(driver.poll(1, false), None);
    driver.enable();
}

#[test]
fn closing_waits_for_the_disk_and_is_for_good() {
    let mut driver = Driver::new(1, 2);
    let handle = driver.function.handle();
    driver.disk.cold.store(true, Ordering::SeqCst);
    driver.disk.hold(true);
    driver.submit(1, Entry::io(2, 0, 1).prps(0x20_0000, 0));
    wait_for(&driver.disk, 1);
    handle.close(Duration::ZERO);
    assert_eq!(driver.poll(1, false), None, "patience ended first");
    // Commands that come now are not looked at.
    driver.submit(1, Entry::io(2, 1, 1).prps(0x20_0000, 0));
    driver.submit(0, Entry::new(0x06, 0).prps(0x20_0000, 0).dword(10, 1));
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| handle.close(Duration::from_secs(600)));
        driver.disk.hold(false);
        closing.join().unwrap();
    });
    assert!(driver.poll(1, true).is_some(), "the one that was in flight is done");
    assert_eq!((driver.poll(1, true), driver.poll(0, true)), (None, None));
    driver.write32(CC, 0);
    driver.write32(CC, 0x46_0001);
    assert_eq!(driver.read32(CSTS), CSTS_FATAL);
}
