use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::vmm::nvme::spec::Status;
use crate::vmm::nvme::testing::{DATA, Driver, EVENTS, Entry, IO_ENTRIES, MemoryDisk, SHADOW};
use crate::vmm::pci::PciFunction;

fn read(lba: u64) -> Entry {
    Entry::io(2, lba, 1).prps(DATA + lba * 512, 0)
}

/// Wait until `count` accesses stand at the held disk.
fn wait_for(disk: &MemoryDisk, count: usize) {
    while disk.waiting.load(Ordering::SeqCst) != count {
        std::thread::yield_now();
    }
}

#[test]
fn a_batch_is_one_interrupt() {
    let mut driver = Driver::new(2, 0);
    for lba in 0..5 {
        driver.push(1, read(lba));
    }
    driver.ring(1);
    for _ in 0..5 {
        assert_eq!(driver.poll(1, true).map(|c| c.status), Some(Status::SUCCESS));
    }
    assert_eq!((driver.router.take(1), driver.router.take(2)), (1, 0));
}

#[test]
fn queues_wrap_many_times() {
    let mut driver = Driver::new(1, 0);
    for i in 0..u64::from(5 * IO_ENTRIES) + 3 {
        let completion = driver.call(1, read(i % 16));
        assert_eq!(u64::from(completion.head), (i + 1) % u64::from(IO_ENTRIES));
    }
}

#[test]
fn queues_share_a_completion_queue() {
    let mut driver = Driver::new(2, 0);
    driver.admin_ok(Entry::new(0x00, 0).dword(10, 2));
    let create = Entry::new(0x01, 0).prps(0x2_4000, 0).dword(10, (IO_ENTRIES - 1) << 16 | 2).dword(11, 1 << 16 | 1);
    driver.admin_ok(create);
    driver.submit(2, read(1));
    assert_eq!(driver.poll(1, true).map(|c| c.submission), Some(2));
}

#[test]
fn without_room_for_completions_commands_wait() {
    for shadow in [false, true] {
        let mut driver = Driver::new(1, 0);
        if shadow {
            driver.enable_shadow();
        }
        let all = IO_ENTRIES - 1;
        for _ in 0..2 {
            for lba in 0..all {
                driver.push(1, read(lba.into()));
            }
            driver.ring(1);
        }
        for _ in 0..all {
            assert!(driver.poll(1, false).is_some());
        }
        assert_eq!(driver.poll(1, false), None);
        // The head moves: the second half is done.
        let head = all;
        if !shadow || driver.update_shadow(12, head) {
            driver.ring_head(1, head);
        }
        for _ in 0..all {
            assert!(driver.poll(1, true).is_some(), "shadow: {shadow}");
        }
    }
}

#[test]
fn shadow_doorbells_save_register_writes() {
    let mut driver = Driver::new(1, 1);
    driver.enable_shadow();
    // At depth one the tail rings each time and the head never.
    for lba in 0..40 {
        driver.push(1, read(lba % 16));
        assert!(driver.ring(1));
        assert!(driver.poll(1, false).is_some());
        let head = (lba as u32 + 1) % IO_ENTRIES;
        assert!(!driver.update_shadow(12, head), "{lba}");
    }
    // While a thread goes on with the queue, nobody rings.
    driver.disk.cold.store(true, Ordering::SeqCst);
    driver.disk.hold(true);
    driver.push(1, read(0));
    driver.push(1, read(1));
    assert!(driver.ring(1));
    wait_for(&driver.disk, 1);
    driver.push(1, read(2));
    assert!(!driver.ring(1));
    driver.disk.hold(false);
    for _ in 0..3 {
        driver.wait(1);
    }
}

#[test]
fn a_register_written_late_does_not_turn_back_the_shadow() {
    let mut driver = Driver::new(1, 0);
    driver.enable_shadow();
    driver.push(1, read(0));
    driver.push(1, read(1));
    driver.update_shadow(8, 2);
    driver.ring_tail(1, 1);
    driver.ring_tail(1, 1);
    assert!(driver.poll(1, true).is_some() && driver.poll(1, true).is_some());
    assert_eq!(driver.poll(1, true), None);
}

