use std::sync::Arc;

use proptest::prelude::*;

use super::super::common::F_EVENT_IDX;
use super::super::testing::{BUFFERS, Driver, DriverQueue, INDIRECT, MEMORY_SIZE, NEXT, WRITE};
use super::super::{Activation, VirtioDevice};
use super::*;

/// Hands its only queue over to the test.
struct Holder(Arc<std::sync::Mutex<Option<DeviceQueue>>>);

impl VirtioDevice for Holder {
    fn id(&self) -> u16 {
        42
    }
    fn class(&self) -> u32 {
        0
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> &[u16] {
        &[8]
    }
    fn activate(&mut self, mut activation: Activation) -> std::io::Result<()> {
        *self.0.lock().unwrap() = activation.queues.pop().flatten().map(|active| active.queue);
        Ok(())
    }
    fn reset(&mut self) {}
}

fn queue(features: u64) -> (Driver, DriverQueue, DeviceQueue) {
    let held = Arc::default();
    let mut driver = Driver::new(Box::new(Holder(Arc::clone(&held))));
    driver.enable_msix(2);
    assert!(driver.negotiate(features));
    let theirs = driver.queue(0, 8);
    driver.start();
    let ours = held.lock().unwrap().take().unwrap();
    (driver, theirs, ours)
}

fn segment(address: u64, length: u32) -> Segment {
    Segment { address: GuestAddress(address), length }
}

#[test]
fn chains_are_taken_used_and_published() {
    let (driver, mut theirs, mut ours) = queue(0);
    let mut buffers = Buffers::default();
    assert!(!ours.has_available().unwrap());
    assert_eq!(ours.pop(&mut buffers).unwrap(), None);
    theirs.add(&[(0x100, 10), (0x200, 0), (0x300, 30)], &[(0x400, 40)]);
    assert!(ours.has_available().unwrap());
    let chain = ours.pop(&mut buffers).unwrap().unwrap();
    assert_eq!(chain, Chain { head: 0, readable: 40, writable: 40 });
    assert_eq!(buffers.readable, [segment(0x100, 10), segment(0x300, 30)]);
    assert_eq!(buffers.writable, [segment(0x400, 40)]);
    ours.push_used(chain.head, 7).unwrap();
    assert_eq!(theirs.take_used(), None, "not published");
    ours.publish().unwrap();
    ours.interrupt().unwrap();
    ours.interrupt().unwrap();
    assert_eq!(theirs.take_used(), Some((0, 7)));
    assert_eq!(driver.interrupts(1), 1);
}

#[test]
fn chains_put_back_come_again() {
    let (_driver, mut theirs, mut ours) = queue(0);
    let mut buffers = Buffers::default();
    theirs.add(&[], &[(0x100, 1)]);
    theirs.add(&[], &[(0x200, 1)]);
    let first = ours.pop(&mut buffers).unwrap();
    let _ = ours.pop(&mut buffers).unwrap();
    ours.put_back(2);
    assert_eq!(ours.pop(&mut buffers).unwrap(), first);
}

#[test]
fn without_event_index_a_flag_suppresses_interrupts() {
    let (driver, mut theirs, mut ours) = queue(0);
    driver.memory.write_obj(AVAIL_NO_INTERRUPT, GuestAddress(theirs.avail)).unwrap();
    for expected in [0, 1] {
        theirs.add(&[(0x100, 1)], &[]);
        let chain = ours.pop(&mut Buffers::default()).unwrap().unwrap();
        ours.push_used(chain.head, 0).unwrap();
        ours.publish().unwrap();
        ours.interrupt().unwrap();
        assert_eq!(driver.interrupts(1), expected);
        driver.memory.write_obj(0u16, GuestAddress(theirs.avail)).unwrap();
    }
}

#[test]
fn event_index_interrupts_when_the_wished_one_is_passed_also_around_the_end() {
    let (driver, mut theirs, mut ours) = queue(F_EVENT_IDX);
    let mut used = 0u16;
    for round in 0..20_000u32 {
        // Interrupt wished after the third of each four.
        theirs.set_used_event(used.wrapping_add(2));
        for step in 0..4 {
            theirs.add(&[(0x100, 1)], &[]);
            let chain = ours.pop(&mut Buffers::default()).unwrap().unwrap();
            ours.push_used(chain.head, 0).unwrap();
            ours.publish().unwrap();
            if step % 2 == 1 {
                ours.interrupt().unwrap();
                assert_eq!(driver.interrupts(1), u64::from(step == 3), "round {round}");
            }
        }
        used = used.wrapping_add(4);
    }
    assert!(!ours.enable_kicks().unwrap());
    assert_eq!(theirs.avail_event(), used);
}

#[test]
fn indirect_chains_are_followed_once_and_bounded() {
    let (_driver, mut theirs, mut ours) = queue(0);
    let mut buffers = Buffers::default();
    theirs.descriptor(BUFFERS, 0, 0x100, 10, NEXT, 1);
    theirs.descriptor(BUFFERS, 1, 0x200, 20, WRITE, 0);
    theirs.descriptor(theirs.descriptors, 0, BUFFERS, 32, INDIRECT, 0);
    theirs.offer(0);
    assert_eq!(ours.pop(&mut buffers).unwrap(), Some(Chain { head: 0, readable: 10, writable: 20 }));

    let mut bad = |prepare: &dyn Fn(&DriverQueue)| {
        let (_driver, mut theirs, mut ours) = queue(0);
        prepare(&theirs);
        theirs.offer(0);
        buffers.clear();
        ours.pop(&mut buffers).unwrap_err().to_string()
    };
    let error = bad(&|q| {
        (0..100).for_each(|i| q.descriptor(BUFFERS, i, 0x100, 1, NEXT, i + 1));
        q.descriptor(q.descriptors, 0, BUFFERS, 1600, INDIRECT, 0);
    });
    assert!(error.contains("longer than the queue"), "{error}");
    for (length, flags) in [(0, 0), (20, 0), (16, INDIRECT), (16, NEXT), (0x10_0000, 0)] {
        let error = bad(&|q| {
            q.descriptor(BUFFERS, 0, BUFFERS + 16, 16, flags, 1);
            q.descriptor(BUFFERS, 1, BUFFERS, 16, INDIRECT, 0);
            q.descriptor(q.descriptors, 0, BUFFERS, length, INDIRECT, 0);
        });
        assert!(error.contains("breaks off"), "{length} {flags}: {error}");
    }
}

#[test]
fn broken_chains_and_rings_are_errors() {
    let pop = |prepare: &dyn Fn(&Driver, &mut DriverQueue)| {
        let (driver, mut theirs, mut ours) = queue(0);
        prepare(&driver, &mut theirs);
        ours.pop(&mut Buffers::default()).unwrap_err().to_string()
    };
    let error = pop(&|_, q| {
        q.descriptor(q.descriptors, 0, 0x100, 1, NEXT, 0);
        q.offer(0);
    });
    assert!(error.contains("breaks off"), "a loop: {error}");
    let error = pop(&|_, q| q.offer(8));
    assert!(error.contains("no such descriptor"), "{error}");
    let error = pop(&|_, q| {
        q.descriptor(q.descriptors, 0, 0x100, 1, NEXT | WRITE, 1);
        q.descriptor(q.descriptors, 1, 0x100, 1, 0, 0);
        q.offer(0);
    });
    assert!(error.contains("readable after writable"), "{error}");
    let error = pop(&|driver, q| driver.memory.write_obj(9u16, GuestAddress(q.avail + 2)).unwrap());
    assert!(error.contains("bad ring"), "more chains than entries: {error}");
}

#[test]
fn bytes_are_gathered_and_scattered_across_segments() {
    let (driver, ..) = queue(0);
    let memory = &driver.memory;
    let segments = [segment(0x8_0000, 3), segment(0x9_0000, 4)];
    assert_eq!(scatter(memory, &segments, &[b"ab", b"", b"cdefghij"]).unwrap(), 7);
    let mut all = [0; 9];
    assert_eq!(gather(memory, &segments, &mut all).unwrap(), 7);
    assert_eq!(&all, b"abcdefg\0\0");
    assert_eq!(gather(memory, &segments, &mut all[..4]).unwrap(), 4);
    assert!(matches!(gather(memory, &[segment(MEMORY_SIZE - 1, 2)], &mut all), Err(QueueError::Memory(_))));
    assert!(matches!(scatter(memory, &[segment(u64::MAX, 2)], &[b"ab"]), Err(QueueError::Memory(_))));

    let mut rest = segments;
    assert_eq!(advance(&mut rest, 3), [segment(0x9_0000, 4)]);
    let mut rest = segments;
    assert_eq!(advance(&mut rest, 5), [segment(0x9_0002, 2)]);
    let mut rest = segments;
    assert_eq!(advance(&mut rest, 8), []);
}

proptest! {
    #[test]
    fn garbage_in_rings_and_tables_never_runs_away(
        garbage in proptest::collection::vec(any::<u8>(), 0x2000),
        low in any::<bool>(),
        event_idx in any::<bool>(),
    ) {
        let (driver, theirs, mut ours) = queue(if event_idx { F_EVENT_IDX } else { 0 });
        let mut bytes = garbage;
        if low {
            // Small numbers are indices and addresses that exist.
            bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = if i % 2 == 1 { 0 } else { *byte % 8 });
        }
        driver.memory.write_slice(&bytes[..128], GuestAddress(theirs.descriptors)).unwrap();
        driver.memory.write_slice(&bytes[128..0x1000], GuestAddress(0)).unwrap();
        driver.memory.write_slice(&bytes[0x1000..0x1020], GuestAddress(theirs.avail)).unwrap();
        let mut buffers = Buffers::default();
        let mut taken = 0;
        while let Ok(Some(chain)) = ours.pop(&mut buffers) {
            taken += 1;
            prop_assert!(taken <= 8 && buffers.readable.len() + buffers.writable.len() <= 64);
            let mut some = [0; 64];
            let _ = gather(ours.memory(), &buffers.readable, &mut some);
            let _ = ours.push_used(chain.head, 0);
            let _ = ours.publish();
            let _ = ours.interrupt();
        }
        let _ = ours.enable_kicks();
    }
}
