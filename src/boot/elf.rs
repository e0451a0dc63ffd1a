//! The unpacked kernel: ELF-64 program headers, and the note that makes it enterable by PVH (Xen's `elfnote.h`:
//! `XEN_ELFNOTE_PHYS32_ENTRY`).

#![forbid(unsafe_code)]

/// Why an unpacked kernel can't be entered by PVH.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not an ELF-64 file for x86-64.
    #[error("not an x86-64 ELF file")]
    NotElf,
    /// Program headers or segments lie outside the file.
    #[error("the ELF file's {0} lie outside the file or overflow")]
    Outside(&'static str),
    /// No PVH note (the kernel was built without `CONFIG_PVH`), or one that points nowhere.
    #[error("no usable PVH entry note")]
    NoPvh,
}

/// A loadable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// Guest-physical address.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory; what is beyond `file_size` is zero.
    pub memory_size: u64,
}

/// What a machine must know to load an ELF kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfKernel {
    /// The 32-bit PVH entry point, guest-physical.
    pub pvh_entry: u64,
    /// Loadable segments, in file order.
    pub segments: Vec<Segment>,
}

const MAX_HEADERS: usize = 64;
const MAX_NOTE_BYTES: u64 = 64 << 10;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Check an unpacked kernel.
pub fn parse(elf: &[u8]) -> Result<ElfKernel, ElfError> {
    // Class 64, little endian, EM_X86_64, 56-byte program headers.
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") || u16_at(elf, 18) != 62 || u16_at(elf, 54) != 56 {
        return Err(ElfError::NotElf);
    }
    let count = usize::from(u16_at(elf, 56));
    let table = usize::try_from(u64_at(elf, 32)).ok().and_then(|at| elf.get(at..)?.get(..count.checked_mul(56)?));
    let table = table.filter(|_| count <= MAX_HEADERS).ok_or(ElfError::Outside("program headers"))?;
    let (mut segments, mut entry) = (Vec::new(), None);
    for header in table.chunks_exact(56) {
        let segment = Segment {
            offset: u64_at(header, 8),
            address: u64_at(header, 24),
            file_size: u64_at(header, 32),
            memory_size: u64_at(header, 40),
        };
        match u32_at(header, 0) {
            1 if segment.memory_size > 0 => {
                let bytes = slice(elf, segment.offset, segment.file_size);
                let fits = segment.address.checked_add(segment.memory_size).is_some();
                if bytes.is_none() || !fits || segment.file_size > segment.memory_size {
                    return Err(ElfError::Outside("segments"));
                }
                segments.push(segment);
            }
            4 => entry = pvh_entry(slice(elf, segment.offset, segment.file_size.min(MAX_NOTE_BYTES))).or(entry),
            _ => {}
        }
    }
    let inside = |s: &Segment, at: u64| at >= s.address && at - s.address < s.file_size;
    let pvh_entry = entry.filter(|at| segments.iter().any(|s| inside(s, *at))).ok_or(ElfError::NoPvh)?;
    Ok(ElfKernel { pvh_entry, segments })
}

fn slice(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(length).ok()?)
}

/// Walk notes: name size, descriptor size, type, then both padded to four bytes.
fn pvh_entry(notes: Option<&[u8]>) -> Option<u64> {
    let mut rest = notes?;
    while rest.len() >= 12 {
        let (name_size, size, kind) = (u32_at(rest, 0) as usize, u32_at(rest, 4) as usize, u32_at(rest, 8));
        let padded = |n: usize| n.checked_add(3).map(|n| n & !3);
        let name = rest.get(12..)?.get(..name_size)?;
        let data = rest.get(padded(name_size)?.checked_add(12)?..)?;
        if name == b"Xen\0" && kind == 18 {
            return match data.get(..size)?.len() {
                4 => Some(u32_at(data, 0).into()),
                8 => Some(u64_at(data, 0)),
                _ => None,
            };
        }
        rest = data.get(padded(size)?..)?;
    }
    None
}
