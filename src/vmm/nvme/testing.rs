//! A fake NVMe driver over real guest memory, and a disk in memory.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use super::NvmeController;
use super::pool::Pool;
use super::spec::{Status, register};
use crate::vmm::backend::{BlockBackend, Throttle, Wait};
use crate::vmm::config::VolumeIdentity;
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::PciFunction;
use crate::vmm::pci::testing::TestRouter;

pub const DISK_SIZE: u64 = 4 << 20;
/// Two regions with a hole between them.
const REGIONS: [(GuestAddress, usize); 2] = [(GuestAddress(0), 8 << 20), (GuestAddress(16 << 20), 4 << 20)];
const ASQ: u64 = 0x1000;
const ACQ: u64 = 0x2000;
pub const ADMIN_ENTRIES: u32 = 32;
pub const IO_ENTRIES: u32 = 8;
/// Where tests put their data: page-aligned, 1 MiB and more.
pub const DATA: u64 = 0x20_0000;
pub const LIST: u64 = 0x10_0000;
pub const SHADOW: u64 = 0x8000;
pub const EVENTS: u64 = 0x9000;

/// A disk in memory, with switches.
#[derive(Default)]
pub struct MemoryDisk {
    pub data: Mutex<Vec<u8>>,
    pub grown: AtomicU64,
    /// Nothing is at hand.
    pub cold: AtomicBool,
    /// Every access fails.
    pub broken: AtomicBool,
    pub flushes: AtomicUsize,
    pub discards: Mutex<Vec<(u64, u64)>>,
    /// Accesses that may wait do so while this holds.
    pub held: Mutex<bool>,
    pub released: Condvar,
    pub waiting: AtomicUsize,
    /// Set before a controller has it.
    pub throttle: OnceLock<Arc<dyn Throttle>>,
}

impl MemoryDisk {
    pub fn new() -> Arc<Self> {
        static DATA: OnceLock<Vec<u8>> = OnceLock::new();
        let data = DATA.get_or_init(|| (0..DISK_SIZE).map(|i| (i / 512 * 7 + i) as u8).collect());
        Arc::new(MemoryDisk { data: Mutex::new(data.clone()), ..MemoryDisk::default() })
    }

    pub fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }

    fn access(&self, wait: Wait) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("broken"));
        }
        if wait == Wait::Never {
            return if self.cold.load(Ordering::SeqCst) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) };
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _held = self.released.wait_while(self.held.lock().unwrap(), |held| *held).unwrap();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

impl BlockBackend for MemoryDisk {
    fn size(&self) -> u64 {
        DISK_SIZE + self.grown.load(Ordering::SeqCst)
    }
    fn read(&self, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        self.access(wait)?;
        let data = self.data.lock().unwrap();
        let mut at = offset as usize;
        for slice in to {
            slice.copy_from(&data[at..at + slice.len()]);
            at += slice.len();
        }
        Ok(())
    }
    fn write(&self, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        self.access(wait)?;
        let mut data = self.data.lock().unwrap();
        let mut at = offset as usize;
        for slice in from {
            let end = at + slice.len();
            slice.copy_to(&mut data[at..end]);
            at = end;
        }
        Ok(())
    }
    fn throttle(&self) -> Option<Arc<dyn Throttle>> {
        self.throttle.get().cloned()
    }
    fn flush(&self) -> io::Result<()> {
        self.access(Wait::Allowed)?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        self.access(Wait::Allowed)?;
        self.data.lock().unwrap()[offset as usize..(offset + length) as usize].fill(0);
        Ok(())
    }
    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.access(Wait::Allowed)?;
        self.discards.lock().unwrap().push((offset, length));
        Ok(())
    }
}

/// A command to be submitted: dwords.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry(pub [u32; 16]);

impl Entry {
    pub fn new(opcode: u8, nsid: u32) -> Self {
        let mut entry = Entry::default();
        entry.0[0] = opcode.into();
        entry.0[1] = nsid;
        entry
    }
    pub fn prps(self, prp1: u64, prp2: u64) -> Self {
        self.dword(6, prp1 as u32).dword(7, (prp1 >> 32) as u32).dword(8, prp2 as u32).dword(9, (prp2 >> 32) as u32)
    }
    pub fn dword(mut self, index: usize, value: u32) -> Self {
        self.0[index] = value;
        self
    }
    /// Read (2), Write (1) or Write Zeroes (8) of `blocks` from `lba`.
    pub fn io(opcode: u8, lba: u64, blocks: u32) -> Self {
        Entry::new(opcode, 1)
            .dword(10, lba as u32)
            .dword(11, (lba >> 32) as u32)
            .dword(12, blocks.wrapping_sub(1) & 0xffff)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    pub result: u32,
    pub head: u16,
    pub submission: u16,
    pub cid: u16,
    pub status: Status,
}

struct Ring {
    submission: u64,
    completion: u64,
    entries: u32,
    tail: u32,
    head: u32,
    phase: bool,
}

/// The driver: it polls, and keeps to the rules unless a test breaks them.
pub struct Driver {
    pub function: NvmeController,
    pub memory: GuestMemory,
    pub disk: Arc<MemoryDisk>,
    pub router: Arc<TestRouter>,
    rings: Vec<Ring>,
    next_cid: u16,
    pub shadow: bool,
}

pub fn identity() -> VolumeIdentity {
    VolumeIdentity::Ebs { volume_id: "vol-0123456789abcdef0".into(), device_name: "xvda".into() }
}

impl Driver {
    /// A controller that was not touched yet.
    pub fn cold(io_queues: u16, threads: usize) -> Self {
        Self::cold_with(io_queues, Pool::new(threads), MemoryDisk::new())
    }

