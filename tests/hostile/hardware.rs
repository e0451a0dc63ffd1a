//! Ports, memory and the console.

use core::arch::asm;
use core::fmt::{self, Write};
use core::ptr::{read_volatile, write_volatile};

pub fn out8(port: u16, value: u8) {
    // SAFETY: a port access touches no memory of this program.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value) }
}

pub fn out16(port: u16, value: u16) {
    // SAFETY: a port access touches no memory of this program.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value) }
}

pub fn out32(port: u16, value: u32) {
    // SAFETY: a port access touches no memory of this program.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value) }
}

pub fn in8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: a port access touches no memory of this program.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value) }
    value
}

pub fn in32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: a port access touches no memory of this program.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value) }
    value
}

pub fn read32(address: u64) -> u32 {
    // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
    unsafe { read_volatile(address as *const u32) }
}

pub fn write16(address: u64, value: u16) {
    // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
    unsafe { write_volatile(address as *mut u16, value) }
}

pub fn write32(address: u64, value: u32) {
    // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
    unsafe { write_volatile(address as *mut u32, value) }
}

pub fn write64(address: u64, value: u64) {
    // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
    unsafe { write_volatile(address as *mut u64, value) }
}

pub fn read64(address: u64) -> u64 {
    // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
    unsafe { read_volatile(address as *const u64) }
}

pub fn read16(address: u64) -> u16 {
    // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
    unsafe { read_volatile(address as *const u16) }
}

pub fn read8(address: u64) -> u8 {
    // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
    unsafe { read_volatile(address as *const u8) }
}

/// COM1.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while in8(0x3fd) & 0x20 == 0 {}
            out8(0x3f8, byte);
        }
        Ok(())
    }
}

/// Exits to wait for a device that may have reason not to answer.
pub const HASTY: u64 = 500;
/// Exits to wait for an answer that has to come.
pub const PATIENT: u64 = 500_000;

/// Look until it holds, but not for ever: that many exits, of which each takes at least a microsecond.
pub fn until(exits: u64, mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..exits {
        if holds() {
            return true;
        }
        // The device works in threads that may need this processor.
        in8(0x80);
    }
    false
}