#[test]
fn garbage_in_a_shadow_doorbell_is_reported() {
    let mut driver = Driver::new(1, 0);
    driver.enable_shadow();
    driver.submit(0, Entry::new(0x0c, 0));
    driver.update_shadow(8, 77);
    driver.ring_tail(1, 1);
    assert_eq!(driver.poll(0, true).map(|c| c.result), Some(0x0001_0100));
    assert_eq!(driver.poll(1, true), None);
}

#[test]
fn shadow_doorbells_start_where_the_queues_are() {
    let mut driver = Driver::new(1, 0);
    driver.call(1, read(0));
    driver.call(1, read(1));
    driver.enable_shadow();
    let word = |at| driver.memory.read_obj::<u32>(GuestAddress(at)).unwrap();
    assert_eq!([word(SHADOW + 8), word(SHADOW + 12), word(EVENTS + 8)], [2, 2, 2]);
    driver.call(1, read(2));
}

#[test]
fn what_blocks_is_done_by_threads() {
    let mut driver = Driver::new(1, 4);
    driver.disk.cold.store(true, Ordering::SeqCst);
    driver.disk.hold(true);
    // One by one, as a guest with a deep queue submits: all of them reach the disk.
    for lba in 0..3 {
        driver.submit(1, read(lba));
        wait_for(&driver.disk, lba as usize + 1);
    }
    // And together.
    driver.push(1, read(3));
    driver.push(1, read(4));
    driver.ring(1);
    wait_for(&driver.disk, 4);
    assert_eq!(driver.poll(1, true), None);
    driver.disk.hold(false);
    let mut cids: Vec<u16> = (0..5).map(|_| driver.wait(1).cid).collect();
    cids.sort_unstable();
    cids.dedup();
    assert_eq!(cids.len(), 5);
    let expected = driver.disk.data.lock().unwrap()[..5 * 512].to_vec();
    assert_eq!(driver.bytes(DATA, 5 * 512), expected);
}

#[test]
fn a_long_batch_goes_to_a_thread() {
    let mut driver = Driver::new(1, 1);
    for _ in 0..50 {
        for lba in 0..7 {
            driver.push(1, read(lba));
        }
        driver.ring(1);
        for _ in 0..7 {
            assert_eq!(driver.wait(1).status, Status::SUCCESS);
        }
    }
}

#[test]
fn deleting_a_queue_waits_for_what_is_in_flight() {
    let mut driver = Driver::new(1, 2);
    driver.disk.cold.store(true, Ordering::SeqCst);
    driver.disk.hold(true);
    driver.submit(1, read(0));
    wait_for(&driver.disk, 1);
    let delete = driver.submit(0, Entry::new(0x00, 0).dword(10, 1));
    assert_eq!(driver.poll(0, true), None);
    let again = driver.call(0, Entry::new(0x00, 0).dword(10, 1));
    assert_eq!(again.status, Status::INVALID_QUEUE_ID);
    // What comes after the deletion is not done.
    driver.submit(1, read(1));
    driver.disk.hold(false);
    let completion = driver.wait(0);
    assert_eq!((completion.cid, completion.status), (delete, Status::SUCCESS));
    assert!(driver.poll(1, false).is_some());
    assert_eq!(driver.poll(1, false), None);
    driver.admin_ok(Entry::new(0x04, 0).dword(10, 1));
    driver.create_queues(1);
    driver.submit(1, read(2));
    assert_eq!(driver.wait(1).status, Status::SUCCESS);
}

#[test]
fn shutdown_joins_threads_and_ends_service() {
    let mut driver = Driver::new(1, 2);
    driver.disk.cold.store(true, Ordering::SeqCst);
    driver.submit(1, read(0));
    driver.wait(1);
    driver.function.shutdown();
    driver.submit(1, read(1));
    assert_eq!(driver.poll(1, true), None);
    driver.function.shutdown();
}

