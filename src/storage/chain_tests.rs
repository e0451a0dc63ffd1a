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
fn chains_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let frozen = vec![VolumePaths::in_folder(dir.path(), "a"); MOST_LAYERS + 1];
    assert!(Chain { image: None, frozen }.open().is_err());
}
