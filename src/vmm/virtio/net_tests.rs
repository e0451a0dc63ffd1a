use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::super::common::F_EVENT_IDX;
use super::super::net_header::HEADER_SIZE;
use super::super::status;
use super::super::testing::{BUFFERS, Driver, DriverQueue, wait_readable};
use super::*;
use crate::vmm::backend::{Frame, Offload, PartialChecksum};

/// The far side of the card.
#[derive(Default)]
struct Wire {
    sent: VecDeque<(Vec<u8>, Offload)>,
    to_guest: VecDeque<Frame>,
    offloads: Option<(bool, bool)>,
    recycled: usize,
    echo: bool,
    panics: bool,
}

struct TestNet {
    wire: Arc<Mutex<Wire>>,
    /// Wakes the card.
    wake: Arc<EventFd>,
    /// Wakes the test.
    sent: Arc<EventFd>,
}

impl NetBackend for TestNet {
    fn set_guest_offload(&mut self, checksum: bool, tcp_segment: bool) {
        self.wire.lock().unwrap().offloads = Some((checksum, tcp_segment));
    }
    fn transmit(&mut self, frame: &[u8], offload: Offload, _now: Instant) {
        let mut wire = self.wire.lock().unwrap();
        if wire.echo {
            wire.to_guest.push_back(Frame { bytes: frame.to_vec(), offload });
        }
        wire.sent.push_back((frame.to_vec(), offload));
        self.sent.write(1).unwrap();
    }
    fn receive(&mut self) -> Option<Frame> {
        self.wire.lock().unwrap().to_guest.pop_front()
    }
    fn recycle(&mut self, _frame: Frame) {
        self.wire.lock().unwrap().recycled += 1;
    }
    fn poll(&mut self, _now: Instant) -> Option<Duration> {
        let _ = self.wake.read();
        assert!(!self.wire.lock().unwrap().panics, "a bug in the network");
        None
    }
    fn event_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

struct Machine {
    driver: Driver,
    rx: DriverQueue,
    tx: DriverQueue,
    wire: Arc<Mutex<Wire>>,
    wake: Arc<EventFd>,
    sent: Arc<EventFd>,
}

const BIG: u64 = OFFERED | F_EVENT_IDX;
/// Where transmitted packets are put together.
const TX_BUFFER: u64 = 0x80_0000;

impl Machine {
    fn new(features: u64) -> Self {
        let fd = || Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let (wire, wake, sent) = (Arc::<Mutex<Wire>>::default(), fd(), fd());
        let backend = TestNet { wire: Arc::clone(&wire), wake: Arc::clone(&wake), sent: Arc::clone(&sent) };
        let device = VirtioNet::new([2, 0, 0, 0, 0, 7], 9001, Box::new(backend)).unwrap();
        let mut driver = Driver::new(Box::new(device));
        driver.enable_msix(3);
        let (rx, tx) = Self::load(&mut driver, features);
        Machine { driver, rx, tx, wire, wake, sent }
    }

    fn load(driver: &mut Driver, features: u64) -> (DriverQueue, DriverQueue) {
        assert!(driver.negotiate(features));
        let queues = (driver.queue(0, 256), driver.queue(1, 256));
        driver.start();
        queues
    }

    /// Post `count` receive buffers of `size` bytes each, from `BUFFERS` on.
    fn post(&mut self, count: u64, size: u32) {
        for i in 0..count {
            self.rx.add(&[], &[(BUFFERS + i * u64::from(size), size)]);
        }
        self.driver.kick(&self.rx);
    }

    /// Hand a frame to the card from the network's side.
    fn arrive(&self, bytes: Vec<u8>, offload: Offload) {
        self.wire.lock().unwrap().to_guest.push_back(Frame { bytes, offload });
        self.wake.write(1).unwrap();
    }

    /// The next used receive buffer, waiting for its interrupt.
    fn used(&mut self) -> (u16, u32) {
        loop {
            match self.rx.take_used() {
                Some(used) => return used,
                None => self.driver.wait(1),
            }
        }
    }

    /// The next used transmit buffer.
    fn tx_used(&mut self) -> (u16, u32) {
        loop {
            match self.tx.take_used() {
                Some(used) => return used,
                None => self.driver.wait(2),
            }
        }
    }

    fn send(&mut self, header: [u8; HEADER_SIZE], frame: &[u8]) {
        self.driver.memory.write_slice(&header, GuestAddress(TX_BUFFER)).unwrap();
        self.driver.memory.write_slice(frame, GuestAddress(TX_BUFFER + 0x100)).unwrap();
        self.tx.add(&[(TX_BUFFER, HEADER_SIZE as u32), (TX_BUFFER + 0x100, frame.len() as u32)], &[]);
        self.driver.kick(&self.tx);
    }

