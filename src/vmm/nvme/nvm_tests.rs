use super::*;
use crate::vmm::nvme::spec::PAGE_SIZE;
use crate::vmm::nvme::testing::{DATA, DISK_SIZE, Driver, Entry, LIST};

const BLOCKS: u64 = DISK_SIZE / BLOCK_SIZE;

fn status(driver: &mut Driver, entry: Entry) -> Status {
    driver.call(1, entry).status
}

fn disk(driver: &Driver, offset: usize, length: usize) -> Vec<u8> {
    driver.disk.data.lock().unwrap()[offset..offset + length].to_vec()
}

#[test]
fn read_and_write_back() {
    let mut driver = Driver::new(1, 0);
    assert_eq!(status(&mut driver, Entry::io(2, 3, 5).prps(DATA, 0)), Status::SUCCESS);
    assert_eq!(driver.bytes(DATA, 2560), disk(&driver, 1536, 2560));
    driver.put(DATA + 0x1e00, &[0xaa; 512]);
    driver.put(DATA + 0x8000, &[0xbb; 512]);
    let write = Entry::io(1, BLOCKS - 2, 2).prps(DATA + 0x1e00, DATA + 0x8000);
    assert_eq!(status(&mut driver, write), Status::SUCCESS);
    let end = DISK_SIZE as usize;
    assert_eq!(disk(&driver, end - 1024, 512), [0xaa; 512]);
    assert_eq!(disk(&driver, end - 512, 512), [0xbb; 512]);
    assert_eq!(driver.router.take(1), 2);
}

#[test]
fn a_mebibyte_through_a_list() {
    let mut driver = Driver::new(1, 0);
    let pages: Vec<u64> = (1..256).map(|i| DATA + i * PAGE_SIZE).collect();
    driver.list(LIST, &pages);
    assert_eq!(status(&mut driver, Entry::io(2, 100, 2048).prps(DATA, LIST)), Status::SUCCESS);
    assert_eq!(driver.bytes(DATA, 1 << 20), disk(&driver, 51200, 1 << 20));
    // Backwards, in pieces: every page apart.
    let pages: Vec<u64> = pages.into_iter().rev().collect();
    driver.list(LIST, &pages);
    assert_eq!(status(&mut driver, Entry::io(1, 4096, 2048).prps(DATA, LIST)), Status::SUCCESS);
    assert_eq!(disk(&driver, (2 << 20) + 4096, 4096), driver.bytes(DATA + 255 * PAGE_SIZE, 4096));
    assert_eq!(status(&mut driver, Entry::io(2, 0, 2049).prps(DATA, LIST)), Status::INVALID_FIELD);
}

#[test]
fn blocks_that_do_not_exist() {
    let mut driver = Driver::new(1, 0);
    for opcode in [1, 2, 8] {
        for (lba, blocks) in [(BLOCKS, 1), (BLOCKS - 1, 2), (u64::MAX, 1), (u64::MAX - 7, 8), (1 << 55, 1)] {
            let entry = Entry::io(opcode, lba, blocks).prps(DATA, 0);
            assert_eq!(status(&mut driver, entry), Status::LBA_OUT_OF_RANGE, "{opcode} {lba:#x}");
        }
    }
    driver.disk.grown.store(0, Ordering::SeqCst);
    assert_eq!(status(&mut driver, Entry::io(2, BLOCKS - 1, 1).prps(DATA, 0)), Status::SUCCESS);
}

#[test]
fn addresses_that_do_not_exist() {
    let mut driver = Driver::new(1, 0);
    assert_eq!(status(&mut driver, Entry::io(2, 0, 1).prps(12 << 20, 0)), Status::DATA_TRANSFER_ERROR);
    assert_eq!(status(&mut driver, Entry::io(2, 0, 16).prps(DATA, 12 << 20)), Status::DATA_TRANSFER_ERROR);
    assert_eq!(status(&mut driver, Entry::io(2, 0, 16).prps(DATA, DATA + 4)), Status::PRP_OFFSET_INVALID);
    assert_eq!(status(&mut driver, Entry::io(2, 0, 1).prps(DATA | 1, 0)), Status::PRP_OFFSET_INVALID);
}

