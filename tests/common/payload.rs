//! A guest without an operating system, for tests of the instance's life: an ELF file with a PVH entry that greets on the serial
//! port and obeys single letters. It runs on any KVM, one in software too, in milliseconds.
//!
//! `p` powers off, `r` resets, any other byte comes back.

use std::path::{Path, PathBuf};

/// Where it is loaded and entered.
const ADDRESS: u32 = 0x10_0000;

/// 32-bit code, as the PVH entry is (Xen's x86/HVM direct boot ABI).
#[rustfmt::skip]
const CODE: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03,     //     mov dx, COM1
    0xb0, b'R', 0xee,           //     out dx, 'R'
    0xb0, b'\n', 0xee,          //     out dx, '\n'
    0x66, 0xba, 0xfd, 0x03,     // 1:  mov dx, COM1's line status
    0xf3, 0x90,                 //     pause
    0xec, 0xa8, 0x01,           //     in al, dx; test al, data ready
    0x74, 0xf5,                 //     jz 1b
    0x66, 0xba, 0xf8, 0x03,     //     mov dx, COM1
    0xec,                       //     in al, dx
    0x3c, b'p', 0x74, 0x07,     //     cmp al, 'p'; je 2f
    0x3c, b'r', 0x74, 0x0a,     //     cmp al, 'r'; je 3f
    0xee, 0xeb, 0xe5,           //     out dx, al; jmp 1b
    0x66, 0xba, 0x00, 0x06,     // 2:  mov dx, ACPI sleep control
    0xb0, 0x34, 0xee,           //     out dx, S5 | enable
    0x66, 0xba, 0x02, 0x06,     // 3:  mov dx, ACPI reset
    0xb0, 0x01, 0xee,           //     out dx, 1
    0xf4, 0xeb, 0xfd,           // 4:  hlt; jmp 4b
];

/// Write it into a directory.
pub fn write(directory: &Path) -> PathBuf {
    let path = directory.join("payload.elf");
    std::fs::write(&path, elf()).unwrap();
    path
}

/// ELF64 with one loaded segment and one note.
fn elf() -> Vec<u8> {
    let (headers, note_at, code_at) = (64u64, 64 + 2 * 56u64, 0x1000u64);
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2u16.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(u64::from(ADDRESS).to_le_bytes());
    file.extend(headers.to_le_bytes());
    file.extend([0; 12]);
    for half in [64u16, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut segment = |kind: u32, offset: u64, address: u64, size: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        for word in [offset, address, address, size, size, 4] {
            file.extend(word.to_le_bytes());
        }
    };
    segment(1, code_at, u64::from(ADDRESS), CODE.len() as u64);
    segment(4, note_at, 0, 20);
    // XEN_ELFNOTE_PHYS32_ENTRY
    for word in [4u32, 4, 18] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"Xen\0");
    file.extend(ADDRESS.to_le_bytes());
    file.resize(code_at as usize, 0);
    file.extend(CODE);
    file
}
