//! The network card's data path: rings and copies alone, and frames through the card's thread and back.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use amiable::vmm::backend::{Frame, NetBackend, Offload};
use amiable::vmm::interrupt::{MsiLine, MsiMessage, MsiRouter};
use amiable::vmm::memory::GuestMemory;
use amiable::vmm::pci::msix::Msix;
use amiable::vmm::virtio::interrupt::Interrupt;
use amiable::vmm::virtio::net::{F_MRG_RXBUF, VirtioNet};
use amiable::vmm::virtio::queue::{Buffers, DeviceQueue, gather, scatter};
use amiable::vmm::virtio::{Activation, ActiveQueue, VirtioDevice};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const SIZE: u16 = 256;
const HEADER: usize = 12;
const WRITE: u64 = 2;

/// Lines that nobody listens to: the benches look at the rings.
struct DeadLines(MsiLine);

impl MsiRouter for DeadLines {
    fn allocate(&self) -> io::Result<MsiLine> {
        Ok(self.0.clone())
    }
    fn route(&self, _: &MsiLine, _: Option<MsiMessage>) -> io::Result<()> {
        Ok(())
    }
}

/// A driver whose descriptor `i` is always the buffer `i`, so that an offer is one ring entry.
struct Driver {
    memory: GuestMemory,
    base: u64,
    next: u16,
}

impl Driver {
    fn new(memory: &GuestMemory, base: u64, buffers: u64, length: u64, flags: u64) -> Self {
        for i in 0..u64::from(SIZE) {
            let descriptor = [buffers + (i << 16), length | flags << 32];
            memory.write_obj(descriptor, GuestAddress(base + 16 * i)).unwrap();
            memory.write_obj(i as u16, GuestAddress(base + 0x1004 + 2 * i)).unwrap();
        }
        Driver { memory: memory.clone(), base, next: 0 }
    }

    fn device(&self, index: u16, interrupt: &Interrupt) -> DeviceQueue {
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_desc_table_address(Some(self.base as u32), None);
        queue.set_avail_ring_address(Some(self.base as u32 + 0x1000), None);
        queue.set_used_ring_address(Some(self.base as u32 + 0x2000), None);
        queue.set_event_idx(true);
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        DeviceQueue::new(index, queue, self.memory.clone(), interrupt.clone())
    }

    fn offer(&mut self, count: u16) {
        self.next = self.next.wrapping_add(count);
        // Interrupt wished when all of them are used.
        self.memory.write_obj(self.next.wrapping_sub(1), GuestAddress(self.base + 0x1004 + 512)).unwrap();
        self.memory.store(self.next, GuestAddress(self.base + 0x1002), Ordering::SeqCst).unwrap();
    }

    fn all_used(&self) -> bool {
        self.memory.load::<u16>(GuestAddress(self.base + 0x2002), Ordering::SeqCst).unwrap() == self.next
    }
}

fn machine() -> (GuestMemory, Interrupt) {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    let fd = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let msix = Msix::new(1, 0, 0, 0x1000, Arc::new(DeadLines(MsiLine { gsi: 24, fd }))).unwrap();
    (memory, Interrupt::new(msix.handle(), 2))
}

fn rings(c: &mut Criterion) {
    let (memory, interrupt) = machine();
    for length in [60usize, 1514, 65_000] {
        let mut group = c.benchmark_group(format!("virtqueue/{length}"));
        group.throughput(Throughput::Bytes(length as u64));
        let mut packet = vec![0; HEADER + length];
        let mut buffers = Buffers::default();

        let mut driver = Driver::new(&memory, 0x1_0000, 0x100_0000, packet.len() as u64, 0);
        let mut queue = driver.device(0, &interrupt);
        group.bench_function("transmit", |b| {
            b.iter(|| {
                driver.offer(1);
                buffers.clear();
                let chain = queue.pop(&mut buffers).unwrap().unwrap();
                gather(&memory, &buffers.readable, &mut packet).unwrap();
                black_box(&packet);
                queue.push_used(chain.head, 0).unwrap();
                queue.publish().unwrap();
            });
        });

        let mut driver = Driver::new(&memory, 0x2_0000, 0x200_0000, packet.len() as u64, WRITE);
        let mut queue = driver.device(0, &interrupt);
        group.bench_function("receive", |b| {
            b.iter(|| {
                driver.offer(1);
                buffers.clear();
                let chain = queue.pop(&mut buffers).unwrap().unwrap();
                let (header, frame) = packet.split_at(HEADER);
                let written = scatter(&memory, &buffers.writable, &[header, frame]).unwrap();
                queue.push_used(chain.head, written as u32).unwrap();
                queue.publish().unwrap();
            });
        });
        group.finish();
    }
}

/// Sends every frame back.
struct Echo {
    frames: VecDeque<Frame>,
    spare: Vec<Frame>,
    wake: EventFd,
}

impl NetBackend for Echo {
    fn transmit(&mut self, frame: &[u8], _: Offload, _: Instant) {
        let mut back = self.spare.pop().unwrap_or_default();
        back.bytes.clear();
        back.bytes.extend_from_slice(frame);
        self.frames.push_back(back);
    }
    fn receive(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }
    fn recycle(&mut self, frame: Frame) {
        self.spare.push(frame);
    }
    fn poll(&mut self, _: Instant) -> Option<Duration> {
        None
    }
    fn event_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

fn echo(c: &mut Criterion) {
    for (length, batch) in [(60u64, 1u16), (1514, 1), (1514, 64), (65_000, 16)] {
        let (memory, interrupt) = machine();
        let mut tx = Driver::new(&memory, 0x1_0000, 0x100_0000, HEADER as u64 + length, 0);
        let mut rx = Driver::new(&memory, 0x2_0000, 0x200_0000, HEADER as u64 + length, WRITE);
        let doorbells = [(); 2].map(|()| Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()));
        let queue = |index: u16, driver: &Driver| {
            let doorbell = Arc::clone(&doorbells[usize::from(index)]);
            Some(ActiveQueue { queue: driver.device(index, &interrupt), doorbell })
        };
        let wake = EventFd::new(EFD_NONBLOCK).unwrap();
        let backend = Echo { frames: VecDeque::new(), spare: Vec::new(), wake };
        let mut card = VirtioNet::new([2, 0, 0, 0, 0, 1], 9001, Box::new(backend)).unwrap();
        let queues = vec![queue(0, &rx), queue(1, &tx)];
        card.activate(Activation { features: F_MRG_RXBUF, queues, interrupt }).unwrap();

        let mut group = c.benchmark_group("net-echo");
        group.throughput(Throughput::Elements(batch.into()));
        group.bench_function(format!("{length}x{batch}"), |b| {
            b.iter(|| {
                rx.offer(batch);
                tx.offer(batch);
                doorbells[1].write(1).unwrap();
                while !rx.all_used() {
                    std::thread::yield_now();
                }
            });
        });
        group.finish();
        card.shutdown();
    }
}

criterion_group!(benches, rings, echo);
criterion_main!(benches);
