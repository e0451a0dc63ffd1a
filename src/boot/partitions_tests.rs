use proptest::prelude::*;

use super::*;
use crate::boot::testing;

const ROOT: &str = "type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root, uuid=AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE";

fn gpt() -> Option<Vec<u8>> {
    let parts: [(u32, &str, &[u8]); 2] = [(1, ROOT, &[1; 3 << 20]), (2, "type=U, name=\"EFI system\"", &[2; 1 << 20])];
    testing::have(&["sfdisk"]).then(|| testing::disk("gpt", "label-id: 12345678-1234-1234-1234-123456789abc", &parts))
}

#[test]
fn gpt_as_sfdisk_writes_it() {
    let Some(image) = gpt() else { return };
    let table = read(&image).unwrap();
    assert_eq!(table.kind, TableKind::Gpt);
    let [root, esp] = table.partitions.as_slice() else { panic!("{table:?}") };
    assert_eq!((root.index, root.start, root.length), (1, 1 << 20, 3 << 20));
    assert_eq!(root.kind, PartitionType::Guid("4f68bce3-e8cd-4db1-96e7-fbcaf984b709".into()));
    assert_eq!(root.partuuid.as_deref(), Some("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"));
    assert_eq!(root.name, "root");
    assert!(esp.kind.is_esp() && esp.name == "EFI system" && esp.index == 2);
}

#[test]
fn backup_header_is_used() {
    let Some(mut image) = gpt() else { return };
    let good = read(&image).unwrap();
    image[512 + 56] ^= 1;
    assert_eq!(read(&image).unwrap(), good);
    let end = image.len();
    image[end - 512] = 0;
    let error = read(&image).unwrap_err().to_string();
    assert!(error.contains("primary: wrong header checksum") && error.contains("backup: no signature"), "{error}");
}

#[test]
fn entries_are_checksummed() {
    let Some(mut image) = gpt() else { return };
    let good = read(&image).unwrap();
    image[1024 + 32] ^= 1;
    assert_eq!(read(&image).unwrap(), good, "the backup's entries are whole");
}

#[test]
fn mbr_with_logical_partitions() {
    if !testing::have(&["sfdisk"]) {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let script = "label: dos\nlabel-id: 0xcafe0001\n1: start=2048, size=4096, type=83, bootable\n\
                  2: start=8192, size=65536, type=5\n5: start=10240, size=2048, type=83\n\
                  6: start=16384, size=2048, type=82\n";
    testing::run("sfdisk", &["-q", path.to_str().unwrap()], script);
    let table = read(&std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(table.kind, TableKind::Mbr);
    let found: Vec<_> = table.partitions.iter().map(|p| (p.index, p.start / 512, p.length / 512)).collect();
    assert_eq!(found, [(1, 2048, 4096), (5, 10240, 2048), (6, 16384, 2048)]);
    assert_eq!(table.partitions[0].partuuid.as_deref(), Some("cafe0001-01"));
    assert_eq!(table.partitions[2].partuuid.as_deref(), Some("cafe0001-06"));
    assert_eq!(table.partitions[2].kind, PartitionType::Id(0x82));
}

#[test]
fn looping_logical_partitions_end() {
    let mut image = vec![0; 1 << 20];
    let record = |image: &mut Vec<u8>, sector: usize, slot: usize, kind: u8, start: u32, count: u32| {
        let at = sector * 512 + 446 + slot * 16;
        image[at + 4] = kind;
        image[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        image[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
        image[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    };
    record(&mut image, 0, 0, 5, 100, 1000);
    // Two extended records that point at each other.
    record(&mut image, 100, 0, 0x83, 1, 10);
    record(&mut image, 100, 1, 5, 100, 10);
    record(&mut image, 200, 0, 0x83, 1, 10);
    record(&mut image, 200, 1, 5, 0, 10);
    let table = read(&image).unwrap();
    assert_eq!(table.partitions.len(), MAX_LOGICAL as usize);
}

#[test]
fn no_table_is_one_partition() {
    for image in [vec![0; 4096], vec![], vec![7; 100]] {
        let table = read(&image).unwrap();
        assert_eq!(table.kind, TableKind::None);
        assert_eq!((table.partitions[0].index, table.partitions[0].length), (0, image.len() as u64));
    }
}

proptest! {
    #[test]
    fn any_bytes_give_partitions_within_the_disk(
        mut image in proptest::collection::vec(any::<u8>(), 512..8192),
        kind in prop::sample::select(vec![0xee_u8, 5, 0x0f, 0x83]),
    ) {
        image[510] = 0x55;
        image[511] = 0xaa;
        image[446] = 0;
        image[450] = kind;
        if image.len() >= 520 {
            image[512..520].copy_from_slice(b"EFI PART");
        }
        if let Ok(table) = read(&image) {
            for p in &table.partitions {
                prop_assert!(p.start + p.length <= image.len() as u64);
            }
        }
    }
}
