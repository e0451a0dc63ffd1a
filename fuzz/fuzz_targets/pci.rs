//! The PCI root: configuration space by both ways, BARs that move, accesses to where they are and are not.
#![no_main]

#[path = "common.rs"]
mod common;

use std::sync::{Arc, Mutex};

use amiable::vmm::config::VolumeIdentity;
use amiable::vmm::nvme::NvmeController;
use amiable::vmm::pci::root::{NoIoEventFds, PciRoot};
use amiable::vmm::virtio::pci::VirtioPci;
use amiable::vmm::virtio::rng::VirtioRng;
use common::{Disk, MOST_STEPS, Router, Script, memory};

const WINDOW: u64 = 0xc000_0000;
const WINDOW_SIZE: u64 = 0x10_0000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    let (memory, router) = (memory(), Arc::new(Router::default()));
    let root = PciRoot::new(WINDOW..WINDOW + WINDOW_SIZE, 0..0, Arc::new(NoIoEventFds));
    let entropy = VirtioPci::new(1, Box::new(VirtioRng::new()), memory.clone(), router.clone()).unwrap();
    root.add(1, Arc::new(Mutex::new(entropy))).unwrap();
    let identity = VolumeIdentity::InstanceStore { serial: "AWS0123456789ABCDEF0".into() };
    let disk = NvmeController::new(identity, Disk::new(), memory, router, 1).unwrap();
    root.add(2, Arc::new(Mutex::new(disk))).unwrap();
    for slot in [1, 2] {
        root.ecam_write(slot << 15 | 4, &6u16.to_le_bytes());
    }
    for _ in 0..MOST_STEPS {
        if script.is_empty() {
            break;
        }
        let step = script.u8();
        let slot = u64::from(step >> 3 & 3);
        match step & 7 {
            // The first 256 registers hold nearly all.
            0 => root.ecam_write(slot << 15 | u64::from(script.u8()), script.data()),
            1 => root.ecam_write(u64::from(script.u32() >> 8), script.data()),
            2 => root.ecam_read(u64::from(script.u32() >> 8), &mut script.data().to_vec()),
            3 => root.port_write(0xcf8, &(1 << 31 | (slot as u32) << 11 | u32::from(script.u8())).to_le_bytes()),
            4 => root.port_write(0xcf8 | u16::from(script.u8() & 7), script.data()),
            5 => root.port_read(0xcf8 | u16::from(script.u8() & 7), &mut script.data().to_vec()),
            6 => drop(root.mmio_write(WINDOW + u64::from(script.u32() >> 12), script.data())),
            _ => drop(root.mmio_read(WINDOW + u64::from(script.u32() >> 12), &mut script.data().to_vec())),
        }
    }
    root.shutdown();
});