    fn cold_with(io_queues: u16, pool: Pool, disk: Arc<MemoryDisk>) -> Self {
        let memory = GuestMemory::from_ranges(&REGIONS).unwrap();
        let router = TestRouter::new();
        let function =
            NvmeController::with_pool(identity(), disk.clone(), memory.clone(), router.clone(), io_queues, pool)
                .unwrap();
        Driver { function, memory, disk, router, rings: Vec::new(), next_cid: 0, shadow: false }
    }

    /// An enabled controller with MSI-X and all its I/O queues.
    pub fn new(io_queues: u16, threads: usize) -> Self {
        Self::with_pool(io_queues, Pool::new(threads))
    }

    /// The same with `pool`'s threads.
    pub fn with_pool(io_queues: u16, pool: Pool) -> Self {
        Self::with(io_queues, pool, MemoryDisk::new())
    }

    /// The same with a disk that is held back.
    pub fn with_throttle(io_queues: u16, threads: usize, throttle: Arc<dyn Throttle>) -> Self {
        let disk = MemoryDisk::new();
        assert!(disk.throttle.set(throttle).is_ok());
        Self::with(io_queues, Pool::new(threads), disk)
    }

    fn with(io_queues: u16, pool: Pool, disk: Arc<MemoryDisk>) -> Self {
        let mut driver = Self::cold_with(io_queues, pool, disk);
        driver.enable_msix();
        driver.enable();
        for id in 1..=io_queues {
            driver.create_queues(id);
        }
        driver
    }

    fn enable_msix(&mut self) {
        for vector in 0..=u32::from(self.function.controller.io_queues) {
            let entry = super::MSIX_TABLE + u64::from(vector) * 16;
            self.function.write_bar(0, entry, &0xfee0_0000u64.to_le_bytes());
            self.function.write_bar(0, entry + 8, &u64::from(vector).to_le_bytes());
        }
        let capability = u16::from(self.function.config().read_u16(0x34) as u8);
        self.function.write_config(capability + 2, &0x8000u16.to_le_bytes());
    }

