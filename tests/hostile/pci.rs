//! PCI functions and their registers.

use crate::hardware::{read32, write16, write32};
use crate::random::{BARS, ECAM};

#[derive(Clone, Copy, Default)]
pub struct Function {
    pub slot: u64,
    pub vendor: u32,
    pub class: u32,
    /// Where its BARs are, 0 for none.
    pub bars: [u64; 6],
    pub sizes: [u64; 6],
}

impl Function {
    pub fn config(&self, register: u64) -> u64 {
        ECAM + (self.slot << 15) + register
    }

    /// Size the BARs and put each at its place.
    pub fn find_bars(&mut self) {
        write16(self.config(4), 0);
        let mut bar = 0;
        while bar < 6 {
            let register = self.config(0x10 + bar as u64 * 4);
            write32(register, !0);
            let answer = read32(register);
            let wide = answer & 7 == 4;
            if answer != 0 && answer & 1 == 0 {
                self.sizes[bar] = u64::from(!(answer & !15)) + 1;
                self.bars[bar] = BARS + self.slot * 0x10_0000 + bar as u64 * 0x2_0000;
            }
            bar += 1 + usize::from(wide);
        }
        self.restore();
    }

    /// Give it back what garbage in its configuration took.
    pub fn restore(&self) {
        write16(self.config(4), 0);
        for (bar, &address) in self.bars.iter().enumerate() {
            if address != 0 {
                write32(self.config(0x10 + bar as u64 * 4), address as u32);
                if read32(self.config(0x10 + bar as u64 * 4)) & 7 == 4 {
                    write32(self.config(0x14 + bar as u64 * 4), 0);
                }
            }
        }
        write16(self.config(4), 6);
    }
}
