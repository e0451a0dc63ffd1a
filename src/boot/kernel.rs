//! The bzImage: its setup header (Linux `Documentation/arch/x86/boot.rst`) and the ELF kernel inside it.
//!
//! Contract: pure functions over hostile bytes. Nothing is allocated by the image's numbers beyond
//! [`unpack::MAX_OUTPUT`].

#![forbid(unsafe_code)]

use super::elf::{self, ElfError};
use super::unpack::{self, UnpackError};

/// Why a file is no kernel that can be started.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Something that is recognised, but not an x86-64 Linux kernel.
    #[error("it is {0}, not an x86-64 Linux kernel")]
    Foreign(&'static str),
    /// The file ends before what its header announces.
    #[error("the kernel image is cut short: {what} needs {needed} bytes, there are {size}")]
    Short {
        /// What lies outside.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        size: u64,
    },
    /// A boot protocol before 2.12 has no 64-bit entry.
    #[error("boot protocol {major}.{minor} is too old (2.12 is needed)")]
    Protocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The payload does not unpack.
    #[error("the kernel inside the bzImage does not unpack")]
    Unpack(#[from] UnpackError),
    /// What was unpacked can't be entered directly.
    #[error("the unpacked kernel can't be entered by PVH")]
    Elf(#[from] ElfError),
}

/// What the setup header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BzImage {
    /// The version string, e.g. `6.1.0-50-cloud-amd64 (debian-kernel@…) #1 SMP …`.
    pub version: String,
    /// Boot protocol version, e.g. 0x020f.
    pub protocol: u16,
    /// Largest command line in bytes, without the final NUL.
    pub cmdline_size: u32,
    /// Where the payload lies in the file.
    pub payload: std::ops::Range<usize>,
    /// Bytes of linear memory that the kernel needs from its load address on.
    pub init_size: u32,
}

impl BzImage {
    /// The kernel release, as `uname -r` says it.
    pub fn release(&self) -> &str {
        self.version.split_whitespace().next().unwrap_or_default()
    }
}

/// How many bytes from a bzImage's start [`parse_header`] needs at most.
pub const HEADER_BYTES: usize = 64 << 10;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Parse the setup header. `head` is the file's start, `size` the size of the whole file.
pub fn parse_header(head: &[u8], size: u64) -> Result<BzImage, KernelError> {
    let short = |what, needed| KernelError::Short { what, needed, size };
    if head.get(0x202..0x206) != Some(b"HdrS") || u16_at(head, 0x1fe) != 0xaa55 {
        return Err(foreign(head).map_or_else(|| short("the setup header", 0x268), KernelError::Foreign));
    }
    let protocol = u16_at(head, 0x206);
    if protocol < 0x020c {
        return Err(KernelError::Protocol { major: (protocol >> 8) as u8, minor: protocol as u8 });
    }
    // XLF_KERNEL_64: there is a 64-bit entry.
    if u16_at(head, 0x236) & 1 == 0 {
        return Err(KernelError::Foreign("a 32-bit x86 kernel"));
    }
    // 0 means 4, by the protocol.
    let sectors = match head.get(0x1f1).copied().unwrap_or(0) {
        0 => 4,
        n => u64::from(n),
    };
    let setup = (sectors + 1) * 512;
    let start = setup + u64::from(u32_at(head, 0x248));
    let end = start + u64::from(u32_at(head, 0x24c));
    if end > size || start >= end {
        return Err(short("the compressed kernel", end));
    }
    // The string's offset does not count the first sector.
    let text = head.get(usize::from(u16_at(head, 0x20e)) + 0x200..).filter(|_| u16_at(head, 0x20e) != 0);
    let text = text.unwrap_or_default().split(|b| *b == 0).next().unwrap_or_default();
    let version = text.get(..text.len().min(256)).unwrap_or_default();
    let in_file = |n: u64| usize::try_from(n).map_err(|_| short("the compressed kernel", n));
    Ok(BzImage {
        version: String::from_utf8_lossy(version).into_owned(),
        protocol,
        cmdline_size: u32_at(head, 0x238),
        payload: in_file(start)?..in_file(end)?,
        init_size: u32_at(head, 0x260),
    })
}

/// What a file that is no bzImage seems to be.
fn foreign(head: &[u8]) -> Option<&'static str> {
    let magic = |at: usize, what: &[u8]| head.get(at..at + what.len()) == Some(what);
    match () {
        () if magic(0x38, b"ARM\x64") => Some("an arm64 kernel"),
        () if magic(4, b"zimg") => Some("an EFI zboot image (an arm64 or RISC-V kernel)"),
        () if magic(0, &[0x1f, 0x8b]) => Some("a gzip file (a compressed arm64 kernel, perhaps)"),
        () if magic(0, b"\x7fELF") => Some("an ELF file"),
        () if magic(0, b"MZ") => Some("an EFI program"),
        () if head.len() >= 0x268 => Some("no bzImage (the HdrS signature is missing)"),
        () => None,
    }
}

/// Unpack a bzImage to the ELF kernel in it, and check that it can be entered by PVH.
///
/// Any error but [`KernelError::Foreign`] and [`KernelError::Short`] leaves the bzImage protocol as the way to start it.
pub fn unpack(image: &[u8]) -> Result<Vec<u8>, KernelError> {
    let header = parse_header(image, image.len() as u64)?;
    let payload = image.get(header.payload.clone()).unwrap_or_default();
    let kernel = unpack::unpack(payload)?;
    elf::parse(&kernel)?;
    Ok(kernel)
}

/// Fuzz entry point: any bytes as a kernel image.
pub fn fuzz(bytes: &[u8]) {
    let _ = parse_header(bytes, bytes.len() as u64);
    let _ = unpack(bytes);
    let _ = elf::parse(bytes);
    let _ = unpack::unpack(bytes);
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
