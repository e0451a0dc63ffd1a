use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::boot::testing::{self, Tree, UUID, have};

fn tree() -> Tree {
    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    Tree::new()
        .file("etc/os-release", "ID=test\n")
        .file("boot/big", big)
        .file("boot/empty", "")
        .link("boot/abs", "/etc/os-release")
        .link("boot/rel", "../etc/os-release")
        .link("boot/out", "../../../etc/os-release")
        .link("lnk", "boot")
        .link("loop", "loop")
        .link("dangling", "nowhere")
}

fn open(image: Vec<u8>) -> (FileSystem, FsIdentity) {
    let disk: SharedDisk = Arc::new(image);
    let mut reader = PartitionReader::new(disk.clone(), 0, disk.size());
    let Content::Fs(identity) = detect::detect(&mut reader) else { panic!("not detected") };
    (FileSystem::open(disk.clone(), 0, disk.size(), identity.kind, Subvolume::Any).unwrap(), identity)
}

fn check_files(fs: &mut FileSystem) {
    assert_eq!(fs.read("/etc/os-release", 100).unwrap(), b"ID=test\n");
    let big = fs.read("/boot/big", 4 << 20).unwrap();
    assert!(big.len() == 3_000_000 && (0..3_000_000u32).all(|n| big[n as usize] == (n / 7) as u8));
    assert_eq!(fs.read("/boot/empty", 0).unwrap(), b"");
    assert_eq!(fs.read_range("/boot/big", 2_999_990, 100).unwrap(), &big[2_999_990..]);
    assert_eq!(fs.read_tail("/boot/big", 10).unwrap(), &big[2_999_990..]);
    assert!(matches!(fs.read("/boot/big", 2_999_999), Err(FsError::TooLarge { size: 3_000_000, .. })));
    assert!(matches!(fs.read("/nope", 1), Err(FsError::NotFound(_))));
    assert!(matches!(fs.read("/etc/os-release/x", 1), Err(FsError::NotFound(_))));
    assert!(matches!(fs.read("/etc", 1), Err(FsError::WrongKind { .. })));
    assert!(matches!(fs.list("/etc/os-release"), Err(FsError::WrongKind { .. })));
    assert!(fs.is_dir("/boot/") && fs.exists("/") && !fs.exists("/dangling"));
    assert!(fs.list("/").unwrap().starts_with(&["boot".into()]) || fs.list("/").unwrap().contains(&"boot".into()));
    assert_eq!(fs.stat("/boot/big").unwrap().size, 3_000_000);
}

fn check_links(fs: &mut FileSystem) {
    for path in ["/boot/abs", "/boot/rel", "/boot/out", "/lnk/abs", "/lnk/../lnk/./rel"] {
        assert_eq!(fs.read(path, 100).unwrap(), b"ID=test\n", "{path}");
    }
    assert_eq!(fs.list("/lnk").unwrap(), ["abs", "big", "empty", "out", "rel"]);
    assert!(matches!(fs.read("/loop", 1), Err(FsError::Links(_))));
    assert!(matches!(fs.read("/dangling", 1), Err(FsError::NotFound(_))));
}

#[test]
fn ext4() {
    if !have(&["mke2fs"]) {
        return;
    }
    let (mut fs, identity) = open(testing::ext4(&tree(), "cloudimg-rootfs"));
    assert_eq!(
        (identity.kind, identity.uuid.as_str(), identity.label.as_str()),
        (FsKind::Ext4, UUID, "cloudimg-rootfs")
    );
    check_files(&mut fs);
    check_links(&mut fs);
}

#[test]
fn xfs() {
    if !have(&["mkfs.xfs"]) {
        return;
    }
    let (mut fs, identity) = open(testing::xfs(&tree(), "root"));
    assert_eq!((identity.kind, identity.uuid.as_str(), identity.label.as_str()), (FsKind::Xfs, UUID, "root"));
    check_files(&mut fs);
    check_links(&mut fs);
}

#[test]
fn btrfs() {
    if !have(&["mkfs.btrfs"]) {
        return;
    }
    let (mut fs, identity) = open(testing::btrfs(&tree(), "fedora"));
    assert_eq!((identity.kind, identity.uuid.as_str(), identity.label.as_str()), (FsKind::Btrfs, UUID, "fedora"));
    assert_eq!(identity.devices, 1);
    check_files(&mut fs);
    check_links(&mut fs);
}

#[test]
fn fat() {
    if !have(&["mkfs.vfat", "mcopy"]) {
        return;
    }
    let plain = || {
        let big: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
        Tree::new().file("etc/os-release", "ID=test\n").file("boot/big", big).file("boot/empty", "")
    };
    for bits in ["16", "32"] {
        let (mut fs, identity) = open(testing::fat(&plain(), "UEFI", bits));
        assert_eq!(
            (identity.kind, identity.uuid.as_str(), identity.label.as_str()),
            (FsKind::Fat, "ABCD-1234", "UEFI")
        );
        check_files(&mut fs);
        assert!(fs.exists("/ETC/OS-RELEASE"), "names have no case");
    }
}

#[test]
fn what_is_not_readable_is_named() {
    let detect = |at: usize, magic: &[u8]| {
        let mut image = vec![0; 64 << 10];
        image[at..at + magic.len()].copy_from_slice(magic);
        let disk: SharedDisk = Arc::new(image);
        detect::detect(&mut PartitionReader::new(disk, 0, 64 << 10))
    };
    assert_eq!(detect(0, b"LUKS\xba\xbe"), Content::Other("LUKS encryption"));
    assert_eq!(detect(512, b"LABELONE"), Content::Other("LVM physical volume"));
    assert_eq!(detect(4086, b"SWAPSPACE2"), Content::Other("swap"));
    assert_eq!(detect(0, b"nothing"), Content::Unknown);
    assert_eq!(detect::detect(&mut PartitionReader::new(Arc::new(vec![0; 100]), 0, 100)), Content::Unknown);
}