#[test]
fn commands_that_are_not_supported() {
    let mut driver = Driver::new(1, 0);
    for opcode in [0x04, 0x05, 0x0c, 0x0d, 0x19, 0x79, 0x80, 0xff] {
        assert_eq!(status(&mut driver, Entry::new(opcode, 1)), Status::INVALID_OPCODE);
    }
    for nsid in [0, 2, ALL_NAMESPACES] {
        let entry = Entry::io(2, 0, 1).prps(DATA, 0).dword(1, nsid);
        assert_eq!(status(&mut driver, entry), Status::INVALID_NAMESPACE);
    }
    assert_eq!(status(&mut driver, Entry::new(0, 2)), Status::INVALID_NAMESPACE);
    assert_eq!(status(&mut driver, Entry::io(2, 0, 1).prps(DATA, 0).dword(0, 0x4002)), Status::INVALID_FIELD);
}

#[test]
fn flush_and_forced_unit_access() {
    let mut driver = Driver::new(1, 0);
    let flushes = |driver: &Driver| driver.disk.flushes.load(Ordering::SeqCst);
    assert_eq!(status(&mut driver, Entry::new(0, 1)), Status::SUCCESS);
    assert_eq!(status(&mut driver, Entry::new(0, ALL_NAMESPACES)), Status::SUCCESS);
    assert_eq!(flushes(&driver), 2);
    let write = Entry::io(1, 0, 1).prps(DATA, 0);
    status(&mut driver, write);
    assert_eq!(flushes(&driver), 2);
    status(&mut driver, write.dword(12, FORCE_UNIT_ACCESS));
    assert_eq!(flushes(&driver), 3);
    // Without a write cache every write is durable.
    driver.admin_ok(Entry::new(0x09, 0).dword(10, 6).dword(11, 0));
    status(&mut driver, write);
    status(&mut driver, Entry::io(8, 0, 1));
    assert_eq!(flushes(&driver), 5);
}

#[test]
fn zeroes_and_ranges() {
    let mut driver = Driver::new(1, 0);
    assert_eq!(status(&mut driver, Entry::io(8, 2, 2048)), Status::SUCCESS);
    assert_eq!(disk(&driver, 1024, 1 << 20), vec![0; 1 << 20]);
    let range = |blocks: u32, lba: u64| [0u32, blocks, lba as u32, (lba >> 32) as u32].map(u32::to_le_bytes).concat();
    driver.put(DATA, &[range(8, 16), range(0, 1), range(1, BLOCKS - 1)].concat());
    let trim = Entry::new(9, 1).prps(DATA, 0).dword(10, 2);
    assert_eq!(status(&mut driver, trim), Status::SUCCESS);
    assert_eq!(*driver.disk.discards.lock().unwrap(), []);
    assert_eq!(status(&mut driver, trim.dword(11, 4)), Status::SUCCESS);
    assert_eq!(*driver.disk.discards.lock().unwrap(), [(8192, 4096), (DISK_SIZE - 512, 512)]);
    driver.put(DATA, &range(u32::MAX, 1));
    assert_eq!(status(&mut driver, trim.dword(11, 4)), Status::LBA_OUT_OF_RANGE);
    driver.put(DATA, &range(2, u64::MAX));
    assert_eq!(status(&mut driver, trim.dword(11, 4)), Status::LBA_OUT_OF_RANGE);
}

#[test]
fn a_broken_disk_is_reported_as_such() {
    let mut driver = Driver::new(1, 0);
    driver.disk.broken.store(true, Ordering::SeqCst);
    assert_eq!(status(&mut driver, Entry::io(2, 0, 1).prps(DATA, 0)), Status::UNRECOVERED_READ_ERROR);
    for entry in [Entry::io(1, 0, 1).prps(DATA, 0), Entry::new(0, 1), Entry::io(8, 0, 1)] {
        assert_eq!(status(&mut driver, entry), Status::WRITE_FAULT);
    }
    driver.disk.broken.store(false, Ordering::SeqCst);
    assert_eq!(status(&mut driver, Entry::io(2, 0, 1).prps(DATA, 0)), Status::SUCCESS);
}
