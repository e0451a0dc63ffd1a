//! A guest's driver in a few lines: it finds a device through configuration space, negotiates, sets queues up in real
//! guest memory and talks through BARs, as Linux does. For the tests of every virtio device.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::common::{F_EVENT_IDX, F_VERSION_1};
use super::pci::VirtioPci;
use super::{VirtioDevice, status};
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::root::{NoIoEventFds, PciRoot};
use crate::vmm::pci::testing::TestRouter;

/// Bytes of guest memory.
pub const MEMORY_SIZE: u64 = 16 << 20;
/// Where buffers may be; queues are below.
pub const BUFFERS: u64 = 0x10_0000;
const QUEUES: u64 = 0x1000;
const QUEUE_SPACE: u64 = 0x8000;
const SLOT: u64 = 5;
/// MSI data of vector 0; the others follow.
const MESSAGE: u32 = 0x40;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// A driver and its machine.
pub struct Driver {
    pub root: Arc<PciRoot>,
    pub memory: GuestMemory,
    pub router: Arc<TestRouter>,
    pub function: Arc<Mutex<VirtioPci>>,
    pub msix: u64,
    pub window: u64,
    pub common: u64,
    pub notify: u64,
    pub isr: u64,
    pub device: u64,
    features: u64,
}

impl Driver {
    /// Put the device into slot 5 and find its registers.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_SIZE as usize)]).unwrap();
        let router = TestRouter::new();
        let root = Arc::new(PciRoot::new(0xc000_0000..0xc100_0000, 0..0, Arc::new(NoIoEventFds)));
        let function = VirtioPci::new(SLOT as u8, device, memory.clone(), router.clone()).unwrap();
        let function = Arc::new(Mutex::new(function));
        root.add(SLOT as u8, function.clone()).unwrap();
        let mut driver = Driver {
            root,
            memory,
            router,
            function,
            msix: 0,
            window: 0,
            common: 0,
            notify: 0,
            isr: 0,
            device: 0,
            features: 0,
        };
        driver.probe();
        driver
    }

    fn probe(&mut self) {
        assert_eq!(self.config_read(0) & 0xffff, 0x1af4);
        self.config_write(0x04, 0x0006);
        let mut at = self.config_read(0x34) & 0xff;
        while at != 0 {
            let head = self.config_read(at.into());
            let bar = u64::from(self.config_read(0x10) & !0xf);
            let block = bar + u64::from(self.config_read(u64::from(at) + 8));
            match (head & 0xff, head >> 24) {
                (0x11, _) => self.msix = at.into(),
                (0x09, 1) => self.common = block,
                (0x09, 2) => self.notify = block,
                (0x09, 3) => self.isr = block,
                (0x09, 4) => self.device = block,
                (0x09, 5) => self.window = at.into(),
                other => panic!("capability {other:?}"),
            }
            at = head >> 8 & 0xff;
        }
    }

    pub fn config_read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.root.ecam_read(SLOT << 15 | register, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn config_write(&self, register: u64, value: u32) {
        self.root.ecam_write(SLOT << 15 | register, &value.to_le_bytes());
    }

    pub fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0xee; N];
        assert!(self.root.mmio_read(address, &mut data));
        data
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        assert!(self.root.mmio_write(address, data));
    }

    pub fn status(&self) -> u8 {
        self.read::<1>(self.common + 0x14)[0]
    }

    pub fn set_status(&self, value: u8) {
        self.write(self.common + 0x14, &[value]);
    }

    pub fn offered(&self) -> u64 {
        let half = |select: u32| {
            self.write(self.common, &select.to_le_bytes());
            u64::from(u32::from_le_bytes(self.read(self.common + 4)))
        };
        half(0) | half(1) << 32
    }

    pub fn write_features(&self, features: u64) {
        for select in [0u32, 1] {
            self.write(self.common + 8, &select.to_le_bytes());
            self.write(self.common + 0xc, &((features >> (32 * select)) as u32).to_le_bytes());
        }
    }

    /// Route a message for each of the `vectors` and switch MSI-X on.
    pub fn enable_msix(&self, vectors: u32) {
        let table = u64::from(self.config_read(0x10) & !0xf) + u64::from(self.config_read(self.msix + 4) & !7);
        self.config_write(self.msix, 0x8000_0000);
        for vector in 0..vectors {
            let entry = table + 16 * u64::from(vector);
            self.write(entry, &0xfee0_0000_u64.to_le_bytes());
            self.write(entry + 8, &(MESSAGE + vector).to_le_bytes());
            self.write(entry + 12, &0u32.to_le_bytes());
        }
    }

    /// Reset, and go up to FEATURES_OK. Answers whether the device agreed.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.set_status(0);
        assert_eq!(self.status(), 0);
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        self.features = features | F_VERSION_1;
        self.write_features(self.features);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        self.status() & status::FEATURES_OK != 0
    }

    /// Enable queue `index`, with vector `index + 1`.
    pub fn queue(&self, index: u16, size: u16) -> DriverQueue {
        let base = QUEUES + u64::from(index) * QUEUE_SPACE;
        let queue = DriverQueue {
            index,
            size,
            descriptors: base,
            avail: base + 0x4000,
            used: base + 0x5000,
            next_descriptor: 0,
            next_avail: 0,
            next_used: 0,
            event_idx: self.features & F_EVENT_IDX != 0,
            memory: self.memory.clone(),
        };
        self.memory.write_slice(&vec![0; QUEUE_SPACE as usize], GuestAddress(base)).unwrap();
        self.write(self.common + 0x16, &index.to_le_bytes());
        self.write(self.common + 0x18, &size.to_le_bytes());
        self.write(self.common + 0x1a, &(index + 1).to_le_bytes());
        for (register, address) in [(0x20, queue.descriptors), (0x28, queue.avail), (0x30, queue.used)] {
            self.write(self.common + register, &(address as u32).to_le_bytes());
            self.write(self.common + register + 4, &((address >> 32) as u32).to_le_bytes());
        }
        self.write(self.common + 0x1c, &1u16.to_le_bytes());
        assert_eq!(self.read(self.common + 0x1e), index.to_le_bytes(), "notify offset");
        queue
    }

    /// DRIVER_OK.
    pub fn start(&self) {
        self.write(self.common + 0x10, &0u16.to_le_bytes());
        self.set_status(self.status() | status::DRIVER_OK);
    }

    pub fn kick(&self, queue: &DriverQueue) {
        self.write(self.notify + 4 * u64::from(queue.index), &queue.index.to_le_bytes());
    }

    /// Wait for the interrupt of a vector. Fails the test if it never comes.
    pub fn wait(&self, vector: u32) {
        let line = self.router.line(MESSAGE + vector).expect("the vector has no line");
        wait_readable(&*line.fd);
        line.fd.read().unwrap();
    }

    /// Interrupts of a vector since the last look.
    pub fn interrupts(&self, vector: u32) -> u64 {
        self.router.take(MESSAGE + vector)
    }
}

