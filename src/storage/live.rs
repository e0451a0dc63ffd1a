//! The volume of a running instance: its own layer may be replaced by a new one over it (a snapshot), or grow, while the machine
//! reads and writes.
//!
//! # Snapshots
//!
//! Nothing is copied. The volume's layer becomes the snapshot: it is made durable, marked as frozen in its file, and a new, empty
//! layer above it takes all later writes. The guest waits for the last step only, which writes back what it wrote since the
//! step before.
//!
//! Whoever keeps record of a volume's layers does it in this order, so that the record can be completed after a crash at any moment:
//!
//! 1. record that a snapshot is under way, with the new layer's name;
//! 2. [`LiveVolume::snapshot`];
//! 3. record that the new layer is the volume's.
//!
//! After a crash between 1 and 3 the old layer's file tells: if it is [frozen](super::chain::is_frozen), the new layer may hold writes, and
//! step 3 is done; if not, nothing was written to the new layer, and its files are removed.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use vm_memory::VolatileSlice;

use super::volume::{Volume, VolumePaths};
use super::{OpenMode, StorageError};
use crate::boot::Disk;
use crate::vmm::backend::{BlockBackend, Wait};

/// A volume that can be snapshotted and grown while it is in use.
#[derive(Debug)]
pub struct LiveVolume(RwLock<Volume>);

impl LiveVolume {
    /// With this layer on top.
    pub fn new(top: Volume) -> Self {
        LiveVolume(RwLock::new(top))
    }

    /// Freeze what the volume holds now into the layer that has been its own, and go on in a new layer at `above`.
    ///
    /// # Errors
    /// The volume goes on as before, and the files at `above` are removed. If not even that was possible, see the protocol above.
    pub fn snapshot(&self, above: &VolumePaths) -> Result<(), StorageError> {
        let failed = |source| StorageError::Io { action: "snapshot the volume into", path: above.map.clone(), source };
        let new = {
            let top = self.read();
            let new = Volume::create_above(above, &top, top.mode())?;
            // Its files must be there before anything says that they are used. Then most of what is not durable yet, while the
            // guest goes on.
            let ready = new.persist().and_then(|()| top.persist());
            if let Err(error) = ready {
                let _ = above.remove();
                return Err(failed(error));
            }
            new
        };
        let mut top = self.write();
        if let Err(error) = top.freeze() {
            drop(new);
            let _ = above.remove();
            return Err(failed(error));
        }
        let frozen = std::mem::replace(&mut *top, new);
        top.lay_over(Arc::new(frozen));
        Ok(())
    }

    /// Make the volume larger, durably.
    pub fn grow(&self, size: u64) -> Result<(), StorageError> {
        self.write().grow(size)
    }

    /// The bytes that the volume's own layer holds.
    pub fn held_bytes(&self) -> u64 {
        self.read().held_bytes()
    }

    /// Write what another process needs to open the volume and see its present content: see [`Volume::close`].
    pub fn close(&self) -> io::Result<()> {
        self.read().close()
    }

    /// How it was opened.
    pub fn mode(&self) -> OpenMode {
        self.read().mode()
    }

    fn read(&self) -> RwLockReadGuard<'_, Volume> {
        // A panic while it was held can't have left the volume half changed: all changes are made by assignment.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Volume> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// For an access that may wait, or not.
    fn access(&self, wait: Wait) -> io::Result<RwLockReadGuard<'_, Volume>> {
        match wait {
            Wait::Allowed => Ok(self.read()),
            Wait::Never => match self.0.try_read() {
                Ok(volume) => Ok(volume),
                Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            },
        }
    }
}

impl Disk for LiveVolume {
    fn size(&self) -> u64 {
        Disk::size(&*self.read())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read().read_at(offset, buf)
    }
}

impl BlockBackend for LiveVolume {
    fn size(&self) -> u64 {
        BlockBackend::size(&*self.read())
    }

    fn read(&self, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        BlockBackend::read(&*self.access(wait)?, to, offset, wait)
    }

    fn write(&self, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        BlockBackend::write(&*self.access(wait)?, from, offset, wait)
    }

    fn flush(&self) -> io::Result<()> {
        self.read().flush()
    }

    fn write_zeroes(&self, offset: u64, length: u64, deallocate: bool) -> io::Result<()> {
        self.read().write_zeroes(offset, length, deallocate)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.read().discard(offset, length)
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
