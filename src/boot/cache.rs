//! Unpacked kernels and initial RAM disks as files, by the hash of what they were made from.
//!
//! Contract: a file in the cache is whole (it is written beside its place, synced and renamed) and never changes, so any
//! number of machines can read it at once. Losing the cache costs time only. Several processes may use it
//! together.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::kernel::{self, KernelError};
use crate::vmm::config::{Initrd, Kernel};

/// Part of the file names' directory: raise it when unpacking changes what it writes.
const FORMAT: &str = "boot-2";

/// Why the cache can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file operation failed.
    #[error("{what} {path} failed", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is no kernel that can be started in any way.
    #[error("the kernel can't be used")]
    Kernel(#[from] KernelError),
}

/// The cache's directory.
#[derive(Clone, Debug)]
pub struct KernelCache {
    dir: PathBuf,
}

impl KernelCache {
    /// Use the cache below `dir`, which is made if it is missing.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        let dir = dir.join(FORMAT);
        fs::create_dir_all(&dir).map_err(|source| CacheError::Io { what: "making", path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// Keep a kernel: an ELF file where the bzImage unpacks to one with a PVH entry, else the bzImage itself. The answer
    /// is the key for [`kernel`](Self::kernel).
    pub fn add_kernel(&self, image: &[u8]) -> Result<String, CacheError> {
        let hash = hex::encode(Sha256::digest(image));
        for extension in ["elf", "bz"] {
            let key = format!("{hash}.{extension}");
            if self.has(&key) {
                return Ok(key);
            }
        }
        if super::elf::parse(image).is_ok() {
            return self.store(format!("{hash}.elf"), &[image]);
        }
        match kernel::unpack(image) {
            Ok(elf) => self.store(format!("{hash}.elf"), &[&elf]),
            Err(e @ (KernelError::Foreign(_) | KernelError::Short { .. } | KernelError::Protocol { .. })) => {
                Err(e.into())
            }
            Err(e) => {
                log::warn!("this kernel is started as a bzImage, which is slower: {e}");
                self.store(format!("{hash}.bz"), &[image])
            }
        }
    }

    /// Keep an initial RAM disk of several parts; each begins at a multiple of four bytes, as the kernel wants it.
    pub fn add_initrd(&self, parts: &[Vec<u8>]) -> Result<String, CacheError> {
        let pieces = pieces(parts);
        let mut hash = Sha256::new();
        pieces.iter().for_each(|p| hash.update(p));
        let key = format!("{}.initrd", hex::encode(hash.finalize()));
        if self.has(&key) { Ok(key) } else { self.store(key, &pieces) }
    }

    /// Whether the cache has what `key` names.
    pub fn has(&self, key: &str) -> bool {
        self.path(key).is_some_and(|p| p.is_file())
    }

    /// The kernel with this key; `None` if it is not there (any more).
    pub fn kernel(&self, key: &str) -> Result<Option<Kernel>, CacheError> {
        let Some((file, path)) = self.file(key)? else { return Ok(None) };
        if key.ends_with(".elf") {
            return Ok(Some(Kernel::Elf(Arc::new(file))));
        }
        let bytes = fs::read(&path).map_err(|source| CacheError::Io { what: "reading", path, source })?;
        Ok(Some(Kernel::BzImage(Arc::new(bytes))))
    }

    /// The initial RAM disk with this key; `None` if it is not there (any more).
    pub fn initrd(&self, key: &str) -> Result<Option<Initrd>, CacheError> {
        Ok(self.file(key)?.map(|(file, _)| Initrd::File(Arc::new(file))))
    }

    fn file(&self, key: &str) -> Result<Option<(File, PathBuf)>, CacheError> {
        let Some(path) = self.path(key) else { return Ok(None) };
        match File::open(&path) {
            Ok(file) => Ok(Some((file, path))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CacheError::Io { what: "opening", path, source }),
        }
    }

    /// The file that `key` names, there or not. A key comes back from outside: it names a file here and nothing else.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        let (hash, extension) = key.split_once('.')?;
        let sound = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        (sound && matches!(extension, "elf" | "bz" | "initrd")).then(|| self.dir.join(key))
    }

    fn store(&self, key: String, pieces: &[&[u8]]) -> Result<String, CacheError> {
        let path = self.dir.join(&key);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            let mut size = 0;
            for piece in pieces {
                write_sparse(file.as_file_mut(), piece)?;
                size += piece.len() as u64;
            }
            file.as_file().set_len(size)?;
            // Synced before it gets its name: after a crash of the host, a name stands for a whole file or for nothing.
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| CacheError::Io { what: "writing", path: path.clone(), source })?;
        Ok(key)
    }
}

/// Write `bytes` with holes in place of zeros: a kernel has 22 MB of them, and holes need not be read at each start.
///
/// What lies between two holes is one write: the host's page cache then has it in large folios, where its file system can, and
/// reading it at each start costs less than half of what single pages cost. Few zeros are not worth a hole, for the same reason.
fn write_sparse(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    const HOLE: usize = 64 << 10;
    let is_zero = |chunk: &&[u8]| chunk.iter().all(|b| *b == 0);
    let length = |run: &[&[u8]]| run.iter().map(|chunk| chunk.len()).sum::<usize>();
    let chunks: Vec<&[u8]> = bytes.chunks(HOLE).collect();
    let mut rest = bytes;
    for run in chunks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let (these, after) = rest.split_at(length(run));
        if run.first().is_some_and(is_zero) {
            file.seek_relative(these.len() as i64)?;
        } else {
            file.write_all(these)?;
        }
        rest = after;
    }
    Ok(())
}

/// Parts with the zeros between them.
fn pieces(parts: &[Vec<u8>]) -> Vec<&[u8]> {
    const ZEROS: [u8; 3] = [0; 3];
    let padding = |len: usize| ZEROS.get(..len.next_multiple_of(4) - len).unwrap_or_default();
    parts.iter().flat_map(|part| [part.as_slice(), padding(part.len())]).collect()
}

/// Several initial RAM disks as one: each part begins at a multiple of four bytes.
pub fn concatenate(parts: &[Vec<u8>]) -> Vec<u8> {
    pieces(parts).concat()
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
