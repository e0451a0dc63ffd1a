//! A copy-on-write volume: a layer of changed blocks over a read-only base.
//!
//! On disk a layer is two files (or block devices): `data`, sparse, where a block lies at its own address, and `map`,
//! which says for each block of 4 KiB whether the layer holds it (the format is in `map_file`). What the layer does not
//! hold is read from the base, and reads as zeros past the base's end. So:
//!
//! - reads take no lock and cost one system call for each run of blocks that lie together;
//! - aligned writes never copy: they go to `data`, and *then* their bits are set;
//! - a write that touches a block for the first time and only in part fills the rest of that block from the base;
//! - a volume is made in the time of a few system calls, whatever its size.
//!
//! # Durability
//!
//! A volume is a disk with a volatile write cache. What was written before a [`flush`](Volume::flush) that succeeded is
//! there after a crash. What was not flushed is there, or not, block by block: a crash shows the old content or the new,
//! never anything else, because flush makes `data` durable before the bits that point to it: the changed pages of the map
//! are copied first, then `data` is synced, then the copies are written and synced. `kill -9` loses no more than a power
//! failure does. After a failed sync every later flush fails too: the kernel may have dropped what it could not write, and
//! a second sync would claim a success that never was.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::bitmap::Bitmap;
use super::block_file::BlockFile;
use super::error::StorageError;
use super::map_file::{Header, LayerId, MapFile};
use super::raw::check_size;
use super::{Layer, OpenMode};

/// The unit of copy-on-write, in bytes: a guest's page, and the block of its file systems.
pub const VOLUME_BLOCK: u64 = 4096;

/// The two files of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePaths {
    /// The blocks.
    pub data: PathBuf,
    /// Which blocks there are.
    pub map: PathBuf,
}

/// As long as it lives, no other process writes the volume ([`VolumePaths::reserve`]).
#[derive(Debug)]
pub struct Reservation {
    _files: [BlockFile; 2],
}

impl VolumePaths {
    /// `ID.data` and `ID.map` in a folder.
    pub fn in_folder(folder: &Path, volume_id: &str) -> Self {
        VolumePaths { data: folder.join(format!("{volume_id}.data")), map: folder.join(format!("{volume_id}.map")) }
    }

    /// How many bytes the files of a volume of `size` bytes have at least where they are block devices: data, map.
    pub fn file_sizes(size: u64) -> Result<(u64, u64), StorageError> {
        check_size(size)?;
        Ok((size, super::map_file::map_len(size)))
    }

    /// Make both files, empty, for a volume of `size` bytes that will be made on them where they are block devices.
    pub fn preallocate(&self, size: u64) -> Result<(), StorageError> {
        let (data, map) = Self::file_sizes(size)?;
        BlockFile::create(&self.data, data)?;
        BlockFile::create(&self.map, map).inspect_err(|_| {
            let _ = std::fs::remove_file(&self.data);
        })?;
        Ok(())
    }

    /// Lock both files for a program that does not do it itself.
    ///
    /// # Errors
    /// Another process has the volume.
    pub fn reserve(&self) -> Result<Reservation, StorageError> {
        Ok(Reservation {
            _files: [
                BlockFile::open(&self.data, OpenMode::ReadWrite)?,
                BlockFile::open(&self.map, OpenMode::ReadWrite)?,
            ],
        })
    }

