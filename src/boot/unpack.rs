//! The compressions of a bzImage's payload: gzip, xz (with the x86 BCJ filter), lzma, lz4 (legacy frames), zstd, none.
//!
//! Contract: at most [`MAX_OUTPUT`] bytes come out, and no decoder's window is larger than [`MAX_WINDOW`]. A panic in a
//! decoder is an error.

#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A distribution's kernel unpacks to 30 to 80 MB, one with all debug options to about 200.
pub const MAX_OUTPUT: u64 = 384 << 20;
/// The kernel's build uses 32 MiB (xz), 128 MiB (zstd, the largest that its own decoder takes).
pub const MAX_WINDOW: u32 = 128 << 20;

/// Why a payload does not unpack.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A compression that is not known here.
    #[error("unknown compression (it begins with {0:02x?})")]
    Unknown(Vec<u8>),
    /// The compressed data is bad.
    #[error("bad {format} data")]
    Bad {
        /// The compression.
        format: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// The compressed data makes the decoder panic.
    #[error("bad {0} data: the decoder gave up")]
    Panicked(&'static str),
    /// Too much comes out.
    #[error("it unpacks to more than {MAX_OUTPUT} bytes")]
    TooLarge,
}

/// Unpack a bzImage's payload.
pub fn unpack(payload: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let starts = |magic: &[u8]| payload.starts_with(magic);
    // All but gzip are followed by the unpacked size in four bytes, which is not part of the stream.
    let (stream, size) = payload.split_at_checked(payload.len().saturating_sub(4)).unwrap_or_default();
    let size = size.try_into().map_or(0, u32::from_le_bytes);
    match () {
        () if starts(b"\x7fELF") => Ok(payload.to_vec()),
        // gzip's own last field is that size.
        () if starts(&[0x1f, 0x8b]) => drain("gzip", size, || Ok(flate2::read::GzDecoder::new(payload))),
        () if starts(&[0xfd, b'7', b'z', b'X', b'Z', 0]) => drain("xz", size, || xz_block(stream)),
        () if starts(&[0x5d, 0, 0]) => {
            drain("lzma", size, || lzma_rust2::LzmaReader::new_mem_limit(stream, MAX_WINDOW / 1024 + 1024, None))
        }
        () if starts(&[0x02, 0x21, 0x4c, 0x18]) => {
            drain("lz4", size, || Ok(lz4_flex::frame::FrameDecoder::new(stream)))
        }
        () if starts(&[0x28, 0xb5, 0x2f, 0xfd]) => drain("zstd", size, || {
            ruzstd::decoding::StreamingDecoder::new_with_max_window_size(stream, MAX_WINDOW.into())
                .map_err(io::Error::other)
        }),
        () => Err(UnpackError::Unknown(payload.iter().take(6).copied().collect())),
    }
}

/// Read a decoder to its end. `size` is only a hint for the buffer.
fn drain<R: Read>(
    format: &'static str,
    size: u32,
    open: impl FnOnce() -> io::Result<R>,
) -> Result<Vec<u8>, UnpackError> {
    // The data is hostile and the decoders are not ours: an index out of bounds in one of them is to be an error for
    // this kernel, not the end of the process. Nothing of the decoder outlives the panic.
    let answer = catch_unwind(AssertUnwindSafe(|| {
        let mut out = Vec::new();
        let _ = out.try_reserve(size.min(128 << 20) as usize);
        open()?.take(MAX_OUTPUT + 1).read_to_end(&mut out).map(|_| out)
    }));
    match answer {
        Err(_) => Err(UnpackError::Panicked(format)),
        Ok(Err(source)) => Err(UnpackError::Bad { format, source }),
        Ok(Ok(out)) if out.len() as u64 > MAX_OUTPUT => Err(UnpackError::TooLarge),
        Ok(Ok(out)) => Ok(out),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The first block of an xz stream (xz file format 1.2.1 §2, §3), which is all that a kernel has. Read by hand because
/// the library would reserve whatever window the stream asks for. The checksum behind the block is not looked at: a
/// wrong kernel is found out by its ELF header or by the guest.
fn xz_block(stream: &[u8]) -> io::Result<Box<dyn Read + '_>> {
    let cut = || invalid("the block header is cut short");
    let block = stream.get(12..).ok_or_else(cut)?;
    let header_size = (usize::from(*block.first().ok_or_else(cut)?) + 1) * 4;
    let mut header = block.get(2..header_size).ok_or_else(cut)?;
    let flags = *block.get(1).ok_or_else(cut)?;
    for present in [flags & 0x40, flags & 0x80] {
        if present != 0 {
            multibyte(&mut header)?;
        }
    }
    let (mut window, mut x86) = (None, false);
    for _ in 0..=(flags & 3) {
        let (id, size) = (multibyte(&mut header)?, multibyte(&mut header)? as usize);
        let (properties, rest) = header.split_at_checked(size).ok_or_else(cut)?;
        header = rest;
        match (id, properties) {
            (0x04, []) => x86 = true,
            (0x21, [bits]) if *bits < 40 => window = Some((2 | u64::from(bits & 1)) << (bits / 2 + 11)),
            _ => return Err(invalid("a filter that kernels do not use")),
        }
    }
    let window = window.filter(|w| *w <= MAX_WINDOW.into()).ok_or_else(|| invalid("the window is too large"))?;
    let data = block.get(header_size..).ok_or_else(cut)?;
    let plain = lzma_rust2::Lzma2Reader::new(data, window as u32, None);
    Ok(if x86 { Box::new(lzma_rust2::filter::bcj::BcjReader::new_x86(plain, 0)) } else { Box::new(plain) })
}

/// A variable-length integer (§1.2).
fn multibyte(bytes: &mut &[u8]) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or_else(|| invalid("the block header is cut short"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(invalid("an integer in the block header is too long"))
}
