use super::*;

/// (name, mode, content) of every entry, by the rules of the format.
fn read(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut entries = Vec::new();
    loop {
        assert_eq!(&archive[..6], b"070701");
        let field =
            |n: usize| u32::from_str_radix(std::str::from_utf8(&archive[6 + 8 * n..14 + 8 * n]).unwrap(), 16).unwrap();
        let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
        let name = String::from_utf8(archive[110..110 + name_size - 1].to_vec()).unwrap();
        assert_eq!(archive[110 + name_size - 1], 0);
        if name == "TRAILER!!!" {
            assert_eq!(archive.len(), (110 + name_size).next_multiple_of(4));
            return entries;
        }
        archive = &archive[(110 + name_size).next_multiple_of(4)..];
        entries.push((name, mode, archive[..size].to_vec()));
        archive = &archive[size.next_multiple_of(4)..];
    }
}

#[test]
fn entries_come_back_with_their_parents_once() {
    let mut cpio = Writer::new(Vec::new());
    cpio.file("/etc/ssl/a", 0o644, b"hello").unwrap();
    cpio.file("etc/b", 0o600, b"").unwrap();
    cpio.symlink("init", "usr/bin/amiable").unwrap();
    cpio.character_device("dev/console", 0o600, 5, 1).unwrap();
    let entries = read(&cpio.finish().unwrap());
    let names: Vec<_> = entries.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
    assert_eq!(
        names,
        [
            ("etc", 0o040755),
            ("etc/ssl", 0o040755),
            ("etc/ssl/a", 0o100644),
            ("etc/b", 0o100600),
            ("init", 0o120777),
            ("dev", 0o040755),
            ("dev/console", 0o020600),
        ]
    );
    assert_eq!(entries[2].2, b"hello");
    assert_eq!(entries[4].2, b"usr/bin/amiable");
}

#[test]
fn paths_that_leave_the_archive_are_refused() {
    for path in ["", "/", "../a", "a/../b", "a//b", "a\0b"] {
        assert!(Writer::new(Vec::new()).file(path, 0o644, b"").is_err(), "{path:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_content_comes_back(files in proptest::collection::btree_map("[a-z]{1,9}", proptest::collection::vec(0u8.., 0..50), 0..9)) {
        let mut cpio = Writer::new(Vec::new());
        for (name, content) in &files {
            cpio.file(name, 0o644, content).unwrap();
        }
        let back: std::collections::BTreeMap<_, _> =
            read(&cpio.finish().unwrap()).into_iter().map(|(name, _, content)| (name, content)).collect();
        proptest::prop_assert_eq!(back, files);
    }
}
