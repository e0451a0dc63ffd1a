use vm_memory::{Bytes, GuestAddress};

use super::super::common::F_EVENT_IDX;
use super::super::status;
use super::super::testing::{BUFFERS, Driver};
use super::*;

fn started(features: u64) -> (Driver, super::super::testing::DriverQueue) {
    let mut driver = Driver::new(Box::new(VirtioRng::new()));
    driver.enable_msix(2);
    assert!(driver.negotiate(features));
    let queue = driver.queue(0, 64);
    driver.start();
    (driver, queue)
}

#[test]
fn requests_are_filled_before_the_kick_returns() {
    for features in [0, F_EVENT_IDX] {
        let (driver, mut queue) = started(features);
        queue.add(&[], &[(BUFFERS, 100), (BUFFERS + 0x1000, 5000)]);
        queue.add(&[], &[(BUFFERS + 0x4000, 64)]);
        driver.kick(&queue);
        assert_eq!(queue.take_used(), Some((0, 5100)));
        assert_eq!(queue.take_used(), Some((2, 64)));
        assert_eq!(driver.interrupts(1), 1, "one for both");
        let mut bytes = [0; 100];
        driver.memory.read_slice(&mut bytes, GuestAddress(BUFFERS)).unwrap();
        assert!(bytes.iter().any(|byte| *byte != bytes[0]));
        let mut tail = [0; 64];
        driver.memory.read_slice(&mut tail, GuestAddress(BUFFERS + 0x1000 + 5000 - 64)).unwrap();
        assert!(tail.iter().any(|byte| *byte != 0));
        let mut beyond = [0; 64];
        driver.memory.read_slice(&mut beyond, GuestAddress(BUFFERS + 0x1000 + 5000)).unwrap();
        assert_eq!(beyond, [0; 64]);
    }
}

#[test]
fn a_request_gets_at_most_64_kib() {
    let (driver, mut queue) = started(0);
    queue.add(&[], &[(BUFFERS, 8 << 20)]);
    queue.add(&[(BUFFERS, 16)], &[]);
    driver.kick(&queue);
    assert_eq!(queue.take_used(), Some((0, 64 << 10)));
    assert_eq!(queue.take_used(), Some((1, 0)), "nothing to write");
}

#[test]
fn a_broken_ring_ends_in_a_request_for_reset_and_a_reset_mends_it() {
    let (mut driver, mut queue) = started(F_EVENT_IDX);
    queue.add(&[], &[(u64::MAX - 10, 100)]);
    driver.kick(&queue);
    assert_eq!((driver.status(), driver.interrupts(0)), (15 | status::NEEDS_RESET, 1));
    driver.kick(&queue);
    assert_eq!(queue.take_used(), None);

    assert!(driver.negotiate(0));
    let mut queue = driver.queue(0, 64);
    driver.start();
    queue.add(&[], &[(BUFFERS, 16)]);
    driver.kick(&queue);
    assert_eq!(queue.take_used(), Some((0, 16)));
}
