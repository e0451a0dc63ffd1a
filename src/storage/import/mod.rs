//! Import: a disk image of any supported format becomes a sparse raw file, once.
//!
//! The format is found by the file's own magic numbers (or given by the caller) here and never again: what a guest
//! later writes into its disk can't turn it into another format. No file that an image names (backing files, extents,
//! external data) is ever opened. Everything in an image is checked before use, and the disk's size is bounded by
//! [`MAX_SIZE`].
//!
//! The raw file has no name until it is complete and durable, so an import that fails, or is killed, leaves nothing
//! behind (on the few file systems without unnamed files, a killed one leaves a file whose name begins with `.import-`).

mod error;
mod format;
mod fuzz;
mod qcow2;
mod stream;
mod vmdk;
mod writer;

pub use error::ImportError;
pub use format::{Format, detect};
pub use fuzz::{fuzz_qcow2, fuzz_vmdk};

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::MAX_SIZE;
use super::image::next_data;
use super::lock::lock;
use crate::vmm::backend::BLOCK_SIZE;
use writer::{CHUNK, Writer};

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedImage {
    /// The raw file.
    pub path: PathBuf,
    /// What the source was.
    pub source_format: Format,
    /// The disk's size in bytes.
    pub size: u64,
    /// What the raw file takes on disk, in bytes.
    pub stored: u64,
    /// SHA-256 of the content, 64 hexadecimal digits: of each block of 4 KiB that is not all zeros, its number (u64, little
    /// endian) and its bytes; at the end, the size. Equal disks have equal digests, however they were stored, and
    /// the terabytes of zeros in a large disk cost nothing.
    pub digest: String,
}

/// Told how far an import is: bytes of the disk done, and its size where known. With [`ControlFlow::Break`] it stops.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>) -> ControlFlow<()>;

/// Turn the image `source` into the raw file `target`, which must not exist. Without a `format` it is detected.
pub fn import(
    source: &Path,
    format: Option<Format>,
    target: &Path,
    progress: Progress<'_>,
) -> Result<ImportedImage, ImportError> {
    let file = File::open(source).map_err(|error| ImportError::read(source, error))?;
    let metadata = file.metadata().map_err(|error| ImportError::read(source, error))?;
    if metadata.is_dir() {
        return Err(ImportError::read(source, io::ErrorKind::IsADirectory.into()));
    }
    if target.exists() {
        return Err(ImportError::Exists(target.into()));
    }
    // Nobody may write it meanwhile, if they ask; somebody who has it open for writing makes us stop.
    lock(&file, source, false).map_err(|error| ImportError::read(source, io::Error::other(error)))?;
    let format = match format {
        Some(format) => format,
        None => detect(&file)
            .map_err(|error| ImportError::read(source, error))?
            .map_err(|what| ImportError::unsupported(source, what))?,
    };
    let input = Input { file, path: source, max_size: MAX_SIZE };
    let mut writer = Writer::new(target, progress)?;
    copy(&input, format, &mut writer)?;
    let (size, stored, digest) = writer.finish()?;
    Ok(ImportedImage { path: target.into(), source_format: format, size, stored, digest })
}

/// An image to read.
struct Input<'a> {
    file: File,
    path: &'a Path,
    max_size: u64,
}

impl Input<'_> {
    fn len(&self) -> Result<u64, ImportError> {
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::End(0)).map_err(|error| self.read_error(error.into()))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ImportError> {
        self.file.read_exact_at(buf, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too soon: the file was cut short"),
            _ => self.read_error(error),
        })
    }

    fn read_error(&self, error: io::Error) -> ImportError {
        ImportError::read(self.path, error)
    }

    fn damaged(&self, reason: impl Into<String>) -> ImportError {
        ImportError::Damaged { path: self.path.into(), reason: reason.into() }
    }

    fn unsupported(&self, reason: impl Into<String>) -> ImportError {
        ImportError::unsupported(self.path, reason)
    }

    /// Refuse sizes that no disk can have.
    fn checked_size(&self, size: u64) -> Result<u64, ImportError> {
        match size {
            0 => Err(self.damaged("it describes an empty disk")),
            _ if size > self.max_size => Err(ImportError::TooLarge { path: self.path.into(), max: self.max_size }),
            _ => Ok(size),
        }
    }
}

fn copy(input: &Input<'_>, format: Format, out: &mut Writer<'_>) -> Result<(), ImportError> {
    match format {
        Format::Raw => raw(input, input.len()?, out),
        Format::FixedVhd => raw(input, input.len()?.saturating_sub(BLOCK_SIZE), out),
        Format::Qcow2 => qcow2::copy(input, out),
        Format::Vmdk => vmdk::copy(input, out),
        Format::RawXz | Format::RawGzip | Format::RawZstd => stream::copy(input, format, out),
    }
}

/// Copy the first `len` bytes, what is data of them.
fn raw(input: &Input<'_>, len: u64, out: &mut Writer<'_>) -> Result<(), ImportError> {
    let size = input.checked_size(len)?;
    out.set_size(size.next_multiple_of(BLOCK_SIZE))?;
    out.try_reflink(&input.file, size);
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    while let Some(data) = next_data(&input.file, at, size).map_err(|error| input.read_error(error))? {
        // Chunks begin at multiples of the chunk size from a block boundary on.
        let start = (data.start - data.start % writer::BLOCK).max(at);
        out.zeros(start - at)?;
        at = start;
        while at < data.end {
            let n = (size - at).min(CHUNK as u64);
            let buf = buf.get_mut(..n as usize).unwrap_or_default();
            input.read_at(at, buf)?;
            out.data(buf)?;
            at += n;
        }
    }
    out.zeros(size.saturating_sub(at))
}

/// Fill `buf` as far as the stream goes.
fn read_full(stream: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod test_images;
#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
