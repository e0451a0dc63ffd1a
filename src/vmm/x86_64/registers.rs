//! The boot processor's registers at the kernel's first instruction (Intel SDM volume 3, §3 and §4).

#![forbid(unsafe_code)]

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use crate::vmm::layout;

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Selectors as the Linux boot protocol wants them (`__BOOT_CS`, `__BOOT_DS`), and a task segment behind them.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// The global descriptor table, to be placed at [`layout::GDT`]. `long` makes the code segment a 64-bit one.
pub fn gdt(long: bool) -> [u64; 5] {
    let code = if long { 0x00AF_9B00_0000_FFFF } else { 0x00CF_9B00_0000_FFFF };
    [0, 0, code, 0x00CF_9300_0000_FFFF, 0x008F_8B00_0000_FFFF]
}

/// How the kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// PVH: 32-bit protected mode without paging, EBX points to `hvm_start_info`.
    Pvh {
        /// Physical address of the first instruction.
        address: u32,
    },
    /// Linux: 64-bit mode, identity-mapped, RSI points to the zero page.
    Linux64 {
        /// Physical address of the first instruction.
        address: u64,
    },
}

impl Entry {
    /// The general registers.
    pub fn regs(self) -> kvm_regs {
        let mut regs = kvm_regs { rflags: 2, ..Default::default() };
        match self {
            Entry::Pvh { address } => {
                regs.rip = u64::from(address);
                regs.rbx = layout::PVH_START_INFO;
            }
            Entry::Linux64 { address } => {
                regs.rip = address;
                regs.rsi = layout::ZERO_PAGE;
            }
        }
        regs
    }

    /// The system registers, from those after reset.
    pub fn sregs(self, reset: kvm_sregs) -> kvm_sregs {
        let long = matches!(self, Entry::Linux64 { .. });
        let mut sregs = reset;
        let data = segment(DATA, 0x3, false, true);
        sregs.cs = segment(CODE, 0xB, long, !long);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr =
            kvm_segment { selector: TASK, type_: 0xB, present: 1, limit: 0xFFFF_FFFF, g: 1, ..Default::default() };
        sregs.gdt.base = layout::GDT;
        sregs.gdt.limit = (size_of_val(&gdt(long)) - 1) as u16;
        sregs.idt.base = 0;
        sregs.idt.limit = 0;
        sregs.cr0 = CR0_PE;
        if long {
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = layout::PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        } else {
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
        sregs
    }
}

fn segment(selector: u16, type_: u8, long: bool, db: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xFFFF_FFFF,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(db),
        s: 1,
        l: u8::from(long),
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// Page tables that map the first 4 GiB one to one with 2 MiB pages, to be placed at [`layout::PAGE_TABLES`].
pub fn identity_page_tables() -> Vec<u8> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    const PAGE: u64 = 0x1000;
    let mut tables = vec![0u64; 6 * 512];
    let pdpt = layout::PAGE_TABLES + PAGE;
    tables[0] = pdpt | PRESENT_WRITABLE;
    for i in 0..4 {
        tables[512 + i as usize] = (pdpt + PAGE + i * PAGE) | PRESENT_WRITABLE;
    }
    for (i, entry) in tables[1024..].iter_mut().enumerate() {
        *entry = (i as u64) << 21 | PRESENT_WRITABLE | LARGE;
    }
    tables.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
