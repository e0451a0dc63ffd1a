use super::*;
use crate::boot::Disk;

#[test]
fn a_chain_without_an_image_begins_with_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let top = VolumePaths::in_folder(dir.path(), "a");
    let volume = Chain::default().create(&top, 1 << 20, OpenMode::ReadWrite).unwrap();
    let mut bytes = [7; 512];
    volume.read_at(4096, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 512]);
    assert_eq!(size_of(&top).unwrap(), 1 << 20);
}

#[test]
fn nothing_lies_over_a_layer_that_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let layer = |name| VolumePaths::in_folder(dir.path(), name);
    let volume = Chain::default().create(&layer("a"), 1 << 20, OpenMode::ReadWrite).unwrap();
    volume.close().unwrap();
    let chain = Chain { image: None, frozen: vec![layer("a")] };
    // In use, and not.
    assert!(matches!(chain.open().err(), Some(StorageError::InUse { .. })));
    drop(volume);
    assert!(matches!(chain.open().err(), Some(StorageError::NotFrozen { .. })));
    Chain::default().open_volume(&layer("a"), OpenMode::ReadWrite).unwrap().snapshot(&layer("b")).unwrap();
    assert!(chain.open().is_ok());
}

#[test]
fn chains_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let frozen = vec![VolumePaths::in_folder(dir.path(), "a"); MOST_LAYERS + 1];
    assert!(matches!(Chain { image: None, frozen }.open().err(), Some(StorageError::TooDeep { .. })));
}
