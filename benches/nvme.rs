//! The NVMe controller's path from a doorbell write to the raised interrupt, with a disk in memory.

use std::hint::black_box;
use std::io;
use std::sync::Arc;

use amiable::vmm::backend::{BlockBackend, Wait};
use amiable::vmm::config::VolumeIdentity;
use amiable::vmm::interrupt::{MsiLine, MsiMessage, MsiRouter};
use amiable::vmm::memory::GuestMemory;
use amiable::vmm::nvme::NvmeController;
use amiable::vmm::pci::PciFunction;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vm_memory::{Bytes, GuestAddress, VolatileSlice};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const ENTRIES: u32 = 256;
const SUBMISSIONS: u64 = 0x1_0000;
const COMPLETIONS: u64 = 0x2_0000;
const LIST: u64 = 0x3_0000;
const SHADOW: u64 = 0x4_0000;
const DATA: u64 = 0x10_0000;

/// Every block reads the same, and writes vanish: only the controller is measured, and one copy.
struct Disk(Vec<u8>);

impl BlockBackend for Disk {
    fn size(&self) -> u64 {
        1 << 30
    }
    fn read(&self, to: &[VolatileSlice<'_>], _: u64, _: Wait) -> io::Result<()> {
        to.iter().for_each(|slice| slice.copy_from(&self.0[..slice.len()]));
        Ok(())
    }
    fn write(&self, _: &[VolatileSlice<'_>], _: u64, _: Wait) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Lines that nobody listens to.
struct DeadLines(MsiLine);

impl MsiRouter for DeadLines {
    fn allocate(&self) -> io::Result<MsiLine> {
        Ok(self.0.clone())
    }
    fn route(&self, _: &MsiLine, _: Option<MsiMessage>) -> io::Result<()> {
        Ok(())
    }
}

struct Driver {
    function: NvmeController,
    memory: GuestMemory,
    tail: u32,
}

impl Driver {
    fn new() -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap();
        let line = MsiLine { gsi: 24, fd: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()) };
        let identity = VolumeIdentity::InstanceStore { serial: "AWS0123456789abcdef0".into() };
        let disk = Arc::new(Disk(vec![0x5a; 1 << 20]));
        let mut function = NvmeController::new(identity, disk, memory.clone(), Arc::new(DeadLines(line)), 1).unwrap();
        for vector in 0..2 {
            function.write_bar(0, 0x2000 + 16 * vector, &0xfee0_0000u64.to_le_bytes());
            function.write_bar(0, 0x2008 + 16 * vector, &vector.to_le_bytes());
        }
        let capability = u16::from(function.config().read_u16(0x34) as u8);
        function.write_config(capability + 2, &0x8000u16.to_le_bytes());
        function.write_bar(0, 0x24, &0x001f_001fu32.to_le_bytes());
        function.write_bar(0, 0x28, &0x1000u64.to_le_bytes());
        function.write_bar(0, 0x30, &0x2000u64.to_le_bytes());
        function.write_bar(0, 0x14, &0x0046_0001u32.to_le_bytes());
        let mut driver = Driver { function, memory, tail: 0 };
        let size = (ENTRIES - 1) << 16 | 1;
        driver.admin(0, 0x05, [COMPLETIONS, 0], [size, 0x0001_0003]);
        driver.admin(1, 0x01, [SUBMISSIONS, 0], [size, 0x0001_0001]);
        driver.admin(2, 0x7c, [SHADOW, SHADOW + 0x1000], [0, 0]);
        let pages: Vec<u8> = (1..256u64).flat_map(|i| (DATA + i * 0x2000 % 0x40_0000).to_le_bytes()).collect();
        driver.memory.write_slice(&pages, GuestAddress(LIST)).unwrap();
        driver
    }

    fn entry(&self, at: u64, opcode: u32, prps: [u64; 2], dwords: [u32; 3]) {
        let mut words = [0u32; 16];
        words[0] = opcode;
        words[1] = 1;
        for (i, prp) in prps.iter().enumerate() {
            (words[6 + 2 * i], words[7 + 2 * i]) = (*prp as u32, (*prp >> 32) as u32);
        }
        words[10..13].copy_from_slice(&dwords);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    fn admin(&mut self, index: u32, opcode: u32, prps: [u64; 2], dwords: [u32; 2]) {
        self.entry(0x1000 + 64 * u64::from(index), opcode, prps, [dwords[0], dwords[1], 0]);
        self.function.write_bar(0, 0x1000, &(index + 1).to_le_bytes());
    }

    /// Fill the whole ring with one command, once: entries don't change.
    fn fill(&mut self, opcode: u32, prps: [u64; 2], blocks: u32) {
        for index in 0..ENTRIES {
            self.entry(SUBMISSIONS + 64 * u64::from(index), opcode, prps, [index * 8, 0, blocks - 1]);
        }
    }

    /// Submit `count` commands and take their completions, as Linux does with shadow doorbells.
    fn round(&mut self, count: u32) {
        self.tail = (self.tail + count) % ENTRIES;
        self.memory.write_obj(self.tail, GuestAddress(SHADOW + 8)).unwrap();
        self.function.write_bar(0, 0x1008, &self.tail.to_le_bytes());
        let last = u64::from((self.tail + ENTRIES - 1) % ENTRIES);
        let status: u32 = self.memory.read_obj(GuestAddress(COMPLETIONS + 16 * last + 12)).unwrap();
        assert_eq!(black_box(status) >> 17, 0);
        self.memory.write_obj(self.tail, GuestAddress(SHADOW + 12)).unwrap();
    }
}

fn nvme(c: &mut Criterion) {
    let mut group = c.benchmark_group("nvme");
    for (name, opcode, prps, blocks, count) in [
        ("read 4 KiB", 2, [DATA, 0], 8, 1),
        ("write 4 KiB", 1, [DATA, 0], 8, 1),
        ("read 4 KiB, 16 at once", 2, [DATA, 0], 8, 16),
        ("read 1 MiB, scattered", 2, [DATA, LIST], 2048, 1),
    ] {
        let mut driver = Driver::new();
        driver.fill(opcode, prps, blocks);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(name, |b| b.iter(|| driver.round(count)));
    }
    group.finish();
}

criterion_group!(benches, nvme);
criterion_main!(benches);
