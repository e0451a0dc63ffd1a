//! Writes a disk from its first byte to its last into a sparse raw file that gets its name only at the end.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, linkat};
use sha2::{Digest, Sha256};
use tempfile::TempPath;

use super::{ImportError, Progress};

/// Blocks of zeros of this many bytes become holes.
pub const BLOCK: u64 = 4096;
/// What importers hand over at a time.
pub const CHUNK: usize = 1 << 20;
/// How far the file is made longer than what is written, where the end is not known.
const AHEAD: u64 = 1 << 30;
/// Bytes between two calls of the progress function.
const REPORT_EVERY: u64 = 8 << 20;

/// A raw file in the making.
pub struct Writer<'a> {
    file: File,
    /// The file's name, where it can't be without one.
    named: Option<TempPath>,
    target: PathBuf,
    digest: Sha256,
    at: u64,
    size: Option<u64>,
    /// The file's present length.
    length: u64,
    /// The file has the content already.
    cloned: bool,
    progress: Progress<'a>,
    reported: u64,
}

impl<'a> Writer<'a> {
    /// Begin the file that is to become `target`.
    pub fn new(target: &Path, progress: Progress<'a>) -> Result<Self, ImportError> {
        let (file, named) = unnamed(folder(target)).map_err(|error| ImportError::write(target, error))?;
        Ok(Writer {
            file,
            named,
            target: target.into(),
            digest: Sha256::new(),
            at: 0,
            size: None,
            length: 0,
            cloned: false,
            progress,
            reported: 0,
        })
    }

    /// Say how large the disk is, when that is known from the start.
    pub fn set_size(&mut self, size: u64) -> Result<(), ImportError> {
        self.set_length(size)?;
        self.size = Some(size);
        self.report(true)
    }

    fn set_length(&mut self, length: u64) -> Result<(), ImportError> {
        self.length = length;
        self.file.set_len(length).map_err(|error| self.error(error))
    }

    /// Share the blocks of `source` where the file system can (ioctl_ficlonerange(2)). The content is still to be
    /// handed over, for the digest.
    pub fn try_reflink(&mut self, source: &File, len: u64) {
        // A source with more than the disk (a footer) would leave the rest behind it.
        if source.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == len)
            && rustix::fs::ioctl_ficlone(&self.file, source).is_ok()
        {
            let padded = self.size.unwrap_or(len);
            self.cloned = self.file.set_len(padded).is_ok();
        }
    }

    /// The next bytes. All but the last ones are a multiple of [`BLOCK`].
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        let end = self.at + bytes.len() as u64;
        if end > self.length {
            // Some file systems allocate ahead of a file that grows, and what is then left out is no hole.
            self.set_length(end.saturating_add(AHEAD))?;
        }
        // Where the blocks not yet written begin that are not zeros.
        let mut pending = None;
        let mut offset = 0;
        for block in bytes.chunks(BLOCK as usize) {
            if ZEROS.get(..block.len()) == Some(block) {
                self.write(bytes, pending.take(), offset)?;
            } else {
                self.digest.update(((self.at + offset as u64) / BLOCK).to_le_bytes());
                self.digest.update(block);
                pending.get_or_insert(offset);
            }
            offset += block.len();
        }
        self.write(bytes, pending, offset)?;
        self.at = end;
        self.report(false)
    }

    fn write(&self, bytes: &[u8], from: Option<usize>, to: usize) -> Result<(), ImportError> {
        match from.and_then(|from| Some((from, bytes.get(from..to)?))) {
            Some((from, run)) if !self.cloned => {
                self.file.write_all_at(run, self.at + from as u64).map_err(|error| self.error(error))
            }
            _ => Ok(()),
        }
    }

    /// The next `len` bytes are zeros.
    pub fn zeros(&mut self, len: u64) -> Result<(), ImportError> {
        self.at = self.at.saturating_add(len);
        self.report(false)
    }

    /// Bytes handed over so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Make it durable and give it its name. Answers its size, what it takes on disk, and its digest.
    pub fn finish(mut self) -> Result<(u64, u64, String), ImportError> {
        let size = self.size.unwrap_or_else(|| self.at.next_multiple_of(512));
        self.set_length(size)?;
        self.digest.update(size.to_le_bytes());
        let finished = (|| {
            // The base of volumes: nobody writes it any more.
            self.file.set_permissions(Permissions::from_mode(0o400))?;
            self.file.sync_all()?;
            match self.named.take() {
                Some(named) => named.persist_noclobber(&self.target).map_err(|error| error.error)?,
                None => {
                    let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                    linkat(CWD, source, CWD, &self.target, AtFlags::SYMLINK_FOLLOW)?;
                }
            }
            File::open(folder(&self.target))?.sync_all()?;
            self.file.metadata()
        })();
        let metadata = finished.map_err(|error| self.error(error))?;
        self.report(true)?;
        Ok((size, metadata.blocks().saturating_mul(512), hex::encode(self.digest.finalize())))
    }

    fn report(&mut self, always: bool) -> Result<(), ImportError> {
        if always || self.at - self.reported >= REPORT_EVERY {
            self.reported = self.at;
            let done = self.size.map_or(self.at, |size| self.at.min(size));
            if let ControlFlow::Break(()) = (self.progress)(done, self.size) {
                return Err(ImportError::Interrupted);
            }
        }
        Ok(())
    }

    fn error(&self, error: io::Error) -> ImportError {
        ImportError::write(&self.target, error)
    }
}

fn folder(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file without a name (open(2), `O_TMPFILE`), or with a name that goes away with it.
fn unnamed(folder: &Path) -> io::Result<(File, Option<TempPath>)> {
    let unnamed =
        OpenOptions::new().read(true).write(true).custom_flags(OFlags::TMPFILE.bits() as i32).mode(0o600).open(folder);
    match unnamed {
        Ok(file) => Ok((file, None)),
        // EISDIR: a kernel or file system that does not know the flag.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory) => {
            let (file, path) = tempfile::Builder::new().prefix(".import-").tempfile_in(folder)?.into_parts();
            Ok((file, Some(path)))
        }
        Err(error) => Err(error),
    }
}
