use super::super::image::{next_data, size_of};
use super::*;

fn write(disk: &RawImage, at: u64, bytes: &mut [u8]) -> io::Result<()> {
    disk.write(&[VolatileSlice::from(bytes)], at, Wait::Allowed)
}

#[test]
fn a_raw_disk_keeps_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let disk = RawImage::create(&path, 1 << 20, OpenMode::ReadWrite).unwrap();
    write(&disk, 65536, &mut [7; 16384]).unwrap();
    disk.write_zeroes(65536 + 512, 512, false).unwrap();
    disk.discard(65536 + 4096, 4096).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let disk = RawImage::open(&path).unwrap();
    let mut back = [0xaa; 16384];
    disk.read_at(65536, &mut back).unwrap();
    assert_eq!((back[0], back[512], back[1024], back[16383]), (7, 0, 7, 7));
    assert!(back[4096..8192].iter().all(|b| *b == back[4096]));
    assert_eq!(disk.read_at((1 << 20) - 1, &mut back).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(write(&disk, 0, &mut [1; 512]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    let sizes = size_of(&path).unwrap();
    assert_eq!(sizes.virtual_size, 1 << 20);
    assert!((8192..1 << 19).contains(&sizes.stored), "{sizes:?}");
    let file = std::fs::File::open(&path).unwrap();
    assert_eq!(next_data(&file, 65536 + 16384, 1 << 20).unwrap(), None);
    assert!(next_data(&file, 0, 1 << 20).unwrap().is_some_and(|data| data.contains(&65536)));
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    drop(RawImage::create(&path, 4096, OpenMode::ThrowAway).unwrap());
    let first = RawImage::open(&path).unwrap();
    let second = RawImage::open(&path).unwrap();
    assert!(matches!(RawImage::open_as(&path, OpenMode::ReadWrite), Err(StorageError::InUse { .. })));
    drop((first, second));
    let _writer = RawImage::open_as(&path, OpenMode::ReadWrite).unwrap();
    assert!(matches!(RawImage::open(&path), Err(StorageError::InUse { .. })));
}

#[test]
fn what_is_no_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [0; 1000]).unwrap();
    assert!(matches!(RawImage::open(&path), Err(StorageError::BadSize { size: 1000, .. })));
    std::fs::write(&path, []).unwrap();
    assert!(matches!(RawImage::open(&path), Err(StorageError::BadSize { size: 0, .. })));
    assert!(matches!(RawImage::open(dir.path()), Err(StorageError::Io { action: "use", .. })));
    assert!(matches!(RawImage::open(&dir.path().join("none")), Err(StorageError::Io { action: "open", .. })));
    assert!(matches!(
        RawImage::create(&dir.path().join("new"), super::super::MAX_SIZE + 512, OpenMode::ReadWrite),
        Err(StorageError::BadSize { .. })
    ));
    assert!(!dir.path().join("new").exists());
}
