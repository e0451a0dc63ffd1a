//! The static executable that becomes `/init` of the emulated host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a file cannot be `/init`.
#[derive(Debug, Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not an ELF executable for x86_64.
    #[error("{}: not an x86_64 ELF executable", .0.display())]
    NotElf(PathBuf),
    /// It needs a dynamic loader and libraries, which the emulated host does not have.
    #[error(
        "{} is dynamically linked, and inside the emulated host there are no libraries: build the static one with \
         `rustup target add x86_64-unknown-linux-musl && cargo build --release --target x86_64-unknown-linux-musl` and \
         run target/x86_64-unknown-linux-musl/release/amiable",
        .0.display()
    )]
    Dynamic(PathBuf),
}

/// Reads a static executable, without what lies behind its loadable segments (symbols, debug information).
pub fn read_static(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let elf = inspect(&bytes).ok_or_else(|| Error::NotElf(path.to_owned()))?;
    if elf.interpreter {
        return Err(Error::Dynamic(path.to_owned()));
    }
    bytes.truncate(elf.loaded_end);
    Ok(bytes)
}

struct Elf {
    /// It has a PT_INTERP: a dynamic executable.
    interpreter: bool,
    /// Where the last byte of any segment lies in the file.
    loaded_end: usize,
}

/// The program headers of an ELF64 file (System V ABI, chapter 5); none for anything else.
fn inspect(bytes: &[u8]) -> Option<Elf> {
    const PT_INTERP: u32 = 3;
    const EM_X86_64: u16 = 62;
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let u64_at =
        |at: usize| usize::try_from(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok();
    // Magic, 64 bits, little-endian; then the machine.
    if bytes.get(..6)? != b"\x7fELF\x02\x01" || u16_at(18)? != EM_X86_64 {
        return None;
    }
    let (table, size, count) = (u64_at(32)?, usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    if size < 56 || count == 0 {
        return None;
    }
    let mut elf = Elf { interpreter: false, loaded_end: table.checked_add(size.checked_mul(count)?)? };
    for n in 0..count {
        let header = table.checked_add(size.checked_mul(n)?)?;
        elf.interpreter |= u32_at(header)? == PT_INTERP;
        let end = u64_at(header.checked_add(8)?)?.checked_add(u64_at(header.checked_add(32)?)?)?;
        elf.loaded_end = elf.loaded_end.max(end);
    }
    (elf.loaded_end <= bytes.len()).then_some(elf)
}

#[cfg(test)]
#[path = "binary_tests.rs"]
mod tests;