    fn next_sent(&self) -> (Vec<u8>, Offload) {
        loop {
            if let Some(sent) = self.wire.lock().unwrap().sent.pop_front() {
                return sent;
            }
            wait_readable(&*self.sent);
            let _ = self.sent.read();
        }
    }

    fn memory(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.driver.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

fn frame(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7) as u8).collect()
}

#[test]
fn the_driver_learns_address_link_and_mtu() {
    let machine = Machine::new(BIG);
    assert_eq!(machine.driver.config_read(0), 0x1041_1af4);
    assert_eq!(machine.driver.read(machine.driver.device), [2, 0, 0, 0, 0, 7, 1, 0]);
    assert_eq!(machine.driver.read(machine.driver.device + 8), [1, 0, 0x29, 0x23]);
    assert!(
        VirtioNet::new([0; 6], 67, Box::new(TestNet { wire: Arc::default(), wake: machine.wake, sent: machine.sent }))
            .is_err()
    );
}

#[test]
fn frames_go_out_with_what_is_left_to_do() {
    let mut machine = Machine::new(BIG);
    machine.send([0; HEADER_SIZE], &frame(60));
    assert_eq!(machine.next_sent(), (frame(60), Offload::default()));
    assert_eq!(machine.tx_used(), (0, 0));
    assert_eq!(machine.wire.lock().unwrap().offloads, Some((true, true)));

    machine.send([1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0], &frame(60_000));
    let offload = Offload {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        tcp_segment: Some(1000),
        checksum_valid: false,
    };
    assert_eq!(machine.next_sent(), (frame(60_000), offload));
}

#[test]
fn what_is_no_frame_is_used_up_and_forgotten() {
    let mut machine = Machine::new(BIG);
    for (length, segments) in [(5, 1), (HEADER_SIZE as u32 + 13, 1), (40_000, 2), (u32::MAX, 1)] {
        let readable = vec![(TX_BUFFER, length); segments];
        machine.tx.add(&readable, &[]);
    }
    machine.send([0; HEADER_SIZE], &frame(14));
    assert_eq!(machine.next_sent().0, frame(14), "nothing before it");
    let heads = [(); 5].map(|()| machine.tx_used());
    assert_eq!(heads, [(0, 0), (1, 0), (2, 0), (4, 0), (5, 0)]);
}

#[test]
fn frames_come_in_one_or_several_buffers() {
    let mut machine = Machine::new(BIG);
    machine.post(4, 1000);
    machine.arrive(frame(500), Offload::default());
    assert_eq!(machine.used(), (0, 512));
    assert_eq!(machine.memory(BUFFERS, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(machine.memory(BUFFERS + 12, 500), frame(500));

    machine.arrive(frame(2500), Offload { checksum_valid: true, ..Offload::default() });
    assert_eq!([machine.used(), machine.used(), machine.used()], [(1, 1000), (2, 1000), (3, 512)]);
    assert_eq!(machine.memory(BUFFERS + 1000, 12), [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    assert_eq!(machine.memory(BUFFERS + 1012, 2500), frame(2500));
    assert_eq!(machine.wire.lock().unwrap().recycled, 2);
}

#[test]
fn a_frame_waits_for_room_and_keeps_its_place() {
    for features in [BIG, OFFERED] {
        let mut machine = Machine::new(features);
        machine.arrive(frame(2500), Offload::default());
        machine.arrive(frame(100), Offload::default());
        machine.post(2, 1000);
        machine.driver.interrupts(1);
        // The card has seen the lack of room when it answers what comes after it.
        machine.send([0; HEADER_SIZE], &frame(20));
        machine.next_sent();
        assert_eq!(machine.rx.take_used(), None);
        machine.post(2, 1000);
        let used = [machine.used(), machine.used(), machine.used(), machine.used()];
        assert_eq!(used, [(0, 1000), (1, 1000), (2, 512), (3, 112)]);
    }
}

#[test]
fn without_merging_a_frame_that_does_not_fit_is_lost() {
    let mut machine = Machine::new(F_EVENT_IDX);
    machine.post(2, 300);
    machine.arrive(frame(400), Offload::default());
    machine.arrive(frame(288), Offload::default());
    assert_eq!(machine.used(), (0, 300));
    assert_eq!(machine.memory(BUFFERS + 12, 288), frame(288));
    assert_eq!(machine.wire.lock().unwrap().offloads, Some((false, false)));
}

#[test]
fn a_frame_larger_than_the_whole_ring_is_lost() {
    let mut machine = Machine::new(BIG);
    machine.post(256, 20);
    machine.arrive(frame(256 * 20), Offload::default());
    machine.arrive(frame(20), Offload::default());
    assert_eq!([machine.used(), machine.used()], [(0, 20), (1, 12)]);
}

#[test]
fn echoes_flow_through_many_rounds_of_the_rings() {
    let mut machine = Machine::new(BIG);
    machine.wire.lock().unwrap().echo = true;
    for round in 0..1000usize {
        machine.post(1, 2048);
        let bytes = frame(14 + round);
        machine.send([0; HEADER_SIZE], &bytes);
        let (_, written) = machine.used();
        assert_eq!(written as usize, HEADER_SIZE + bytes.len());
        assert_eq!(machine.memory(BUFFERS + 12, bytes.len()), bytes);
        machine.tx.take_used();
    }
}

#[test]
fn the_network_survives_a_reload_of_the_driver() {
    let mut machine = Machine::new(BIG);
    for _ in 0..3 {
        machine.send([0; HEADER_SIZE], &frame(60));
        machine.next_sent();
        machine.driver.set_status(0);
        machine.send([0; HEADER_SIZE], &frame(61));
        (machine.rx, machine.tx) = Machine::load(&mut machine.driver, BIG);
    }
    machine.driver.root.shutdown();
    assert_eq!(Arc::strong_count(&machine.wire), 1, "the network is let go");
}

#[test]
fn broken_queues_and_networks_end_in_a_request_for_reset() {
    let mut machine = Machine::new(BIG);
    machine.tx.add(&[(u64::MAX - 20, 100)], &[]);
    machine.driver.kick(&machine.tx);
    machine.driver.wait(0);
    assert_eq!(machine.driver.status(), 15 | status::NEEDS_RESET);
    (machine.rx, machine.tx) = Machine::load(&mut machine.driver, BIG);
    machine.send([0; HEADER_SIZE], &frame(60));
    assert_eq!(machine.next_sent().0, frame(60));

    machine.wire.lock().unwrap().panics = true;
    machine.wake.write(1).unwrap();
    machine.driver.wait(0);
    assert_eq!(machine.driver.status(), 15 | status::NEEDS_RESET);
    assert!(machine.driver.negotiate(BIG));
    machine.driver.queue(0, 256);
    machine.driver.queue(1, 256);
    machine.driver.start();
    assert_eq!(machine.driver.status(), 15 | status::NEEDS_RESET, "no network is left");
}

#[test]
fn segmentation_without_checksums_is_refused() {
    let mut machine = Machine::new(BIG);
    assert!(!machine.driver.negotiate(F_GUEST_TSO4));
    assert!(!machine.driver.negotiate(F_HOST_TSO4 | F_GUEST_CSUM));
    assert!(machine.driver.negotiate(F_HOST_TSO4 | F_CSUM));
    machine.driver.start();
    assert_eq!(machine.driver.status(), 15 | status::NEEDS_RESET, "no queues");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_in_both_rings_leaves_a_card_that_can_be_reset(
        bytes in proptest::collection::vec(any::<u8>(), 0x800),
        kicks in 1u16..300,
        event_idx in any::<bool>(),
    ) {
        let features = if event_idx { BIG } else { OFFERED };
        let mut machine = Machine::new(features);
        machine.wire.lock().unwrap().echo = true;
        for (queue, bytes) in [(&machine.rx, &bytes[..0x400]), (&machine.tx, &bytes[0x400..])] {
            // Addresses and lengths mostly within memory, flags and links as they come.
            for (i, part) in bytes.as_chunks::<8>().0.iter().enumerate() {
                let [a, b, c, d, e, f, g, h] = part.map(u16::from);
                let address = u64::from(a) << 16 | u64::from(b);
                queue.descriptor(queue.descriptors, i as u16, address, u32::from(c << (d % 8)), e % 8, f % 128);
                machine.driver.memory.write_obj(g % 130, GuestAddress(queue.avail + 4 + 2 * i as u64)).unwrap();
                machine.driver.memory.write_obj(h, GuestAddress(queue.avail + 4 + 2 * (i as u64 + 128))).unwrap();
            }
            machine.driver.memory.write_obj(kicks, GuestAddress(queue.avail + 2)).unwrap();
            machine.driver.kick(queue);
        }
        machine.arrive(frame(3000), Offload::default());
        machine.arrive(frame(usize::from(kicks)), Offload::default());
        (machine.rx, machine.tx) = Machine::load(&mut machine.driver, features);
        machine.wire.lock().unwrap().sent.clear();
        machine.send([0; HEADER_SIZE], &frame(60));
        prop_assert_eq!(machine.next_sent().0, frame(60));
    }
}
