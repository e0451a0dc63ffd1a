//! ELF kernels: program headers and the PVH entry note (System V ABI; `Documentation/x86/boot` and `xen/elfnote.h` of Linux).
//!
//! The file came out of a guest's image, so every number in it is checked.

#![forbid(unsafe_code)]

use super::bytes::{u16_at, u32_at, u64_at};

/// `XEN_ELFNOTE_PHYS32_ENTRY`: the 32-bit PVH entry point.
const PVH_ENTRY_NOTE: u32 = 18;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const MACHINE_X86_64: u16 = 62;
const PROGRAM_HEADER_SIZE: usize = 56;
/// More program headers or notes than any kernel has.
const MAX_PROGRAM_HEADERS: usize = 64;
/// The largest note segment that is looked into, in bytes.
const MAX_NOTES: u64 = 64 << 10;

/// Why a file is not a bootable ELF kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not a 64-bit little-endian x86_64 ELF file.
    #[error("the kernel is not an ELF file for x86_64")]
    NotElf,
    /// Headers that point outside the file or contradict each other.
    #[error("the kernel's ELF headers are damaged: {0}")]
    Damaged(&'static str),
}

/// One PT_LOAD segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// Guest-physical address.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory; what the file does not fill is zero. Never less than `file_size`.
    pub memory_size: u64,
}

/// The program headers of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// What to load.
    pub segments: Vec<Segment>,
    /// (offset, size) of note segments in the file.
    pub notes: Vec<(u64, u64)>,
}

/// Bytes at the start of a file that [`parse`] wants to see.
pub const HEADER_BYTES: usize = 4096;

/// Read the program headers from the first [`HEADER_BYTES`] of a file of `file_size` bytes.
pub fn parse(head: &[u8], file_size: u64) -> Result<Headers, ElfError> {
    let ident_ok = head.get(..6) == Some(&[0x7F, b'E', b'L', b'F', 2, 1]);
    if !ident_ok || u16_at(head, 18) != Some(MACHINE_X86_64) {
        return Err(ElfError::NotElf);
    }
    let damaged = || ElfError::Damaged("the program headers are out of reach");
    let table = u64_at(head, 32).and_then(|o| usize::try_from(o).ok()).ok_or_else(damaged)?;
    let size = usize::from(u16_at(head, 54).ok_or_else(damaged)?);
    let count = usize::from(u16_at(head, 56).ok_or_else(damaged)?);
    if size != PROGRAM_HEADER_SIZE || count == 0 || count > MAX_PROGRAM_HEADERS {
        return Err(ElfError::Damaged("the number or size of program headers"));
    }
    let mut headers = Headers::default();
    for i in 0..count {
        let at = table.checked_add(i * PROGRAM_HEADER_SIZE).ok_or_else(damaged)?;
        let header = at.checked_add(PROGRAM_HEADER_SIZE).and_then(|end| head.get(at..end)).ok_or_else(damaged)?;
        let field = |offset| u64_at(header, offset).ok_or_else(damaged);
        let (offset, address, in_file, in_memory) = (field(8)?, field(24)?, field(32)?, field(40)?);
        let kind = u32_at(header, 0).ok_or_else(damaged)?;
        if kind != PT_LOAD && kind != PT_NOTE {
            continue;
        }
        if offset.checked_add(in_file).is_none_or(|end| end > file_size) {
            return Err(ElfError::Damaged("a segment lies beyond the end of the file"));
        }
        if kind == PT_NOTE {
            headers.notes.push((offset, in_file.min(MAX_NOTES)));
        } else if in_memory > 0 {
            if in_file > in_memory {
                return Err(ElfError::Damaged("a segment is larger in the file than in memory"));
            }
            headers.segments.push(Segment { offset, address, file_size: in_file, memory_size: in_memory });
        }
    }
    if headers.segments.is_empty() {
        return Err(ElfError::Damaged("no segment to load"));
    }
    Ok(headers)
}

/// The PVH entry point among the notes of one note segment.
pub fn pvh_entry(notes: &[u8]) -> Option<u32> {
    let mut at = 0usize;
    while let (Some(name_size), Some(size), Some(kind)) =
        (u32_at(notes, at), u32_at(notes, at + 4), u32_at(notes, at + 8))
    {
        let name = at + 12;
        let descriptor = name.checked_add((name_size as usize).checked_next_multiple_of(4)?)?;
        let name = notes.get(name..name.checked_add(name_size as usize)?)?;
        if kind == PVH_ENTRY_NOTE && name == b"Xen\0" {
            // 4 or 8 bytes; an entry above 4 GiB could not be reached in 32-bit mode.
            return match size {
                4 => u32_at(notes, descriptor),
                8 => u64_at(notes, descriptor).and_then(|entry| u32::try_from(entry).ok()),
                _ => None,
            };
        }
        at = descriptor.checked_add((size as usize).checked_next_multiple_of(4)?)?;
    }
    None
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