/// Wait until a descriptor is readable; a minute without it fails the test.
pub fn wait_readable(fd: &impl AsRawFd) {
    let epoll = Epoll::new().unwrap();
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
    let count = epoll.wait(60_000, &mut [EpollEvent::default()]).unwrap();
    assert_eq!(count, 1, "nothing came on descriptor {}", fd.as_raw_fd());
}

/// The driver's end of a queue. Descriptors are used in turn and never checked for being free.
pub struct DriverQueue {
    pub index: u16,
    pub size: u16,
    pub descriptors: u64,
    pub avail: u64,
    pub used: u64,
    next_descriptor: u16,
    pub next_avail: u16,
    next_used: u16,
    event_idx: bool,
    memory: GuestMemory,
}

impl DriverQueue {
    /// Write descriptor `index` of the table at `table`.
    pub fn descriptor(&self, table: u64, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = GuestAddress(table + 16 * u64::from(index));
        self.memory
            .write_obj([address, u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48], at)
            .unwrap();
    }

    /// Make a chain available: readable segments, then writable ones. Answers its head.
    pub fn add(&mut self, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> u16 {
        let head = self.next_descriptor;
        let count = readable.len() + writable.len();
        let all = readable.iter().map(|s| (s, 0)).chain(writable.iter().map(|s| (s, WRITE)));
        for (i, (segment, flags)) in all.enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let flags = flags | if i + 1 < count { NEXT } else { 0 };
            self.descriptor(self.descriptors, index, segment.0, segment.1, flags, self.next_descriptor);
        }
        self.offer(head);
        head
    }

    /// Make a head available.
    pub fn offer(&mut self, head: u16) {
        let entry = GuestAddress(self.avail + 4 + 2 * u64::from(self.next_avail % self.size));
        self.memory.write_obj(head, entry).unwrap();
        self.next_avail = self.next_avail.wrapping_add(1);
        self.memory.store(self.next_avail, GuestAddress(self.avail + 2), Ordering::Release).unwrap();
    }

    /// The next used element: head and written bytes. Asks for an interrupt at the one after it.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        let index: u16 = self.memory.load(GuestAddress(self.used + 2), Ordering::Acquire).unwrap();
        if index == self.next_used {
            return None;
        }
        let entry = GuestAddress(self.used + 4 + 8 * u64::from(self.next_used % self.size));
        let [head, written]: [u32; 2] = self.memory.read_obj(entry).unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        if self.event_idx {
            self.set_used_event(self.next_used);
        }
        Some((head as u16, written))
    }

    /// Ask for an interrupt when the used index passes `index`.
    pub fn set_used_event(&self, index: u16) {
        self.memory.write_obj(index, GuestAddress(self.avail + 4 + 2 * u64::from(self.size))).unwrap();
        // Before the next look at the used index.
        fence(Ordering::SeqCst);
    }

    /// The available index at which the device wants a kick.
    pub fn avail_event(&self) -> u16 {
        self.memory.read_obj(GuestAddress(self.used + 4 + 8 * u64::from(self.size))).unwrap()
    }
}
