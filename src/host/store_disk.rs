//! Instance-store disks. Their files have no name while they are used, so nothing is left of them when the process ends, however it
//! does; and they outlive the machine, so their content is there after a reboot.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use super::running::StartError;
use super::spec::StoreDisk;
use crate::storage::{OpenMode, RawImage};
use crate::vmm::config::{VolumeConfig, VolumeIdentity};

/// Make a disk, all zeros, and take its name away. A block device is taken as it is, for it was made for this.
pub(super) fn open(disk: &StoreDisk) -> Result<Arc<RawImage>, StartError> {
    if fs::metadata(&disk.path).is_ok_and(|meta| meta.file_type().is_block_device()) {
        return Ok(Arc::new(RawImage::open_as(&disk.path, OpenMode::ThrowAway)?));
    }
    let made = create(disk);
    let _ = fs::remove_file(&disk.path);
    made
}

/// Make a disk's file, which somebody else opens and whose name is taken away afterwards.
pub(super) fn create(disk: &StoreDisk) -> Result<Arc<RawImage>, StartError> {
    match fs::remove_file(&disk.path) {
        // One that was killed before it took the name away.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(Arc::new(RawImage::create(&disk.path, disk.size, OpenMode::ThrowAway)?))
}

/// What a machine has of it.
pub(super) fn config(disk: &StoreDisk, backend: Arc<RawImage>) -> VolumeConfig {
    let identity = VolumeIdentity::InstanceStore { serial: disk.serial.clone() };
    VolumeConfig { slot: disk.slot, identity, backend }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_empty_has_its_size_and_leaves_nothing() {
        use crate::vmm::backend::BlockBackend;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store.data");
        fs::write(&path, "left").unwrap();
        // As m5d.large has it.
        let disk = StoreDisk { serial: "AWS0".to_owned(), slot: 31, path: path.clone(), size: 75_000_000_000 };
        let opened = open(&disk).unwrap();
        assert!(!path.exists());
        assert_eq!(BlockBackend::size(&*opened), 75_000_000_000);
        let mut start = [1; 512];
        crate::boot::Disk::read_at(&*opened, 0, &mut start).unwrap();
        assert_eq!(start, [0; 512]);
        assert!(open(&StoreDisk { size: 100, ..disk }).is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
