//! A guest without an operating system, for tests of the instance's life: an ELF file with a PVH entry that greets on the serial
//! port and obeys single letters. It runs on any KVM, one in software too, in milliseconds.
//!
//! `p` powers off, `r` resets, any other byte comes back.

use std::path::{Path, PathBuf};

/// Where it is loaded and entered.
const ADDRESS: u32 = 0x10_0000;

/// 32-bit code, as the PVH entry is (Xen's x86/HVM direct boot ABI). It halts while there is nothing to obey, so that a guest that a
/// failed test leaves behind takes no processor time.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0xbc, 0x00, 0x00, 0x09, 0x00,               //     mov esp, 0x90000
    0x0f, 0x01, 0x1d, 0x7d, 0x00, 0x10, 0x00,   //     lidt [6f]
    0xb0, 0xff, 0xe6, 0x21,                     //     the old interrupt controller: off
    0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe,
    0xff, 0x01, 0x00, 0x00,                     //     local APIC: on
    0xc7, 0x05, 0x00, 0x00, 0xc0, 0xfe,
    0x18, 0x00, 0x00, 0x00,                     //     I/O APIC: the entry of COM1's interrupt 4
    0xc7, 0x05, 0x10, 0x00, 0xc0, 0xfe,
    0x24, 0x00, 0x00, 0x00,                     //     is vector 0x24
    0x66, 0xba, 0xf9, 0x03, 0xb0, 0x01, 0xee,   //     COM1 interrupts when there are data
    0x66, 0xba, 0xf8, 0x03,                     //     mov dx, COM1
    0xb0, b'R', 0xee,                           //     out dx, 'R'
    0xb0, b'\n', 0xee,                          //     out dx, '\n'
    0x66, 0xba, 0xfd, 0x03,                     // 1:  mov dx, COM1's line status
    0xec, 0xa8, 0x01,                           //     in al, dx; test al, data ready
    0x75, 0x05,                                 //     jnz 2f
    0xfb, 0xf4, 0xfa,                           //     sti; hlt; cli
    0xeb, 0xf2,                                 //     jmp 1b
    0x66, 0xba, 0xf8, 0x03,                     // 2:  mov dx, COM1
    0xec,                                       //     in al, dx
    0x3c, b'p', 0x74, 0x07,                     //     cmp al, 'p'; je 3f
    0x3c, b'r', 0x74, 0x0a,                     //     cmp al, 'r'; je 4f
    0xee, 0xeb, 0xe2,                           //     out dx, al; jmp 1b
    0x66, 0xba, 0x00, 0x06,                     // 3:  mov dx, ACPI sleep control
    0xb0, 0x34, 0xee,                           //     out dx, S5 | enable
    0x66, 0xba, 0x02, 0x06,                     // 4:  mov dx, ACPI reset
    0xb0, 0x01, 0xee,                           //     out dx, 1
    0xf4, 0xeb, 0xfd,                           //     hlt, for ever
    0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe,
    0x00, 0x00, 0x00, 0x00,                     // 5:  end of interrupt
    0x83, 0xc4, 0x0c, 0xeb, 0xc2,               //     add esp, 12; jmp 1b: not every KVM in software has iret
    0x27, 0x01, 0x63, 0xff, 0x0f, 0x00,         // 6:  interrupt table: limit, base, so that entry 0x24 is
    0x6e, 0x00, 0x10, 0x00,
    0x00, 0x8e, 0x10, 0x00,                     //     a gate to 5b in the code segment that amiable enters with
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