    /// Enable the controller and check that it is ready.
    pub fn enable(&mut self) {
        self.memory.write_slice(&[0; 0x2000], GuestAddress(ACQ)).unwrap();
        self.write32(register::AQA, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
        self.write64(register::ASQ, ASQ);
        self.write64(register::ACQ, ACQ);
        self.write32(register::CC, 0x0046_0001);
        assert_eq!(self.read32(register::CSTS), 1);
        self.shadow = false;
        self.rings =
            vec![Ring { submission: ASQ, completion: ACQ, entries: ADMIN_ENTRIES, tail: 0, head: 0, phase: true }];
    }

    pub fn create_queues(&mut self, id: u16) {
        let (submission, completion) = (0x2_0000 + u64::from(id) * 0x2000, 0x2_1000 + u64::from(id) * 0x2000);
        self.memory.write_slice(&[0; 0x1000], GuestAddress(completion)).unwrap();
        let id32 = u32::from(id);
        let create = |opcode, at, dword11| {
            Entry::new(opcode, 0).prps(at, 0).dword(10, (IO_ENTRIES - 1) << 16 | id32).dword(11, dword11)
        };
        self.admin_ok(create(0x05, completion, id32 << 16 | 3));
        self.admin_ok(create(0x01, submission, id32 << 16 | 1));
        let ring = Ring { submission, completion, entries: IO_ENTRIES, tail: 0, head: 0, phase: true };
        self.rings.truncate(id.into());
        self.rings.push(ring);
    }

    pub fn read32(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.function.read_bar(0, offset, &mut data);
        u32::from_le_bytes(data)
    }
    pub fn write32(&mut self, offset: u64, value: u32) {
        self.function.write_bar(0, offset, &value.to_le_bytes());
    }
    pub fn write64(&mut self, offset: u64, value: u64) {
        self.function.write_bar(0, offset, &value.to_le_bytes());
    }
    pub fn ring_tail(&mut self, id: u16, value: u32) {
        self.write32(register::DOORBELLS + 8 * u64::from(id), value);
    }
    pub fn ring_head(&mut self, id: u16, value: u32) {
        self.write32(register::DOORBELLS + 8 * u64::from(id) + 4, value);
    }

    /// Write an entry without ringing; answers its command id.
    pub fn push(&mut self, id: u16, entry: Entry) -> u16 {
        let cid = self.next_cid;
        self.next_cid = self.next_cid.wrapping_add(1);
        let entry = entry.dword(0, entry.0[0] & 0xffff | u32::from(cid) << 16);
        let bytes: Vec<u8> = entry.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let ring = &mut self.rings[usize::from(id)];
        self.memory.write_slice(&bytes, GuestAddress(ring.submission + u64::from(ring.tail) * 64)).unwrap();
        ring.tail = (ring.tail + 1) % ring.entries;
        cid
    }

    /// Tell of pushed entries as Linux does. Answers whether the register was written.
    pub fn ring(&mut self, id: u16) -> bool {
        let tail = self.rings[usize::from(id)].tail;
        let rings = !self.shadow || id == 0 || self.update_shadow(u64::from(id) * 8, tail);
        if rings {
            self.ring_tail(id, tail);
        }
        rings
    }

    pub fn update_shadow(&mut self, offset: u64, value: u32) -> bool {
        let old: u32 = self.memory.load(GuestAddress(SHADOW + offset), Ordering::SeqCst).unwrap();
        self.memory.store(value, GuestAddress(SHADOW + offset), Ordering::SeqCst).unwrap();
        let event: u32 = self.memory.load(GuestAddress(EVENTS + offset), Ordering::SeqCst).unwrap();
        let since = |from: u32| (value as u16).wrapping_sub(from as u16);
        since(event).wrapping_sub(1) < since(old)
    }

    pub fn submit(&mut self, id: u16, entry: Entry) -> u16 {
        let cid = self.push(id, entry);
        self.ring(id);
        cid
    }

    /// The next completion, if it is there. `acknowledge` moves the head on the controller too.
    pub fn poll(&mut self, id: u16, acknowledge: bool) -> Option<Completion> {
        let ring = &mut self.rings[usize::from(id)];
        let at = ring.completion + u64::from(ring.head) * 16;
        let last: u32 = self.memory.load(GuestAddress(at + 12), Ordering::Acquire).unwrap();
        if (last >> 16 & 1 != 0) != ring.phase {
            return None;
        }
        let word = |offset| self.memory.read_obj::<u32>(GuestAddress(at + offset)).unwrap();
        let completion = Completion {
            result: word(0),
            head: word(8) as u16,
            submission: (word(8) >> 16) as u16,
            cid: last as u16,
            status: Status((last >> 17) as u16),
        };
        ring.head = (ring.head + 1) % ring.entries;
        if ring.head == 0 {
            ring.phase = !ring.phase;
        }
        let head = ring.head;
        if acknowledge && (!self.shadow || id == 0 || self.update_shadow(u64::from(id) * 8 + 4, head)) {
            self.ring_head(id, head);
        }
        Some(completion)
    }

    /// The next completion, which a thread may still have to bring.
    pub fn wait(&mut self, id: u16) -> Completion {
        loop {
            if let Some(completion) = self.poll(id, true) {
                return completion;
            }
            std::thread::yield_now();
        }
    }

    /// Submit a command and have its completion, done by the time the doorbell returns.
    pub fn call(&mut self, id: u16, entry: Entry) -> Completion {
        let cid = self.submit(id, entry);
        let completion = self.poll(id, true).expect("the command is not done");
        assert_eq!((completion.cid, completion.submission), (cid, id));
        completion
    }

    pub fn admin_ok(&mut self, entry: Entry) -> u32 {
        let completion = self.call(0, entry);
        assert_eq!(completion.status, Status::SUCCESS);
        completion.result
    }

    pub fn admin_status(&mut self, entry: Entry) -> Status {
        self.call(0, entry).status
    }

    pub fn enable_shadow(&mut self) {
        self.memory.write_slice(&[0; 0x2000], GuestAddress(SHADOW)).unwrap();
        self.admin_ok(Entry::new(0x7c, 0).prps(SHADOW, EVENTS));
        self.shadow = true;
    }

    pub fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// A PRP list at [`LIST`].
    pub fn list(&self, at: u64, pages: &[u64]) {
        self.put(at, &pages.iter().flat_map(|page| page.to_le_bytes()).collect::<Vec<_>>());
    }
}
