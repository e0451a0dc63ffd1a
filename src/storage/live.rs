//! The volume of a running instance: its own layer may be replaced by a new one over it (a snapshot), or grow, while the machine
//! reads and writes.
//!
//! # Snapshots
//!
//! Nothing is copied. A new, empty layer is laid over the volume's own one, which becomes the snapshot. What the guest waits for is the
//! exchange of a pointer; the disk's part of it goes on outside of that:
//!
//! 1. The new layer's files are made, and what the old layer holds is written back, while the guest goes on.
//! 2. The guest's accesses go to the new layer from one moment on.
//! 3. What was written to the old layer since step 1 is made durable, and then that it is frozen.
//!
//! A flush that comes between 2 and 3 waits for the end of 3: after a crash before that the old layer is the volume's, and what the new
//! one holds is lost, of which nothing was said to be durable. If 3 fails, what the new layer holds is written into the old one, and the
//! volume goes on in that.
//!
//! Whoever keeps record of a volume's layers does it in this order, so that the record can be completed after a crash at any moment:
//!
//! 1. record that a snapshot is under way, with the new layer's name;
//! 2. [`LiveVolume::snapshot`];
//! 3. record that the new layer is the volume's.
//!
//! After a crash between 1 and 3 the old layer's file tells: if it is [frozen](super::chain::is_frozen), the new layer may hold writes, and
//! step 3 is done; if not, nothing that the new layer holds was said to be durable, and its files are removed.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use vm_memory::VolatileSlice;

use super::volume::{Volume, VolumePaths};
use super::{OpenMode, StorageError};
use crate::boot::Disk;
use crate::vmm::backend::{BlockBackend, Wait};

/// A volume that can be snapshotted and grown while it is in use.
#[derive(Debug)]
pub struct LiveVolume {
    /// The layer that is written, and through it those below. Accesses hold the lock shared until they are done, and it is held alone
    /// for what takes microseconds.
    top: RwLock<Arc<Volume>>,
    /// Shared by flushes; alone while a flush would make durable what is not found again after a crash.
    flushes: RwLock<()>,
    /// Held while the volume's layers or its size change: one change at a time.
    changing: Mutex<()>,
}

impl LiveVolume {
    /// With this layer on top.
    pub fn new(top: Volume) -> Self {
        LiveVolume { top: RwLock::new(Arc::new(top)), flushes: RwLock::default(), changing: Mutex::default() }
    }

    /// Freeze what the volume holds now into the layer that has been its own, and go on in a new layer at `above`.
    ///
    /// # Errors
    /// The volume goes on as before, and the files at `above` are removed. Where not even that is possible, because the disk fails, it
    /// goes on with all that it holds, but no flush succeeds any more.
    pub fn snapshot(&self, above: &VolumePaths) -> Result<(), StorageError> {
        let _one_at_a_time = self.begin();
        let failed = |source| StorageError::Io { action: "snapshot the volume into", path: above.map.clone(), source };
        let old = self.top();
        let new = Volume::create(above, Disk::size(&*old), Some(old.clone()), old.mode())?;
        // Its files must be there before anything says that they are used. Then most of what is not durable yet.
        if let Err(error) = new.persist().and_then(|()| old.persist()) {
            let _ = above.remove();
            return Err(failed(error));
        }
        let no_flush = self.flushes.write().unwrap_or_else(PoisonError::into_inner);
        let new = Arc::new(new);
        *self.alone() = new.clone();
        let Err(error) = old.freeze() else { return Ok(()) };
        if error.may_be_frozen {
            new.fail();
            return Err(failed(error.source));
        }
        let mut top = self.alone();
        if let Err(second) = old.take_back(&new) {
            log::error!("a volume can't go on in its old layer, nor can it be frozen: no flush will succeed: {second}");
            new.fail();
            return Err(failed(error.source));
        }
        *top = old;
        drop((top, no_flush));
        let _ = above.remove();
        Err(failed(error.source))
    }

    /// Make the volume larger, durably.
    pub fn grow(&self, size: u64) -> Result<(), StorageError> {
        let _one_at_a_time = self.begin();
        self.top().prepare_size(size)?;
        // No flush, and no other change: nobody else has the layer.
        let _no_flush = self.flushes.write().unwrap_or_else(PoisonError::into_inner);
        match Arc::get_mut(&mut self.alone()) {
            Some(top) => top.set_size(size),
            None => return Err(StorageError::BadSize { size, reason: "the volume is being read by something else" }),
        }
        Ok(())
    }

    /// The bytes that the volume's own layer holds.
    pub fn held_bytes(&self) -> u64 {
        self.shared().held_bytes()
    }

    /// Write what another process needs to open the volume and see its present content: see [`Volume::close`].
    pub fn close(&self) -> io::Result<()> {
        let _in_order = self.flushes.read().unwrap_or_else(PoisonError::into_inner);
        self.top().close()
    }

    /// How it was opened.
    pub fn mode(&self) -> OpenMode {
        self.shared().mode()
    }

    fn begin(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The top layer, to be used without keeping others from changing it.
    fn top(&self) -> Arc<Volume> {
        self.shared().clone()
    }

    fn shared(&self) -> RwLockReadGuard<'_, Arc<Volume>> {
        // A panic while it was held can't have left the volume half changed: all changes are made by assignment.
        self.top.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Arc<Volume>> {
        self.top.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// For an access that may wait, or not.
    fn access(&self, wait: Wait) -> io::Result<RwLockReadGuard<'_, Arc<Volume>>> {
        match wait {
            Wait::Allowed => Ok(self.shared()),
            Wait::Never => match self.top.try_read() {
                Ok(volume) => Ok(volume),
                Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            },
        }
    }
}

impl Disk for LiveVolume {
    fn size(&self) -> u64 {
        Disk::size(&**self.shared())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.shared().read_at(offset, buf)
    }
}

impl BlockBackend for LiveVolume {
    fn size(&self) -> u64 {
        BlockBackend::size(&**self.shared())
    }

    fn read(&self, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        BlockBackend::read(&**self.access(wait)?, to, offset, wait)
    }

    fn write(&self, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        BlockBackend::write(&**self.access(wait)?, from, offset, wait)
    }

    fn flush(&self) -> io::Result<()> {
        // The layer that is on top now: what was written before this flush is in it or below, where it is durable.
        let _in_order = self.flushes.read().unwrap_or_else(PoisonError::into_inner);
        self.top().flush()
    }

    fn write_zeroes(&self, offset: u64, length: u64, deallocate: bool) -> io::Result<()> {
        self.shared().write_zeroes(offset, length, deallocate)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.shared().discard(offset, length)
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
