//! A hostile guest, without an operating system: it drives every device as a driver would, but with garbage in every field, and then
//! without any plan. Compiled by `tests/hostile.rs` into an ELF file with a PVH entry; the command line has `seed=N`, `rounds=N`.
//!
//! After each round of garbage it resets the devices and asks each for something that only a sound one can answer. That is printed
//! on COM1: `HOSTILE: round N alive`, at the end `HOSTILE: wild`, and then it does what may kill it, and powers off.

#![no_std]
#![no_main]

mod entry;
mod hardware;
mod nvme;
mod pci;
mod random;
mod virtio;

use core::arch::asm;
use core::fmt::Write;
use core::ptr::write_volatile;

use hardware::{Console, in8, in32, out8, out16, out32, read8, read32, read64, write16, write32};
use nvme::Nvme;
use pci::Function;
use random::Random;
use virtio::Virtio;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "HOSTILE: bug in the test's guest: {info}");
    power_off()
}

macro_rules! say {
    ($($arguments:tt)*) => {{ let _ = writeln!(Console, $($arguments)*); }};
}

fn power_off() -> ! {
    loop {
        out8(0x600, 0x34);
        // SAFETY: it waits for ever, with no interrupt to come.
        unsafe { asm!("cli", "hlt") }
    }
}

const NVME_CLASS: u32 = 0x01_0802;

/// Anything at any width in a device's registers: doorbells, MSI-X tables, what there is.
fn scribble(random: &mut Random, function: &Function) {
    for _ in 0..200 {
        let bar = random.below(6) as usize;
        if function.bars[bar] == 0 {
            continue;
        }
        let at = function.bars[bar] + random.below(function.sizes[bar]);
        let value = random.number();
        // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
        unsafe {
            match random.below(8) {
                0 => write_volatile(at as *mut u8, value as u8),
                1 => write_volatile((at & !1) as *mut u16, value as u16),
                2 => write_volatile((at & !7) as *mut u64, value),
                3 => _ = read64(at & !7),
                4 => _ = read8(at),
                // As an unaligned access, which may straddle two registers, or the end.
                5 => write_volatile(at as *mut [u8; 3], [value as u8; 3]),
                _ => write32(at & !3, value as u32),
            }
        }
    }
}

/// Configuration space by both mechanisms. BARs and the command register come back with [`Function::restore`].
fn reconfigure(random: &mut Random, function: &Function) {
    for _ in 0..200 {
        let end = if random.one_in(2) { 0x100 } else { 0x1000 };
        let register = random.below(end);
        let value = random.number();
        match random.below(6) {
            // SAFETY: the program owns the machine, and all addresses below 4 GiB are mapped.
            0 => unsafe { write_volatile(function.config(register) as *mut u8, value as u8) },
            1 => write16(function.config(register & !1), value as u16),
            2 => write32(function.config(register & !3), value as u32),
            3 => {
                out32(0xcf8, 0x8000_0000 | (function.slot << 11) as u32 | register as u32 & 0xfc);
                out32(0xcfc, value as u32);
            }
            4 => {
                out32(0xcf8, random.number() as u32);
                out16(0xcfc + random.below(4) as u16, value as u16);
            }
            _ => _ = read32(function.config(register & !3)),
        }
    }
}

/// Ports of every device, but those that end the machine, and the serial port, which tells what happens.
fn ports(random: &mut Random, all: bool) {
    for _ in 0..500 {
        let known = random.pick(&[0x20, 0x40, 0x60, 0x70, 0x80, 0x92, 0xa0, 0x2f8, 0x604, 0x610, 0xcf8, 0x4d0]);
        let port = (if random.one_in(3) { random.below(0x1_0000) } else { known + random.below(16) }) as u16;
        if !all
            && ((0x3f8..0x400).contains(&port)
                || (0x600..0x604).contains(&port)
                || matches!(port, 0x64 | 0x92 | 0xcf9 | 0x40..0x44 | 0x70))
        {
            continue;
        }
        match random.below(5) {
            0 => out16(port, random.number() as u16),
            1 => out32(port, random.number() as u32),
            2 => _ = in8(port),
            3 => _ = in32(port),
            _ => out8(port, random.number() as u8),
        }
    }
}

/// Whether a device does, after a reset, what it should.
fn is_sane(function: &Function, virtio: Option<&Virtio>) -> bool {
    let sane = if function.class == NVME_CLASS {
        Nvme(function.bars[0]).is_sane()
    } else {
        virtio.is_none_or(Virtio::is_sane)
    };
    if !sane {
        say!("HOSTILE: slot {} ({:08x}) is DEAD", function.slot, function.vendor);
    }
    sane
}

/// `name=number` in the command line.
fn option(command_line: u64, name: &[u8]) -> u64 {
    let byte = |i: u64| read8(command_line + i);
    for start in 0..2048 {
        if byte(start) == 0 {
            break;
        }
        if name.iter().enumerate().all(|(i, c)| byte(start + i as u64) == *c) {
            let mut value = 0u64;
            let mut at = start + name.len() as u64;
            while byte(at).is_ascii_digit() {
                value = value * 10 + u64::from(byte(at) - b'0');
                at += 1;
            }
            return value;
        }
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn main(start_information: u32) -> ! {
    let command_line = read64(u64::from(start_information) + 24);
    let seed = option(command_line, b"seed=");
    let rounds = option(command_line, b"rounds=");
    say!("HOSTILE: seed {seed}, {rounds} rounds");
    entry::ignore_interrupts();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);

    let mut functions = [Function::default(); 32];
    let mut count = 0;
    for slot in 0..32 {
        let mut function = Function { slot, ..Function::default() };
        function.vendor = read32(function.config(0));
        if function.vendor == 0xffff_ffff {
            continue;
        }
        function.class = read32(function.config(8)) >> 8;
        function.find_bars();
        functions[count] = function;
        count += 1;
    }
    let functions = &functions[..count];
    say!("HOSTILE: {count} PCI functions");
    // What configuration space says of the registers is read before it is garbage.
    let mut virtio = [None; 32];
    for (i, function) in functions.iter().enumerate() {
        if function.vendor & 0xffff == 0x1af4 {
            virtio[i] = Virtio::find(function);
        }
    }

    // The test's own driver works, so that it is garbage that a device dies of.
    let sound = functions.iter().zip(&virtio).all(|(function, virtio)| is_sane(function, virtio.as_ref()));
    say!("HOSTILE: before: {}", if sound { "alive" } else { "DEAD" });

    for round in 0..rounds {
        for (i, function) in functions.iter().enumerate() {
            for _ in 0..4 {
                if function.class == NVME_CLASS {
                    Nvme(function.bars[0]).attack(&mut random);
                } else if let Some(virtio) = &virtio[i] {
                    virtio.attack(&mut random);
                }
            }
            scribble(&mut random, function);
            reconfigure(&mut random, function);
            ports(&mut random, false);
        }
        let mut alive = true;
        for (i, function) in functions.iter().enumerate() {
            function.restore();
            alive &= is_sane(function, virtio[i].as_ref());
        }
        if alive {
            say!("HOSTILE: round {round} alive");
        }
    }

    say!("HOSTILE: wild");
    for _ in 0..rounds {
        for function in functions {
            reconfigure(&mut random, function);
            scribble(&mut random, function);
            // Through any mapping of the hole, too: interrupt controllers, and what is nobody's.
            for _ in 0..200 {
                let at = 0xc000_0000 + random.below(0x4000_0000) / 4 * 4;
                write32(at, random.number() as u32);
            }
            ports(&mut random, true);
        }
    }
    say!("HOSTILE: still there");
    power_off()
}
