//! A virtio driver out of its mind (VIRTIO 1.2 §2.7, §4.1).

use core::ptr::write_volatile;

use crate::hardware::{HASTY, PATIENT, read8, read16, read32, until, write16, write32, write64};
use crate::pci::Function;
use crate::random::{ARENA, ARENA_SIZE, Random, SANE};

#[derive(Clone, Copy)]
pub struct Virtio {
    common: u64,
    notify: u64,
    multiplier: u64,
    device: u64,
    id: u32,
}

impl Virtio {
    /// By its vendor capabilities (VIRTIO 1.2 §4.1.4).
    pub fn find(function: &Function) -> Option<Virtio> {
        let mut found = Virtio { common: 0, notify: 0, multiplier: 0, device: 0, id: (function.vendor >> 16) - 0x1040 };
        let mut at = u64::from(read8(function.config(0x34)));
        for _ in 0..48 {
            if at == 0 {
                break;
            }
            let head = read32(function.config(at));
            if head & 0xff == 9 {
                let bar = (read32(function.config(at + 4)) & 0xff) as usize;
                let offset = u64::from(read32(function.config(at + 8)));
                let address = function.bars.get(bar).copied().unwrap_or(0) + offset;
                match head >> 24 {
                    1 => found.common = address,
                    2 => {
                        found.notify = address;
                        found.multiplier = u64::from(read32(function.config(at + 16)));
                    }
                    4 => found.device = address,
                    _ => {}
                }
            }
            at = u64::from(head >> 8 & 0xff);
        }
        (found.common != 0 && found.notify != 0).then_some(found)
    }

    pub fn status(&self, value: u8) {
        // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
        unsafe { write_volatile((self.common + 0x14) as *mut u8, value) }
    }

    pub fn reset(&self, exits: u64) -> bool {
        self.status(0);
        until(exits, || read8(self.common + 0x14) == 0)
    }

    pub fn features(&self, driver: u64) {
        for half in 0..2 {
            write32(self.common + 8, half);
            write32(self.common + 12, (driver >> (half * 32)) as u32);
        }
    }

    pub fn queue(&self, queue: u16, size: u16, rings: [u64; 3]) {
        write16(self.common + 0x16, queue);
        write16(self.common + 0x18, size);
        write16(self.common + 0x1a, 0xffff);
        for (ring, address) in rings.into_iter().enumerate() {
            write32(self.common + 0x20 + ring as u64 * 8, address as u32);
            write32(self.common + 0x24 + ring as u64 * 8, (address >> 32) as u32);
        }
        write16(self.common + 0x1c, 1);
    }

    pub fn kick(&self, queue: u64) {
        write16(self.notify + queue * self.multiplier, queue as u16);
    }

    /// The device answers a driver that does nothing wrong: 64 random bytes, or the gateway's hardware address.
    pub fn is_sane(&self) -> bool {
        for at in (0..0x8000).step_by(8) {
            write64(SANE + at, 0);
        }
        if !self.reset(PATIENT) {
            return false;
        }
        self.status(1);
        self.status(3);
        self.features(1 << 32);
        self.status(11);
        if read8(self.common + 0x14) & 8 == 0 {
            return false;
        }
        let rings = |queue: u64| [SANE + queue * 0x1000, SANE + queue * 0x1000 + 0x400, SANE + queue * 0x1000 + 0x800];
        for queue in 0..if self.id == 1 { 2 } else { 1 } {
            self.queue(queue as u16, 8, rings(queue));
        }
        self.status(15);
        // One buffer for the device to fill in queue 0.
        let buffer = SANE + 0x4000;
        write64(SANE, buffer);
        write64(SANE + 8, 2 << 32 | if self.id == 1 { 2048 } else { 64 });
        write16(SANE + 0x402, 1);
        self.kick(0);
        if self.id == 1 {
            // An address probe for 172.31.0.1, which the router has. The header of a frame is 12 bytes.
            let frame = SANE + 0x5000;
            let own = |at: u64| {
                // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
                (0..6).for_each(|i| unsafe {
                    write_volatile((at + i) as *mut u8, read8(self.device + i));
                })
            };
            // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
            (0..6).for_each(|i| unsafe { write_volatile((frame + 12 + i) as *mut u8, 0xff) });
            own(frame + 18);
            let arp = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1u8];
            for (i, byte) in arp.into_iter().enumerate() {
                // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
                unsafe { write_volatile((frame + 24 + i as u64) as *mut u8, byte) }
            }
            own(frame + 34);
            for (i, byte) in [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 172, 31, 0, 1u8].into_iter().enumerate() {
                // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
                unsafe { write_volatile((frame + 40 + i as u64) as *mut u8, byte) }
            }
            write64(SANE + 0x1000, frame);
            write64(SANE + 0x1008, 12 + 42);
            write16(SANE + 0x1402, 1);
            self.kick(1);
        }
        until(PATIENT, || read16(SANE + 0x802) == 1)
    }

    /// A driver whose rings are garbage: chains that loop, run out of the table or of memory, lengths of 4 GiB, indices that leap.
    pub fn attack(&self, random: &mut Random) {
        if !random.one_in(8) {
            self.reset(HASTY);
        }
        self.status(1);
        self.status(3);
        self.features(if random.one_in(4) { random.number() } else { 1 << 32 | 3 << 28 | random.next() & 0xffff_ffff });
        self.status(11);
        let mut rings = [[0; 3]; 3];
        for queue in 0..3 {
            let base = ARENA + random.below(1024) * 4096;
            rings[queue] = [base, base + 0x1000, base + 0x2000];
            if random.one_in(6) {
                rings[queue][random.below(3) as usize] = random.address();
            }
            let size = if random.one_in(6) { random.number() as u16 } else { 1 << random.below(9) };
            self.queue(queue as u16, size, rings[queue]);
            for descriptor in 0..256 {
                let at = base + descriptor * 16;
                write64(at, random.address());
                let length = if random.one_in(8) { random.number() as u32 } else { random.below(70_000) as u32 };
                write32(at + 8, length);
                write16(at + 12, if random.one_in(8) { random.next() as u16 } else { random.below(4) as u16 });
                write16(at + 14, if random.one_in(8) { random.next() as u16 } else { random.below(256) as u16 });
            }
            for entry in 0..256 {
                write16(
                    base + 0x1004 + entry * 2,
                    if random.one_in(8) { random.next() as u16 } else { random.below(256) as u16 },
                );
            }
        }
        self.status(15);
        let mut index = 0u16;
        for _ in 0..64 {
            let queue = random.below(3);
            index = if random.one_in(6) { random.next() as u16 } else { index.wrapping_add(random.below(9) as u16) };
            let [table, available, _] = rings[queue as usize];
            if table % 4096 == 0 && (ARENA..ARENA + ARENA_SIZE).contains(&available) {
                write16(available + 2, index);
                write16(available, random.next() as u16 & 1);
            }
            self.kick(if random.one_in(10) { random.below(0x400) } else { queue });
            if random.one_in(16) {
                write32(self.common + random.below(0x38) / 4 * 4, random.number() as u32);
            }
        }
    }
}
