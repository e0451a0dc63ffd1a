//! Virtqueues: rings, descriptors and buffers that the guest's memory holds, under an entropy device, which is served
//! at the kick, and a network card, which has a thread.
#![no_main]

#[path = "common.rs"]
mod common;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amiable::vmm::backend::{Frame, NetBackend, Offload};
use amiable::vmm::memory::GuestMemory;
use amiable::vmm::pci::PciFunction;
use amiable::vmm::virtio::VirtioDevice;
use amiable::vmm::virtio::net::VirtioNet;
use amiable::vmm::virtio::pci::VirtioPci;
use amiable::vmm::virtio::rng::VirtioRng;
use common::{MOST_STEPS, Router, Script, memory, poke};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Sends back what it gets.
struct Echo {
    frames: VecDeque<Frame>,
    event: EventFd,
}

impl NetBackend for Echo {
    fn transmit(&mut self, frame: &[u8], offload: Offload, _: Instant) {
        if self.frames.len() < 64 {
            self.frames.push_back(Frame { bytes: frame.to_vec(), offload });
        }
    }

    fn receive(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    fn poll(&mut self, _: Instant) -> Option<Duration> {
        None
    }

    fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

fn device(net: bool) -> Box<dyn VirtioDevice> {
    if !net {
        return Box::new(VirtioRng::new());
    }
    let echo = Echo { frames: VecDeque::new(), event: EventFd::new(EFD_NONBLOCK).unwrap() };
    Box::new(VirtioNet::new([2, 0, 0, 0, 0, 1], 9001, Box::new(echo)).unwrap())
}

/// Queue `index` has descriptors, available and used ring at 0x1000 times these numbers from here on.
fn rings(index: u16) -> u64 {
    0x1000 + u64::from(index) * 0x3000
}

fn write(function: &mut VirtioPci, offset: u64, data: &[u8]) {
    function.write_bar(0, offset, data);
}

/// Do as a driver does, up to DRIVER_OK.
fn start(function: &mut VirtioPci, features: u64, queues: u16, size: u16) {
    for status in [0u8, 1, 3] {
        write(function, 0x14, &[status]);
    }
    for select in [0u32, 1] {
        write(function, 0x08, &select.to_le_bytes());
        write(function, 0x0c, &((features >> (32 * select)) as u32).to_le_bytes());
    }
    write(function, 0x14, &[11]);
    for index in 0..queues {
        write(function, 0x16, &index.to_le_bytes());
        write(function, 0x18, &size.to_le_bytes());
        write(function, 0x1a, &(index + 1).to_le_bytes());
        for (part, register) in [0x20, 0x28, 0x30].into_iter().enumerate() {
            write(function, register, &(rings(index) + 0x1000 * part as u64).to_le_bytes()[..4]);
            write(function, register + 4, &[0; 4]);
        }
        write(function, 0x1c, &1u16.to_le_bytes());
    }
    write(function, 0x14, &[15]);
}

/// A descriptor and its place in the available ring.
fn offer(memory: &GuestMemory, script: &mut Script<'_>, size: u16, available: &mut [u16; 2]) {
    let [at, next, flags, place] = script.array();
    let (address, length) = (script.u32(), script.u16());
    let queue = u16::from(flags >> 7);
    let index = u16::from(at) % size;
    let mut descriptor = [0; 16];
    descriptor[..4].copy_from_slice(&(address & 0x2f_ffff).to_le_bytes());
    descriptor[8..10].copy_from_slice(&length.to_le_bytes());
    descriptor[11] = if flags & 0x70 == 0x70 { 0xff } else { 0 };
    descriptor[12] = flags & 7;
    descriptor[14] = next;
    // Now and then into a table of indirect descriptors.
    let table = if place == 0xff { 0x8000 } else { rings(queue) };
    poke(memory, table + 16 * u64::from(index), &descriptor);
    if place & 1 == 0 {
        let ring = rings(queue) + 0x1000;
        let end = &mut available[usize::from(queue)];
        poke(memory, ring + 4 + 2 * u64::from(*end % size), &index.to_le_bytes());
        *end = end.wrapping_add(1);
        poke(memory, ring + 2, &end.to_le_bytes());
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    let kind = script.u8();
    let net = kind & 1 == 1;
    let size = 1 << (kind >> 1 & 7);
    // Most often what the device offers and more is not.
    let offered: u64 = 1 << 32 | if net { 0x3001_88ab } else { 0x3000_0000 };
    let features = offered & !u64::from(script.u32()) | u64::from(kind >> 7) << 50;
    let queues: u16 = if net { 2 } else { 1 };
    let memory = memory();
    let function = VirtioPci::new(5, device(net), memory.clone(), Arc::new(Router::default()));
    let mut function = function.unwrap();
    function.write_config(4, &6u16.to_le_bytes());
    let mut available = [0; 2];
    let mut starts = 0;
    for _ in 0..MOST_STEPS {
        if script.is_empty() {
            break;
        }
        match script.u8() {
            0..0x70 => offer(&memory, &mut script, size, &mut available),
            0x70..0xa0 => {
                let (address, length) = (script.u32() & 0x2f_ffff, script.u8());
                poke(&memory, address.into(), script.bytes(length.into()));
            }
            0xa0..0xb0 => {
                let (offset, data) = (u64::from(script.u16() & 0x3fff), script.data());
                write(&mut function, offset, data);
            }
            0xb0..0xb8 => {
                let (offset, mut data) = (u64::from(script.u16() & 0x3fff), script.data().to_vec());
                function.read_bar(0, offset, &mut data);
            }
            0xb8..0xc0 => {
                let (offset, data) = (script.u16() & 0xffc, script.u32());
                function.write_config(offset, &data.to_le_bytes());
                function.read_config(offset, &mut [0; 4]);
            }
            0xc0..0xe0 => {
                for queue in 0..queues {
                    write(&mut function, 0x1000 + 4 * u64::from(queue), &queue.to_le_bytes());
                }
            }
            // Each starts a thread.
            _ if starts < 8 => {
                starts += 1;
                start(&mut function, features, queues, size);
            }
            _ => {}
        }
    }
    // The card's thread looks at its queues once at least before it ends.
    start(&mut function, features, queues, size);
    write(&mut function, 0x1000, &[0; 2]);
    function.shutdown();
});