#[test]
fn a_raid_leg_is_seen() {
    let mut image = vec![0; 1 << 20];
    image[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    image[(1 << 20) - 8192..][..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    let mut reader = PartitionReader::new(Arc::new(image), 0, 1 << 20);
    assert!(matches!(detect::detect(&mut reader), Content::Fs(FsIdentity { raid_leg: true, .. })));
}

#[test]
fn a_superblock_that_claims_too_much_is_refused() {
    if !have(&["mke2fs"]) {
        return;
    }
    let mut image = testing::ext4(&Tree::new(), "x");
    image[1024 + 4..1024 + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let size = image.len() as u64;
    let error = FileSystem::open(Arc::new(image), 0, size, FsKind::Ext4, Subvolume::Any).err().unwrap();
    assert!(error.to_string().contains("more than the partition has"), "{error}");
}

#[test]
fn the_reader_stays_in_its_partition_and_its_budget() {
    let image: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
    let mut reader = PartitionReader::new(Arc::new(image.clone()), 1000, 20_000);
    let mut buf = vec![0; 5000];
    reader.read(3000, &mut buf).unwrap();
    assert_eq!(buf, &image[4000..9000]);
    reader.read(15_000, &mut buf).unwrap();
    assert_eq!(buf, &image[16_000..21_000]);
    let mut whole = vec![0; 20_000];
    reader.read(0, &mut whole).unwrap();
    assert_eq!(whole, &image[1000..21_000]);
    assert!(reader.read(15_001, &mut buf).is_err() && reader.read(u64::MAX, &mut buf).is_err());
    assert_eq!(PartitionReader::new(Arc::new(image), 30_000, u64::MAX).len(), 10_000);
    reader.limit(reader::Budget { calls: 2, bytes: 1 << 20 });
    assert!(reader.read(0, &mut buf).is_ok() && reader.read(0, &mut buf).is_ok());
    assert!(reader.read(0, &mut buf).unwrap_err().to_string().contains("more than a sound one"));
}

/// An image with some bytes changed, without a copy of it.
struct Damaged(Arc<Vec<u8>>, Vec<(usize, u8)>);

impl crate::boot::Disk for Damaged {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buf)?;
        for (at, with) in &self.1 {
            if let Some(byte) = at.checked_sub(offset as usize).and_then(|at| buf.get_mut(at)) {
                *byte = *with;
            }
        }
        Ok(())
    }
}

/// Look at everything in a damaged file system; only that it ends counts.
fn walk(disk: SharedDisk, kind: FsKind) {
    let size = disk.size();
    let Ok(mut fs) = FileSystem::open(disk, 0, size, kind, Subvolume::Any) else { return };
    for path in ["/", "/etc", "/boot", "/lnk"] {
        let _ = fs.list(path);
    }
    for path in ["/etc/os-release", "/boot/big", "/boot/abs", "/loop"] {
        let _ = fs.read(path, 4 << 20);
    }
}

fn damaged(make: impl Fn() -> Vec<u8>, kind: FsKind, cases: u32) {
    let image = Arc::new(make());
    // Damage where there is something to damage.
    let used: Vec<usize> =
        image.chunks(512).enumerate().filter(|(_, c)| c.iter().any(|b| *b != 0)).map(|(n, _)| n * 512).collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases, ..Default::default() });
    let hits = proptest::collection::vec((any::<prop::sample::Index>(), 0..512usize, any::<u8>()), 1..40);
    runner
        .run(&hits, |hits| {
            let at =
                |(sector, byte, with): (prop::sample::Index, usize, u8)| (used[sector.index(used.len())] + byte, with);
            walk(Arc::new(Damaged(image.clone(), hits.into_iter().map(at).collect())), kind);
            Ok(())
        })
        .unwrap();
}

fn small() -> Tree {
    Tree::new().file("etc/os-release", "ID=test\n").file("boot/big", [7; 9000]).link("lnk", "boot").link("loop", "loop")
}

#[test]
fn damaged_ext4_ends_in_an_answer() {
    if have(&["mke2fs"]) {
        damaged(|| testing::ext4(&small(), "x"), FsKind::Ext4, 48);
    }
}

#[test]
fn damaged_fat_ends_in_an_answer() {
    if have(&["mkfs.vfat", "mcopy"]) {
        let tree = Tree::new().file("etc/os-release", "ID=test\n").file("boot/big", [7; 9000]);
        damaged(move || testing::fat(&tree, "X", "16"), FsKind::Fat, 48);
    }
}

#[test]
fn damaged_xfs_ends_in_an_answer() {
    if have(&["mkfs.xfs"]) {
        damaged(|| testing::xfs(&small(), "x"), FsKind::Xfs, 6);
    }
}

#[test]
fn damaged_btrfs_ends_in_an_answer() {
    if have(&["mkfs.btrfs"]) {
        damaged(|| testing::btrfs(&small(), "x"), FsKind::Btrfs, 12);
    }
}

#[test]
fn a_journal_that_no_kernel_has_converted_yet_does_not_hide_the_files() {
    if !have(&["mke2fs"]) {
        return;
    }
    let mut image = testing::ext4(&tree(), "fresh");
    // As a kernel leaves it that crashed soon after the first mount: "apply the journal", with a fitting checksum.
    let sb = &mut image[1024..2048];
    sb[0x60] |= 4;
    let checksum = super::ext4::crc32c(&sb[..0x3FC]);
    sb[0x3FC..].copy_from_slice(&checksum.to_le_bytes());
    check_files(&mut open(image).0);
}
