//! An NVMe driver out of its mind (NVM Express 1.4).

use crate::hardware::{HASTY, PATIENT, read16, read32, until, write32, write64};
use crate::random::{ARENA, Random, SANE};

pub struct Nvme(pub u64);

impl Nvme {
    pub fn disable(&self, exits: u64) -> bool {
        write32(self.0 + 0x14, 0);
        until(exits, || read32(self.0 + 0x1c) & 1 == 0)
    }

    pub fn enable(&self, exits: u64, entries: u64, submission: u64, completion: u64) -> bool {
        write32(self.0 + 0x24, ((entries - 1) << 16 | (entries - 1)) as u32);
        write64(self.0 + 0x28, submission);
        write64(self.0 + 0x30, completion);
        write32(self.0 + 0x14, 0x46_0001);
        until(exits, || read32(self.0 + 0x1c) & 3 != 0) && read32(self.0 + 0x1c) & 3 == 1
    }

    pub fn doorbell(&self, queue: u64, completion: bool) -> u64 {
        self.0 + 0x1000 + queue * 8 + u64::from(completion) * 4
    }

    /// What a driver does first, and its answer.
    pub fn is_sane(&self) -> bool {
        for at in (0..0x4000).step_by(8) {
            write64(SANE + at, 0);
        }
        if !(self.disable(PATIENT) && self.enable(PATIENT, 16, SANE, SANE + 0x1000)) {
            return false;
        }
        // Identify controller.
        write32(SANE, 0x06);
        write64(SANE + 24, SANE + 0x2000);
        write32(SANE + 40, 1);
        write32(self.doorbell(0, false), 1);
        until(PATIENT, || read16(SANE + 0x1000 + 14) & 1 == 1)
            && read16(SANE + 0x1000 + 14) >> 1 == 0
            && read16(SANE + 0x2000) == 0x1d0f
    }

    /// One submission queue entry: a command that might be one, with something wrong in it.
    pub fn command(&self, random: &mut Random, at: u64, admin: bool) {
        let opcode = if random.one_in(8) {
            random.below(256)
        } else if admin {
            random.pick(&[0, 1, 1, 1, 2, 4, 5, 5, 5, 6, 8, 9, 10, 12, 0x7c, 0x80])
        } else {
            random.pick(&[0, 1, 1, 2, 2, 8, 9, 4, 5])
        };
        for word in 0..16 {
            write32(at + word * 4, if random.one_in(4) { random.number() as u32 } else { 0 });
        }
        write32(at, (opcode | (random.below(0x1_0000) << 16)) as u32 | if random.one_in(16) { 0x4300 } else { 0 });
        write32(at + 4, if random.one_in(6) { random.number() as u32 } else { 1 });
        write64(at + 24, random.address());
        write64(at + 32, random.address());
        if admin {
            let (queue, size) = (random.below(6), random.pick(&[1, 3, 15, 63, 1023, 0xffff]));
            write32(at + 40, if random.one_in(6) { random.number() as u32 } else { (size << 16 | queue) as u32 });
            write32(
                at + 44,
                if random.one_in(6) { random.number() as u32 } else { (random.below(4) << 16 | 3) as u32 },
            );
        } else {
            write64(at + 40, if random.one_in(4) { random.number() } else { random.below(1 << 16) });
            write32(at + 48, if random.one_in(6) { random.number() as u32 } else { random.below(300) as u32 });
        }
    }

    /// A driver whose every queue, command and page list is garbage.
    pub fn attack(&self, random: &mut Random) {
        self.disable(HASTY);
        let admin = ARENA + random.below(1024) * 4096;
        if random.one_in(4) {
            self.enable(HASTY, 1 + random.below(4096), random.address(), random.address());
        } else {
            self.enable(HASTY, 64, admin, admin + 0x1000);
        }
        // Page lists: some lead to each other, some nowhere.
        for _ in 0..64 {
            let list = ARENA + random.below(1024) * 4096;
            for entry in 0..512 {
                write64(list + entry * 8, random.address());
            }
        }
        for step in 0..48 {
            self.command(random, admin + (step % 64) * 64, true);
            let tail = if random.one_in(10) { random.number() as u32 } else { ((step + 1) % 64) as u32 };
            write32(self.doorbell(0, false), tail);
            if random.one_in(3) {
                write32(self.doorbell(0, true), if random.one_in(4) { random.number() as u32 } else { tail });
            }
            // Whatever queues that made.
            let queue = random.below(6);
            let ring = ARENA + random.below(1024) * 4096;
            for entry in 0..16 {
                self.command(random, ring + entry * 64, false);
            }
            write32(self.doorbell(queue, random.one_in(3)), random.below(20) as u32);
            if random.one_in(4) {
                write32(self.0 + 0x1000 + random.below(0x1000) / 4 * 4, random.number() as u32);
            }
            if random.one_in(40) {
                write32(self.0 + 0x14, random.number() as u32);
            }
        }
    }
}