    /// Remove both files. That they are not there is no error.
    pub fn remove(&self) -> Result<(), StorageError> {
        for path in [&self.map, &self.data] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StorageError::Io { action: "remove", path: path.clone(), source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// An open volume. It holds locks on its files: nobody else can write them.
pub struct Volume {
    pub(super) data: BlockFile,
    pub(super) size: u64,
    pub(super) base: Option<Arc<dyn Layer>>,
    pub(super) base_size: u64,
    /// The blocks that `data` has.
    pub(super) held: Bitmap,
    /// Held by whoever touches blocks for the first time: shared to write whole ones, alone to fill up partial ones,
    /// because a filler writes bytes that nobody asked for.
    pub(super) first_touch: RwLock<()>,
    /// `data` was written since the last flush.
    pub(super) data_dirty: AtomicBool,
    pub(super) mode: OpenMode,
    /// What the map's header says, but that the layer may have been frozen since.
    pub(super) header: Header,
    pub(super) durable: Mutex<Durable>,
}

/// What flushes need. Its lock makes a flush wait for the one before it, whose writes it would otherwise take for durable.
pub(super) struct Durable {
    pub(super) map: MapFile,
    /// Folders whose new entries are not durable yet.
    folders: Vec<File>,
    /// The map file has something that no sync covered.
    map_dirty: bool,
    /// What was written may be lost, or would not be found again: nothing is ever durable any more.
    pub(super) failed: bool,
}

impl Volume {
    /// Make a volume of `size` bytes over `base` (all zeros without one). Nothing is copied.
    ///
    /// `size` is a multiple of 512, at least the base's size. The files must not exist, or be block devices of at
    /// least that size.
    pub fn create(
        paths: &VolumePaths,
        size: u64,
        base: Option<Arc<dyn Layer>>,
        mode: OpenMode,
    ) -> Result<Volume, StorageError> {
        check_size(size)?;
        let base_size = base.as_ref().map_or(0, |base| base.size());
        if base_size > size {
            return Err(StorageError::BadSize { size, reason: "a volume can't be smaller than its image" });
        }
        let parent = base.as_ref().map_or(LayerId::default(), |base| base.id());
        let header = Header { size, base_size, id: new_id(&paths.map)?, parent, frozen: false };
        let data_existed = paths.data.exists();
        let data = BlockFile::create(&paths.data, size)?;
        let map = MapFile::create(&paths.map, header).inspect_err(|_| {
            if !data_existed {
                let _ = std::fs::remove_file(&paths.data);
            }
        })?;
        // A folder that can't be opened for reading can't be synced; its files can.
        let folders = [&paths.data, &paths.map].into_iter().filter_map(|path| folder(path).ok()).collect();
        let durable = Durable { map, folders, map_dirty: true, failed: false };
        Ok(Self::new(data, header, base, Bitmap::new(size.div_ceil(VOLUME_BLOCK)), mode, durable))
    }

    /// Open a volume over the same base that it was made over.
    pub fn open(paths: &VolumePaths, base: Option<Arc<dyn Layer>>, mode: OpenMode) -> Result<Volume, StorageError> {
        let data = BlockFile::open(&paths.data, mode)?;
        let (map, mut header, held) = MapFile::open(&paths.map, mode)?;
        data.require(&paths.data, header.size)?;
        let found = base.as_ref().map_or(0, |base| base.size());
        if found != header.base_size {
            return Err(StorageError::BaseChanged { path: paths.map.clone(), expected: header.base_size, found });
        }
        if base.as_ref().map_or(LayerId::default(), |base| base.id()) != header.parent {
            return Err(StorageError::WrongParent { path: paths.map.clone() });
        }
        if header.frozen && mode.writable() {
            return Err(StorageError::Frozen { path: paths.map.clone() });
        }
        if header.id == LayerId::default() && mode.writable() {
            // Of version 1. It gets to the file when the layer is frozen or grows, which is before anything needs it.
            header.id = new_id(&paths.map)?;
        }
        let durable = Durable { map, folders: Vec::new(), map_dirty: false, failed: false };
        Ok(Self::new(data, header, base, held, mode, durable))
    }

    fn new(
        data: BlockFile,
        header: Header,
        base: Option<Arc<dyn Layer>>,
        held: Bitmap,
        mode: OpenMode,
        durable: Durable,
    ) -> Volume {
        Volume {
            data,
            size: header.size,
            header,
            base_size: base.as_ref().map_or(0, |base| base.size()),
            base,
            held,
            first_touch: RwLock::new(()),
            data_dirty: AtomicBool::new(false),
            mode,
            durable: Mutex::new(durable),
        }
    }

    /// The bytes that the layer holds: how far the volume differs from its base.
    pub fn held_bytes(&self) -> u64 {
        self.held.count().saturating_mul(VOLUME_BLOCK)
    }

    /// Make completed writes durable. Does nothing in a throw-away volume.
    pub fn flush(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::ReadWrite => self.write_back(true),
            OpenMode::ReadOnly | OpenMode::Look | OpenMode::ThrowAway => Ok(()),
        }
    }

    /// Write what another process needs to open the volume and see its present content. As durable as a flush, except for
    /// throw-away volumes, which it does not sync either. Call it when the machine has ended.
    pub fn close(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::ReadOnly | OpenMode::Look => Ok(()),
            OpenMode::ReadWrite => self.write_back(true),
            OpenMode::ThrowAway => self.write_back(false),
        }
    }

    /// The layer's own id.
    pub fn id(&self) -> LayerId {
        self.header.id
    }

    /// Whether the layer was frozen when it was opened: a snapshot's, which never changes.
    pub fn is_frozen(&self) -> bool {
        self.header.frozen
    }

    /// How it was opened.
    pub fn mode(&self) -> OpenMode {
        self.mode
    }

    pub(super) fn write_back(&self, sync: bool) -> io::Result<()> {
        let mut durable = self.lock_durable();
        let Durable { map, folders, map_dirty, failed } = &mut *durable;
        if *failed {
            return Err(io::Error::other("an earlier flush of this volume failed, and its data may be lost"));
        }
        let wrote = map.write_back(&self.held, || {
            if sync && self.data_dirty.swap(false, Ordering::AcqRel) {
                self.data.sync().inspect_err(|_| *failed = true)?;
            }
            Ok(())
        })?;
        *map_dirty |= wrote;
        if sync && *map_dirty {
            map.sync().inspect_err(|_| *failed = true)?;
            *map_dirty = false;
        }
        if sync {
            for folder in folders.drain(..) {
                folder.sync_all().inspect_err(|_| *failed = true)?;
            }
        }
        Ok(())
    }

    pub(super) fn lock_durable(&self) -> MutexGuard<'_, Durable> {
        // What a panic could leave half done is done again by the next flush.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_id(path: &Path) -> Result<LayerId, StorageError> {
    let mut id = LayerId::default();
    getrandom::fill(&mut id).map_err(|error| StorageError::Io {
        action: "find a random id for",
        path: path.into(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok(id)
}

pub(super) fn folder(path: &Path) -> io::Result<File> {
    File::open(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("size", &self.size).field("base_size", &self.base_size).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "volume_crash_tests.rs"]
mod crash_tests;
