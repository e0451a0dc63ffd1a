//! How a volume's own layer changes as a whole: frozen for a snapshot, grown.
//!
//! Both write to the disk, and both are in two parts for that: what takes long needs no more than a shared volume, so that the guest
//! goes on meanwhile.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use vm_memory::VolatileSlice;

use super::error::StorageError;
use super::map_file::Header;
use super::raw::check_size;
use super::volume::{VOLUME_BLOCK, Volume};
use super::{Layer, read_plain};
use crate::vmm::backend::{BlockBackend, Wait};

/// Bytes copied at a time.
const COPY: usize = 1 << 20;

/// Why a layer could not be frozen.
#[derive(Debug)]
pub(super) struct FreezeError {
    /// What failed.
    pub source: io::Error,
    /// The file may say that it is frozen, which could not be undone. If not, it surely says that it is not.
    pub may_be_frozen: bool,
}

impl Volume {
    /// Make everything durable, in a throw-away volume too: content, size, and the entries of its files in their folders.
    pub fn persist(&self) -> io::Result<()> {
        self.data_dirty.store(true, Ordering::Release);
        self.write_back(true)
    }

    /// Mark the layer in its file as one that is never written again, durably, and let others read it. What it holds is durable
    /// before that. The caller sees to it that nobody writes it from before this call on.
    pub(super) fn freeze(&self) -> Result<(), FreezeError> {
        self.persist().map_err(|source| FreezeError { source, may_be_frozen: false })?;
        let mut durable = self.lock_durable();
        if let Err(source) = durable.map.replace_header(Header { frozen: true, ..self.header }) {
            // Whether the file says that it is frozen is not known: it must not. If that fails too, no later flush succeeds.
            let may_be_frozen = durable.map.replace_header(self.header).is_err();
            durable.failed |= may_be_frozen;
            return Err(FreezeError { source, may_be_frozen });
        }
        // From here on it is frozen, whatever happens. A lock that stays exclusive only keeps others from reading.
        let _ = durable.map.share();
        let _ = self.data.share();
        Ok(())
    }

    /// No flush succeeds any more: what would be made durable would not be found again.
    pub(super) fn fail(&self) {
        self.lock_durable().failed = true;
    }

    /// Write all blocks that `above`, a layer over this one, holds into this one.
    pub(super) fn take_back(&self, above: &Volume) -> io::Result<()> {
        let mut buf = vec![0; COPY];
        let blocks = self.size.div_ceil(VOLUME_BLOCK);
        let mut at = 0;
        while at < blocks {
            let (held, mut end) = above.held.run(at, blocks);
            if held {
                end = end.min(at + COPY as u64 / VOLUME_BLOCK);
                let (from, to) = (at * VOLUME_BLOCK, (end * VOLUME_BLOCK).min(self.size));
                let part = buf.get_mut(..(to - from) as usize).ok_or(io::ErrorKind::InvalidInput)?;
                read_plain(above, from, part)?;
                self.write(&[VolatileSlice::from(part)], from, Wait::Allowed)?;
            }
            at = end;
        }
        Ok(())
    }

    /// The first part of growing: make the files of the layer as large as a volume of `size` bytes needs them, and say so in them,
    /// durably. The volume has its old size until [`set_size`](Self::set_size).
    pub(super) fn prepare_size(&self, size: u64) -> Result<(), StorageError> {
        check_size(size)?;
        if size < Layer::size(self) {
            return Err(StorageError::BadSize { size, reason: "a volume can't shrink" });
        }
        let grow = || {
            self.data.set_len_at_least(size)?;
            self.lock_durable().map.reserve(size)?;
            self.persist()?;
            self.lock_durable().map.replace_header(Header { size, ..self.header })
        };
        // A header that did get there after all does no harm: the files are as long as it says.
        grow().map_err(|source| StorageError::Io { action: "grow", path: PathBuf::from("the volume"), source })
    }

    /// The second part of growing. What is new reads as zeros.
    pub(super) fn set_size(&mut self, size: u64) {
        self.held.grow(size.div_ceil(VOLUME_BLOCK));
        self.size = size;
        self.header.size = size;
    }
}