#[test]
fn vcpus_and_threads_together_lose_nothing() {
    let mut driver = Driver::new(4, 4);
    let disk = driver.disk.clone();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    // The disk turns cold and warm all the time, so that commands change hands.
    let weather = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::SeqCst) {
                disk.cold.fetch_xor(true, Ordering::SeqCst);
                std::thread::yield_now();
            }
        }
    });
    driver.enable_shadow();
    let mut in_flight = [0; 5];
    for round in 0..4000u64 {
        let id = (round % 4 + 1) as u16;
        if in_flight[usize::from(id)] == IO_ENTRIES - 1 {
            assert_eq!(driver.wait(id).status, Status::SUCCESS);
            in_flight[usize::from(id)] -= 1;
        }
        driver.submit(id, read(round % 64));
        in_flight[usize::from(id)] += 1;
    }
    for id in 1..=4 {
        for _ in 0..in_flight[usize::from(id)] {
            driver.wait(id);
        }
        assert_eq!(driver.poll(id, true), None);
    }
    stop.store(true, Ordering::SeqCst);
    weather.join().unwrap();
    let expected = driver.disk.data.lock().unwrap()[..64 * 512].to_vec();
    assert_eq!(driver.bytes(DATA, 64 * 512), expected);
}

/// What a hostile guest does.
#[derive(Clone, Debug)]
enum Hostile {
    Bar(u64, Vec<u8>),
    Read(u64, u8),
    Command(u16, [u32; 16]),
    Tail(u16, u32),
    Head(u16, u32),
    Memory(u64, Vec<u8>),
    Enable,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let bytes = prop_oneof![prop::collection::vec(any::<u8>(), 4), prop::collection::vec(any::<u8>(), 8)];
    // Addresses and values that get past the first checks, most of the time.
    let word = prop_oneof![any::<u32>(), 0u32..16, (0u32..0x300).prop_map(|page| page << 12), Just(1)];
    let command = (0u32..0x10, prop::array::uniform16(word)).prop_map(|(opcode, mut words)| {
        words[0] = words[0] & 0xffff_0000 | opcode;
        words[7] &= 1;
        words[9] &= 1;
        words
    });
    prop_oneof![
        1 => (0u64..0x4000, bytes.clone()).prop_map(|(at, data)| Hostile::Bar(at, data)),
        1 => (0u64..0x4010, 1u8..=8).prop_map(|(at, length)| Hostile::Read(at, length)),
        12 => (0u16..3, command).prop_map(|(id, words)| Hostile::Command(id, words)),
        2 => (0u16..4, 0u32..40).prop_map(|(id, value)| Hostile::Tail(id, value)),
        2 => (0u16..4, 0u32..40).prop_map(|(id, value)| Hostile::Head(id, value)),
        2 => (0u64..0x3_0000, prop::collection::vec(any::<u8>(), 1..64)).prop_map(|(at, data)| Hostile::Memory(at, data)),
        1 => Just(Hostile::Enable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_hostile_guest_neither_panics_nor_hangs_us(
        actions in prop::collection::vec(hostile(), 1..120), threads in 0usize..3, shadow: bool,
    ) {
        let mut driver = Driver::new(2, threads);
        if shadow {
            driver.enable_shadow();
        }
        for action in actions {
            match action {
                Hostile::Bar(at, data) => driver.function.write_bar(0, at, &data),
                Hostile::Read(at, length) => driver.function.read_bar(0, at, &mut vec![0; length.into()]),
                Hostile::Command(id, words) => {
                    driver.submit(id, Entry(words));
                }
                Hostile::Tail(id, value) => driver.ring_tail(id, value),
                Hostile::Head(id, value) => driver.ring_head(id, value),
                Hostile::Memory(at, data) => driver.put(at, &data),
                Hostile::Enable => {
                    driver.write32(0x14, 0);
                    driver.write32(0x14, 0x46_0001);
                }
            }
        }
        // Whatever happened, a reset brings it back.
        driver.write32(0x14, 0);
        while driver.read32(0x1c) != 0 {
            std::thread::yield_now();
        }
        driver.enable();
        driver.create_queues(1);
        driver.submit(1, read(0));
        prop_assert_eq!(driver.wait(1).status, Status::SUCCESS);
    }
}
