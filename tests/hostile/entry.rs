//! From the PVH entry to `main` in 64-bit mode, with what `core` needs where there is no C library.

use core::arch::{asm, global_asm};

use crate::hardware::write64;
use crate::random::SANE;

// The PVH entry (Xen's x86/HVM direct boot ABI): 32-bit, unpaged, EBX has the start information. From there to 64-bit mode with the
// first 4 GiB mapped to themselves.
global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long entry32

    .section .text.entry, "ax"
    .code32
    .global entry32
entry32:
    movl $page_directories, %edi
    movl $0x83, %eax
    xorl %ecx, %ecx
1:  movl %eax, (%edi, %ecx, 8)
    movl $0, 4(%edi, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jne 1b
    movl $page_directories + 3, %eax
    movl $pointers, %edi
    xorl %ecx, %ecx
2:  movl %eax, (%edi, %ecx, 8)
    movl $0, 4(%edi, %ecx, 8)
    addl $0x1000, %eax
    incl %ecx
    cmpl $4, %ecx
    jne 2b
    movl $pointers + 3, %eax
    movl %eax, top
    movl $top, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x620, %eax                 # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $0xc0000080, %ecx           # EFER
    rdmsr
    orl $0x100, %eax                 # LME
    wrmsr
    movl %cr0, %eax
    andl $~4, %eax                   # no emulation of the x87
    orl $0x80000003, %eax            # paging, monitor coprocessor, protection
    movl %eax, %cr0
    lgdt descriptor
    movl $stack_end, %esp
    ljmp $8, $entry64
    .code64
entry64:
    movl $16, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %ebx, %edi
    call main
3:  cli
    hlt
    jmp 3b

    # Whatever comes in (a message-signalled interrupt to anywhere may be a non-maskable one) goes unheard.
    .global unheard
unheard:
    iretq

    .section .data
    .balign 8
descriptors:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
descriptor:
    .word 23
    .quad descriptors

    .section .bss
    .balign 4096
page_directories: .skip 16384
pointers: .skip 4096
top: .skip 4096
    .skip 65536
stack_end:
"#,
    options(att_syntax)
);

/// `core` calls these, and there is no C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller says that so many bytes are there, as C wants it.
    unsafe { asm!("rep stosb", inout("rdi") to => _, inout("rcx") count => _, in("al") byte as u8) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller says that so many bytes are there, as C wants it.
    unsafe { asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") count => _) };
    to
}

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// An interrupt table whose every vector goes to `unheard`.
pub fn ignore_interrupts() {
    unsafe extern "C" {
        fn unheard();
    }
    const TABLE: u64 = SANE + 0x10_0000;
    let handler = unheard as *const () as u64;
    for vector in 0..256 {
        let at = TABLE + vector * 16;
        write64(at, handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler & 0xffff_0000) << 32);
        write64(at + 8, handler >> 32);
    }
    let mut pointer = [0u8; 10];
    pointer[..2].copy_from_slice(&4095u16.to_le_bytes());
    pointer[2..].copy_from_slice(&TABLE.to_le_bytes());
    // SAFETY: the table is whole, and stays.
    unsafe { asm!("lidt [{}]", in(reg) pointer.as_ptr()) }
}
