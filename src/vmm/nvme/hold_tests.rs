use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::vmm::nvme::spec::{Status, register};
use crate::vmm::nvme::testing::{DATA, Driver, Entry};
use crate::vmm::pci::PciFunction;

/// Holds every access back for as long, and counts them.
struct Every(Duration, AtomicUsize);

impl Every {
    fn new(delay: Duration) -> Arc<Self> {
        Arc::new(Every(delay, AtomicUsize::new(0)))
    }

    fn count(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

impl Throttle for Every {
    fn take(&self, _: Access, _: Instant) -> Duration {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0
    }
}

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(100_000);

fn read(lba: u64) -> Entry {
    Entry::io(2, lba, 1).prps(DATA + lba * 512, 0)
}

#[test]
fn what_is_due_is_done_at_the_doorbell() {
    let throttle = Every::new(Duration::ZERO);
    let mut driver = Driver::with_throttle(1, 1, throttle.clone());
    for lba in 0..20 {
        assert_eq!(driver.call(1, read(lba)).status, Status::SUCCESS);
    }
    assert_eq!(throttle.count(), 20);
}

#[test]
fn what_is_held_back_is_done_later_once_and_in_order() {
    let throttle = Every::new(Duration::from_micros(200));
    let mut driver = Driver::with_throttle(2, 2, throttle.clone());
    for round in 0..10 {
        let cids: Vec<_> = (0..5).map(|lba| driver.submit(1, read(round * 5 + lba))).collect();
        let other = driver.submit(2, read(500));
        for cid in cids {
            let completion = driver.wait(1);
            assert_eq!((completion.cid, completion.status), (cid, Status::SUCCESS));
        }
        assert_eq!(driver.wait(2).cid, other);
    }
    assert_eq!(throttle.count(), 60);
}

#[test]
fn what_does_not_move_data_is_free() {
    let throttle = Every::new(FOR_EVER);
    let mut driver = Driver::with_throttle(2, 4, throttle.clone());
    driver.submit(1, read(0));
    // Flush, on another queue, while a read is held back. It has to go to a thread the first times.
    driver.submit(2, Entry::new(0, 1));
    assert_eq!(driver.wait(2).status, Status::SUCCESS);
    assert!(driver.poll(1, true).is_none());
    assert_eq!(throttle.count(), 1);
}

#[test]
fn a_reset_waits_for_nothing_that_is_held_back() {
    let throttle = Every::new(FOR_EVER);
    let mut driver = Driver::with_throttle(2, 2, throttle.clone());
    for _ in 0..3 {
        // The doorbell comes back at once.
        driver.submit(1, read(0));
        driver.submit(1, read(1));
        driver.submit(2, read(2));
        assert!(driver.poll(1, true).is_none() && driver.poll(2, true).is_none());
        driver.write32(register::CC, 0);
        while driver.read32(register::CSTS) & 1 != 0 {
            std::thread::yield_now();
        }
        driver.enable();
        driver.create_queues(1);
        driver.create_queues(2);
    }
}

#[test]
fn a_volume_that_is_taken_away_and_a_machine_that_ends_wait_for_nothing_either() {
    let throttle = Every::new(FOR_EVER);
    let mut driver = Driver::with_throttle(1, 2, throttle.clone());
    driver.submit(1, read(0));
    driver.function.handle().close(FOR_EVER);
    assert_eq!(driver.function.controller.in_flight(), 0);
    let mut driver = Driver::with_throttle(1, 2, throttle);
    driver.submit(1, read(0));
    driver.function.shutdown();
    drop(driver);
}

#[test]
fn without_threads_nothing_is_held_back() {
    let mut driver = Driver::with_throttle(1, 0, Every::new(FOR_EVER));
    assert_eq!(driver.call(1, read(0)).status, Status::SUCCESS);
}

#[test]
fn accesses_are_what_the_commands_say() {
    let command = |entry: Entry| {
        let mut bytes = [0; 64];
        entry.0.iter().zip(bytes.chunks_exact_mut(4)).for_each(|(word, to)| to.copy_from_slice(&word.to_le_bytes()));
        access(&Command::from_bytes(&bytes))
    };
    assert_eq!(command(Entry::io(2, 3, 8)), Some(Access { write: false, offset: 1536, length: 4096 }));
    assert_eq!(command(Entry::io(1, 1 << 40, 1)), Some(Access { write: true, offset: 512 << 40, length: 512 }));
    assert_eq!(command(Entry::io(1, u64::MAX, 0x1_0000)).unwrap().length, MAX_TRANSFER);
    assert_eq!(command(Entry::io(8, 0, 1)).map(|a| a.write), Some(true));
    assert_eq!(command(Entry::new(0, 1)), None);
}
