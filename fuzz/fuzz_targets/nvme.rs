//! An NVMe controller: commands, doorbells, registers and what lies in guest memory.
#![no_main]

#[path = "common.rs"]
mod common;

use std::sync::Arc;

use amiable::vmm::config::VolumeIdentity;
use amiable::vmm::memory::GuestMemory;
use amiable::vmm::nvme::NvmeController;
use amiable::vmm::pci::PciFunction;
use common::{Disk, MOST_STEPS, Router, Script, memory, poke};

const QUEUES: usize = 3;
const ENTRIES: u32 = 16;
const DOORBELLS: u64 = 0x1000;
/// Where queue `id` has its submissions and its completions.
fn rings(id: usize) -> (u64, u64) {
    (0x1000 + id as u64 * 0x2000, 0x2000 + id as u64 * 0x2000)
}

/// A driver that lost its mind after it had set the controller up.
struct Driver {
    function: NvmeController,
    memory: GuestMemory,
    tails: [u32; QUEUES],
}

impl Driver {
    fn new() -> Driver {
        let memory = memory();
        let identity = VolumeIdentity::Ebs { volume_id: "vol-0123456789abcdef0".into(), device_name: "xvda".into() };
        let io_queues = QUEUES as u16 - 1;
        let function =
            NvmeController::new(identity, Disk::new(), memory.clone(), Arc::new(Router::default()), io_queues);
        let mut driver = Driver { function: function.unwrap(), memory, tails: [0; QUEUES] };
        driver.enable();
        driver
    }

    fn enable(&mut self) {
        let (submissions, completions) = rings(0);
        self.write(0x14, &0u32.to_le_bytes());
        self.write(0x24, &((ENTRIES - 1) << 16 | (ENTRIES - 1)).to_le_bytes());
        self.write(0x28, &submissions.to_le_bytes());
        self.write(0x30, &completions.to_le_bytes());
        self.write(0x14, &0x0046_0001u32.to_le_bytes());
        self.tails = [0; QUEUES];
        for id in 1..QUEUES {
            let (submissions, completions) = rings(id);
            for (opcode, ring, flags) in [(5, completions, 3), (1, submissions, 1)] {
                let mut command = [0; 64];
                command[0] = opcode;
                command[24..32].copy_from_slice(&ring.to_le_bytes());
                command[40..44].copy_from_slice(&((ENTRIES - 1) << 16 | id as u32).to_le_bytes());
                command[44..48].copy_from_slice(&((id as u32) << 16 | flags).to_le_bytes());
                self.submit(0, &command);
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.function.write_bar(0, offset, data);
    }

    fn submit(&mut self, id: usize, command: &[u8; 64]) {
        poke(&self.memory, rings(id).0 + u64::from(self.tails[id]) * 64, command);
        self.tails[id] = (self.tails[id] + 1) % ENTRIES;
        self.write(DOORBELLS + 8 * id as u64, &self.tails[id].to_le_bytes());
        // As many completions as there were commands: the completion queue never fills up for good.
        self.write(DOORBELLS + 8 * id as u64 + 4, &self.tails[id].to_le_bytes());
    }
}

/// A command: its opcode, namespace, addresses and dwords 10 to 13, without what no device looks at.
fn command(script: &mut Script<'_>) -> [u8; 64] {
    let mut command = [0; 64];
    let [opcode, flags, namespace, low] = script.array();
    command[..4].copy_from_slice(&[opcode, flags, low, 0]);
    command[4..8].copy_from_slice(&(i32::from(namespace as i8) as u32).to_le_bytes());
    // Anywhere in the 16 MiB that hold the guest's memory, and now and then beyond.
    for at in [24, 32] {
        let address = u64::from(script.u32());
        let address = if address >> 24 == 0xff { u64::MAX << 12 | address } else { address & 0x2f_ffff };
        command[at..at + 8].copy_from_slice(&address.to_le_bytes());
    }
    command[40..56].copy_from_slice(&script.array::<16>());
    command
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    let mut driver = Driver::new();
    for _ in 0..MOST_STEPS {
        if script.is_empty() {
            break;
        }
        match script.u8() {
            step @ 0..0x80 => {
                let command = command(&mut script);
                driver.submit(usize::from(step) % QUEUES, &command);
            }
            0x80..0xa0 => {
                let (offset, data) = (u64::from(script.u16() & 0x3fff), script.data());
                driver.write(offset, data);
            }
            0xa0..0xb0 => {
                let (offset, mut data) = (u64::from(script.u16() & 0x3fff), script.data().to_vec());
                driver.function.read_bar(0, offset, &mut data);
            }
            0xb0..0xc8 => {
                let (doorbell, value) = (u64::from(script.u8()) * 4, u32::from(script.u8()));
                driver.write(DOORBELLS + doorbell, &value.to_le_bytes());
            }
            0xc8..0xe8 => {
                let (address, length) = (script.u32() & 0x2f_ffff, script.u8());
                poke(&driver.memory, address.into(), script.bytes(length.into()));
            }
            0xe8..0xf8 => {
                let (offset, data) = (script.u16() & 0xffc, script.u32());
                driver.function.write_config(offset, &data.to_le_bytes());
            }
            _ => driver.enable(),
        }
    }
    driver.function.shutdown();
});
