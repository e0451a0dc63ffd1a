use super::*;

#[test]
fn a_header_survives_and_a_damaged_one_is_refused() {
    let header = Header { size: 8 << 30, base_size: 3 << 29, id: [7; 16], parent: [9; 16], frozen: true };
    let bytes = header.to_bytes();
    assert_eq!(Header::from_bytes(&bytes), Ok(header));
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::from_bytes(&bad).is_err(), "bit {bit}");
    }
    for header in [header_of(0, 0), header_of(100, 0), header_of(MAX_SIZE + 512, 0), header_of(512, 1024)] {
        assert!(Header::from_bytes(&header.to_bytes()).is_err(), "{header:?}");
    }
}

fn header_of(size: u64, base_size: u64) -> Header {
    Header { size, base_size, id: [1; 16], parent: [0; 16], frozen: false }
}

#[test]
fn a_header_of_version_1_is_still_read() {
    let bytes = testing::header_1(8 << 30, 512);
    let expected = Header { size: 8 << 30, base_size: 512, id: [0; 16], parent: [0; 16], frozen: false };
    assert_eq!(Header::from_bytes(&bytes), Ok(expected));
}

#[test]
fn a_failed_data_sync_leaves_the_map_alone_and_the_pages_dirty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let header = header_of(1 << 30, 0);
    let mut map = MapFile::create(&path, header).unwrap();
    let bitmap = Bitmap::new(header.size / VOLUME_BLOCK);
    bitmap.set(40_000, 40_001);
    map.write_back(&bitmap, || Err(io::ErrorKind::Other.into())).unwrap_err();
    drop(map);
    let (mut map, _, loaded) = MapFile::open(&path, OpenMode::ReadWrite).unwrap();
    assert_eq!(loaded.count(), 0);
    assert!(map.write_back(&bitmap, || Ok(())).unwrap());
    assert!(!map.write_back(&bitmap, || Ok(())).unwrap());
    drop(map);
    let (_, _, loaded) = MapFile::open(&path, OpenMode::ReadOnly).unwrap();
    assert_eq!(loaded.run(40_000, 50_000), (true, 40_001));
}
