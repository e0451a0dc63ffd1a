use super::*;
use crate::vmm::nvme::NvmeHandle;
use crate::vmm::nvme::testing::{ADMIN_ENTRIES, DATA, DISK_SIZE, Driver, Entry, LIST};

fn identify(cns: u32, nsid: u32) -> Entry {
    Entry::new(admin_opcode::IDENTIFY, nsid).dword(10, cns).prps(DATA, 0)
}

fn log(id: u32, dwords: u32) -> Entry {
    Entry::new(admin_opcode::GET_LOG_PAGE, ALL_NAMESPACES).dword(10, (dwords - 1) << 16 | id).prps(DATA, 0)
}

fn create(opcode: u8, id: u32, entries: u32, at: u64, dword11: u32) -> Entry {
    Entry::new(opcode, 0).prps(at, 0).dword(10, (entries.wrapping_sub(1)) << 16 | id).dword(11, dword11)
}

#[test]
fn identify_pages() {
    let mut driver = Driver::new(1, 0);
    driver.admin_ok(identify(1, 0));
    assert_eq!(&driver.bytes(DATA + 4, 4), b"vol0");
    driver.admin_ok(identify(0, 1));
    assert_eq!(driver.bytes(DATA, 8), (DISK_SIZE / 512).to_le_bytes());
    driver.admin_ok(identify(2, 0));
    assert_eq!(driver.bytes(DATA, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    driver.admin_ok(identify(2, 1));
    assert_eq!(driver.bytes(DATA, 8), [0; 8]);
    driver.admin_ok(identify(3, 1));
    // Over two pages that are no neighbours.
    driver.admin_ok(identify(1, 0).prps(DATA + 0xe00, DATA + 0x4000));
    assert_eq!(&driver.bytes(DATA + 0xe04, 4), b"vol0");
    assert_eq!(&driver.bytes(DATA + 0x4000 + 3072 - 0x200, 4), b"xvda");
}

#[test]
fn identify_errors() {
    let mut driver = Driver::new(1, 0);
    for (cns, nsid) in [(0, 0), (0, 2), (0, ALL_NAMESPACES), (2, ALL_NAMESPACES), (2, ALL_NAMESPACES - 1), (3, 2)] {
        assert_eq!(driver.admin_status(identify(cns, nsid)), Status::INVALID_NAMESPACE, "{cns} {nsid:#x}");
    }
    for cns in [4, 5, 6, 7, 8, 0x10, 0x1c, 0xff] {
        assert_eq!(driver.admin_status(identify(cns, 1)), Status::INVALID_FIELD);
    }
    assert_eq!(driver.admin_status(identify(1, 0).prps(12 << 20, 0)), Status::DATA_TRANSFER_ERROR);
    assert_eq!(driver.admin_status(identify(1, 0).prps(DATA + 1, 0)), Status::PRP_OFFSET_INVALID);
    // SGLs, and fused operations.
    for flags in [0x4006, 0x8006, 0x0106] {
        assert_eq!(driver.admin_status(identify(1, 0).dword(0, flags)), Status::INVALID_FIELD);
    }
}

#[test]
fn opcodes_that_are_not_supported() {
    let mut driver = Driver::new(1, 0);
    for opcode in [0x03, 0x0d, 0x10, 0x11, 0x14, 0x15, 0x18, 0x80, 0x84, 0xc0, 0xff] {
        assert_eq!(driver.admin_status(Entry::new(opcode, 1)), Status::INVALID_OPCODE);
    }
    assert_eq!(driver.admin_ok(Entry::new(admin_opcode::ABORT, 0).dword(10, 1)), 1);
}

#[test]
fn features() {
    let mut driver = Driver::cold(3, 0);
    driver.enable();
    let set = |id: u32, value: u32| Entry::new(0x09, 0).dword(10, id).dword(11, value);
    let get = |id: u32| Entry::new(0x0a, 0).dword(10, id);
    assert_eq!(driver.admin_ok(set(7, 0x003f_003f)), 0x0002_0002);
    assert_eq!(driver.admin_status(set(7, 0xffff)), Status::INVALID_FIELD);
    for id in [1, 4, 5, 8, 10, 11] {
        driver.admin_ok(set(id, 0x101));
        assert_eq!(driver.admin_ok(get(id)), 0x101, "{id}");
    }
    assert_eq!(driver.admin_ok(get(6)), 1);
    driver.admin_ok(set(6, 0));
    assert_eq!((driver.admin_ok(get(6)), driver.admin_ok(get(2)), driver.admin_ok(get(7))), (0, 0, 0x0002_0002));
    driver.admin_ok(set(2, 0));
    assert_eq!(driver.admin_status(set(2, 1)), Status::INVALID_FIELD);
    assert_eq!(driver.admin_ok(get(9).dword(11, 3)), 3);
    assert_eq!(driver.admin_status(get(9).dword(11, 4)), Status::INVALID_FIELD);
    assert_eq!(driver.admin_status(set(0x80, 0)), Status::INVALID_FIELD);
    assert_eq!(driver.admin_status(get(0)), Status::INVALID_FIELD);
    assert_eq!(driver.admin_status(set(0x8000_0004, 0)), Status::FEATURE_NOT_SAVEABLE);
    driver.create_queues(1);
    assert_eq!(driver.admin_status(set(7, 0)), Status::COMMAND_SEQUENCE_ERROR);
}

#[test]
fn log_pages() {
    let mut driver = Driver::new(1, 0);
    driver.call(1, Entry::io(2, 0, 8).prps(DATA + 0x1_0000, 0));
    driver.admin_ok(log(0x02, 128));
    assert_eq!(driver.bytes(DATA + 64, 1), [1]);
    driver.admin_ok(log(0x03, 128));
    assert_eq!(driver.bytes(DATA + 8, 3), b"1.0");
    // As ebsnvme asks: 1025 dwords into one page.
    driver.put(DATA, &[0xee; 0x2000]);
    driver.admin_ok(log(0xd0, 1025));
    assert_eq!(driver.bytes(DATA, 4), 0x3c23_b510u32.to_le_bytes());
    assert_eq!((driver.bytes(DATA + 8, 1), driver.bytes(DATA + 24, 2)), (vec![1], vec![0, 0x10]));
    assert_eq!(driver.bytes(DATA + 0x1000, 1), [0xee]);
    // A part of it.
    driver.admin_ok(log(0xd0, 2).dword(12, 24));
    assert_eq!(driver.bytes(DATA, 2), [0, 0x10]);
    assert_eq!(driver.admin_status(log(0xd0, 2).dword(12, 3)), Status::INVALID_FIELD);
    assert_eq!(driver.admin_status(log(0xd0, 2).dword(12, 4100)), Status::INVALID_FIELD);
    assert_eq!(driver.admin_status(log(0xd0, 2).dword(13, 1)), Status::INVALID_FIELD);
    assert_eq!(driver.admin_status(log(0x05, 2)), Status::INVALID_LOG_PAGE);
    // As many dwords as can be asked for.
    driver.admin_ok(log(0x02, 1).dword(10, 0xffff_0002).dword(11, 0xffff));
}

#[test]
fn creating_queues() {
    let mut driver = Driver::cold(2, 0);
    driver.enable();
    let (cq, sq) = (admin_opcode::CREATE_IO_CQ, admin_opcode::CREATE_IO_SQ);
    for (entry, status) in [
        (create(cq, 0, 8, DATA, 1), Status::INVALID_QUEUE_ID),
        (create(cq, 3, 8, DATA, 1), Status::INVALID_QUEUE_ID),
        (create(cq, 0xffff, 8, DATA, 1), Status::INVALID_QUEUE_ID),
        (create(cq, 1, 1, DATA, 1), Status::INVALID_QUEUE_SIZE),
        (create(cq, 1, 1025, DATA, 1), Status::INVALID_QUEUE_SIZE),
        (create(cq, 1, 8, DATA, 0), Status::INVALID_FIELD),
        (create(cq, 1, 8, DATA + 0x40, 1), Status::PRP_OFFSET_INVALID),
        (create(cq, 1, 8, 0, 1), Status::DATA_TRANSFER_ERROR),
        (create(cq, 1, 8, 12 << 20, 1), Status::DATA_TRANSFER_ERROR),
        (create(cq, 1, 8, DATA, 3 << 16 | 3), Status::INVALID_INTERRUPT_VECTOR),
        (create(sq, 1, 8, DATA, 1 << 16 | 1), Status::COMPLETION_QUEUE_INVALID),
        (create(sq, 1, 8, DATA, 1), Status::INVALID_QUEUE_ID),
        (create(sq, 1, 8, DATA, 9 << 16 | 1), Status::INVALID_QUEUE_ID),
    ] {
        assert_eq!(driver.admin_status(entry), status, "{entry:x?}");
    }
    driver.create_queues(1);
    assert_eq!(driver.admin_status(create(cq, 1, 8, DATA, 1)), Status::INVALID_QUEUE_ID);
    assert_eq!(driver.admin_status(create(sq, 1, 8, DATA, 1 << 16 | 1)), Status::INVALID_QUEUE_ID);
    // Entry sizes that were not set.
    driver.write32(0x14, 0x0000_0001);
    assert_eq!(driver.admin_status(create(cq, 2, 8, DATA, 1)), Status::INVALID_QUEUE_SIZE);
}

#[test]
fn deleting_queues() {
    let mut driver = Driver::new(2, 0);
    let delete = |opcode, id| Entry::new(opcode, 0).dword(10, id);
    let (cq, sq) = (admin_opcode::DELETE_IO_CQ, admin_opcode::DELETE_IO_SQ);
    assert_eq!(driver.admin_status(delete(cq, 1)), Status::INVALID_QUEUE_DELETION);
    for id in [0, 3, 0xffff] {
        assert_eq!(driver.admin_status(delete(cq, id)), Status::INVALID_QUEUE_ID);
        assert_eq!(driver.admin_status(delete(sq, id)), Status::INVALID_QUEUE_ID);
    }
    driver.admin_ok(delete(sq, 1));
    assert_eq!(driver.admin_status(delete(sq, 1)), Status::INVALID_QUEUE_ID);
    driver.admin_ok(delete(cq, 1));
    assert_eq!(driver.admin_status(delete(cq, 1)), Status::INVALID_QUEUE_ID);
    driver.create_queues(1);
    assert_eq!(driver.call(1, Entry::new(0, 1)).status, Status::SUCCESS);
}

#[test]
fn the_admin_queue_wraps_and_fills_up() {
    let mut driver = Driver::new(1, 0);
    for _ in 0..3 * ADMIN_ENTRIES {
        driver.admin_ok(Entry::new(admin_opcode::ABORT, 0));
    }
    // More commands than completions are fetched: the rest waits for the head.
    let commands = ADMIN_ENTRIES - 1;
    for _ in 0..2 {
        for _ in 0..commands {
            driver.push(0, Entry::new(admin_opcode::ABORT, 0));
        }
        driver.ring(0);
    }
    let mut done = 0;
    while driver.poll(0, false).is_some() {
        done += 1;
    }
    assert_eq!(done, commands);
}

fn handle(driver: &Driver) -> NvmeHandle {
    driver.function.handle()
}

#[test]
fn a_new_size_is_announced_once_until_the_log_is_read() {
    let mut driver = Driver::new(1, 0);
    driver.admin_ok(Entry::new(0x09, 0).dword(10, 0x0b).dword(11, 1 << 8));
    let request = driver.submit(0, Entry::new(admin_opcode::ASYNC_EVENT_REQUEST, 0));
    assert_eq!(driver.poll(0, true), None);
    driver.disk.grown.store(1 << 20, Ordering::SeqCst);
    handle(&driver).resize_notify();
    let event = driver.poll(0, true).unwrap();
    assert_eq!((event.cid, event.result, event.status), (request, 0x0004_0002, Status::SUCCESS));
    driver.submit(0, Entry::new(admin_opcode::ASYNC_EVENT_REQUEST, 0));
    handle(&driver).resize_notify();
    assert_eq!(driver.poll(0, true), None);
    // Reading the page, without "retain", lets the next one through.
    let cid = driver.submit(0, log(0x04, 1024));
    let cids = [driver.poll(0, true).unwrap().cid, driver.poll(0, true).unwrap().cid];
    assert!(cids.contains(&cid) && cids.contains(&(cid - 1)));
    assert_eq!(driver.bytes(DATA, 4), [1, 0, 0, 0]);
    driver.admin_ok(identify(0, 1));
    assert_eq!(driver.bytes(DATA, 8), (DISK_SIZE / 512 + 2048).to_le_bytes());
}

#[test]
fn nobody_is_told_who_did_not_ask() {
    let mut driver = Driver::new(1, 0);
    driver.submit(0, Entry::new(admin_opcode::ASYNC_EVENT_REQUEST, 0));
    handle(&driver).resize_notify();
    assert_eq!(driver.poll(0, true), None);
}

#[test]
fn wrong_doorbells_are_reported() {
    let mut driver = Driver::new(1, 0);
    for (qid, value, information) in [(1, 99, 1), (2, 0, 0)] {
        driver.submit(0, Entry::new(admin_opcode::ASYNC_EVENT_REQUEST, 0));
        driver.ring_tail(qid, value);
        assert_eq!(driver.poll(0, true).unwrap().result, 0x0001_0000 | information << 8);
        driver.admin_ok(log(0x01, 64));
    }
    assert_eq!(driver.bytes(DATA, 1), [2]);
    assert_eq!(driver.bytes(DATA + 64, 1), [1]);
    driver.ring_head(1, 5);
    driver.ring_tail(300, 0);
    driver.submit(0, Entry::new(admin_opcode::ASYNC_EVENT_REQUEST, 0));
    assert!(driver.poll(0, true).is_some());
}

#[test]
fn event_requests_are_limited() {
    let mut driver = Driver::new(1, 0);
    for _ in 0..ASYNC_EVENT_LIMIT {
        driver.submit(0, Entry::new(admin_opcode::ASYNC_EVENT_REQUEST, 0));
    }
    assert_eq!(driver.poll(0, true), None);
    let request = Entry::new(admin_opcode::ASYNC_EVENT_REQUEST, 0);
    assert_eq!(driver.admin_status(request), Status::ASYNC_EVENT_LIMIT);
}

#[test]
fn shadow_doorbells_need_two_pages() {
    let mut driver = Driver::new(1, 0);
    for (doorbells, events) in [(0, LIST), (LIST, 0), (LIST + 8, DATA), (12 << 20, DATA), (DATA, !0xfff)] {
        let config = Entry::new(admin_opcode::DOORBELL_BUFFER_CONFIG, 0).prps(doorbells, events);
        assert_eq!(driver.admin_status(config), Status::INVALID_FIELD);
    }
}
