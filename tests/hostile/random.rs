//! Numbers and addresses without a pattern, and the memory that they lead to.

/// Free memory. The program is below it, and nothing that a device is told to write leads there.
pub const ARENA: u64 = 0x100_0000;
pub const ARENA_SIZE: u64 = 0x400_0000;
/// Rings of the sane tries.
pub const SANE: u64 = 0x800_0000;
/// The machine of a t2.nano has 512 MiB.
pub const RAM_END: u64 = 0x2000_0000;
/// Where BARs are put: all in the 32-bit window, which is mapped.
pub const BARS: u64 = 0xd000_0000;
pub const ECAM: u64 = 0xe000_0000;

/// Numbers without a pattern (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// One in `of`.
    pub fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub fn pick(&mut self, from: &[u64]) -> u64 {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number of any magnitude, often next to a power of two.
    pub fn number(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        match self.below(4) {
            0 => power,
            1 => power.wrapping_sub(1),
            2 => self.next(),
            _ => self.next() & power.wrapping_sub(1),
        }
    }

    /// An address for a device to read and write: most often in the memory that is free, and if not, anything but this program.
    pub fn address(&mut self) -> u64 {
        match self.below(16) {
            0 => self.number() | 1 << 36,
            1 => 0xc000_0000 + self.below(0x4000_0000),
            2 => BARS + self.below(0x10_0000),
            3 => RAM_END.wrapping_sub(self.below(0x3000)),
            4 => ARENA + self.below(ARENA_SIZE),
            _ => ARENA + self.below(ARENA_SIZE / 4096) * 4096,
        }
    }
}
