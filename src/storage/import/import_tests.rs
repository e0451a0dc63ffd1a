use imago::{FormatCreateBuilder, StorageCreateOptions};
use proptest::prelude::*;

use super::test_images::{be, gzip, put, qcow2, vhd, vmdk, xz, zstd};
use super::*;

struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        Rig { dir: tempfile::tempdir().unwrap() }
    }

    fn import(&self, bytes: &[u8]) -> Result<(ImportedImage, Vec<u8>), ImportError> {
        self.import_as(bytes, None, &mut |_, _| ControlFlow::Continue(()))
    }

    /// Also checks that nothing but the result is left.
    fn import_as(
        &self,
        bytes: &[u8],
        format: Option<Format>,
        progress: Progress<'_>,
    ) -> Result<(ImportedImage, Vec<u8>), ImportError> {
        let source = self.dir.path().join("source image.bin");
        std::fs::write(&source, bytes).unwrap();
        let images = self.dir.path().join("images");
        let _ = std::fs::remove_dir_all(&images);
        std::fs::create_dir(&images).unwrap();
        let target = images.join("ami-1.raw");
        let result = import(&source, format, &target, progress);
        let names: Vec<_> = std::fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), usize::from(result.is_ok()), "{names:?}");
        result.map(|image| (image, std::fs::read(&target).unwrap()))
    }

    fn refused(&self, bytes: &[u8]) -> String {
        self.import(bytes).unwrap_err().to_string()
    }
}

/// 1 MiB and a bit, with holes of several sizes.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; (1 << 20) + 3 * 512];
    for (i, byte) in disk.iter_mut().enumerate() {
        if i / 8192 % 5 != 1 && !(300_000..700_000).contains(&i) {
            *byte = (i.wrapping_mul(2_654_435_761) >> 13) as u8;
        }
    }
    disk
}

fn data_bytes(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let (mut at, mut sum) = (0, 0);
    while let Some(data) = next_data(&file, at, size).unwrap() {
        sum += data.end - data.start;
        at = data.end;
    }
    sum
}

#[test]
fn every_format_becomes_the_same_sparse_disk() {
    let rig = Rig::new();
    let disk = disk();
    let (first, second) = disk.split_at(400_000);
    let cases = [
        (Format::Raw, disk.clone()),
        (Format::FixedVhd, vhd(&disk, 2)),
        (Format::Qcow2, qcow2(&disk)),
        (Format::Vmdk, vmdk(&disk, true)),
        (Format::Vmdk, vmdk(&disk, false)),
        (Format::RawXz, xz(&disk)),
        (Format::RawGzip, gzip(&disk)),
        (Format::RawGzip, [gzip(first), gzip(second)].concat()),
        (Format::RawZstd, zstd(&disk)),
        (Format::RawZstd, [zstd(first), zstd(second)].concat()),
    ];
    let mut digest = None;
    for (format, bytes) in cases {
        let (image, content) = rig.import(&bytes).unwrap();
        assert_eq!(image.source_format, format);
        assert_eq!(image.size, disk.len() as u64, "{format}");
        assert!(content == disk, "{format}");
        // A raw image may share its blocks with the source instead, zeros and all.
        let most = disk.len() - if format == Format::Raw { 0 } else { 400_000 };
        assert!(data_bytes(&image.path) <= most.next_multiple_of(4096) as u64, "{format} has no holes");
        assert_eq!(digest.get_or_insert(image.digest.clone()), &image.digest, "{format}");
    }
}

#[test]
fn holes_of_a_sparse_raw_file_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("s");
    let file = std::fs::File::create(&source).unwrap();
    file.set_len(8 << 40).unwrap(); // reading it all would take hours
    file.write_all_at(b"here", 5 << 40).unwrap();
    let target = dir.path().join("t");
    let image = import(&source, None, &target, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(image.size, 8 << 40);
    assert!(image.stored <= 1 << 20);
    let mut word = [0; 4];
    File::open(&target).unwrap().read_exact_at(&mut word, 5 << 40).unwrap();
    assert_eq!(&word, b"here");
}

#[test]
fn an_image_made_by_another_implementation() {
    let rig = Rig::new();
    let path = rig.dir.path().join("made.qcow2");
    let disk = disk();
    let create = StorageCreateOptions::new().filename(&path);
    imago::qcow2::Qcow2::<imago::file::File>::create_builder(imago::Storage::create_open(create).unwrap())
        .size(disk.len() as u64)
        .cluster_size(512)
        .create()
        .unwrap();
    let open = imago::StorageOpenOptions::new().filename(&path).write(true);
    let storage: imago::file::File = imago::Storage::open(open).unwrap();
    let image = imago::qcow2::Qcow2::<imago::file::File>::builder(storage);
    let image = imago::FormatDriverBuilder::write(image, true);
    let image = imago::FormatDriverBuilder::open(image, imago::DenyImplicitOpenGate::default()).unwrap();
    let image = imago::FormatAccess::new(image);
    image.write(&disk[..200_000], 0).unwrap();
    image.write(&disk[700_000 / 512 * 512..], 700_000 / 512 * 512).unwrap();
    image.flush().unwrap();
    drop(image);
    let mut expected = disk;
    expected[200_000..700_000 / 512 * 512].fill(0);
    assert!(rig.import(&std::fs::read(&path).unwrap()).unwrap().1 == expected);
}

#[test]
fn an_odd_raw_size_is_filled_up_to_a_sector() {
    let (image, content) = Rig::new().import(&[7; 5000]).unwrap();
    assert_eq!(image.size, 5120);
    assert_eq!((&content[..5000], &content[5000..]), (&[7; 5000][..], &[0; 120][..]));
}

#[test]
fn images_that_name_other_files_are_refused() {
    let rig = Rig::new();
    let plain = qcow2(&disk());
    let with = |at: usize, bytes: &[u8]| {
        let mut image = plain.clone();
        put(&mut image, at, bytes);
        image
    };
    let mut backed = with(8, &be(600, 8));
    put(&mut backed, 16, &be(11, 4));
    put(&mut backed, 600, b"/etc/passwd");
    let parent = String::from_utf8_lossy(&vmdk(&disk(), false)[..2048]).contains("parentCID=ffffffff");
    assert!(parent);
    let mut delta = vmdk(&disk(), false);
    let at = delta.windows(10).position(|w| w == b"parentCID=").unwrap();
    put(&mut delta, at + 10, b"1234abcd");
    let flat = b"# Disk DescriptorFile\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/passwd\" 0\n".to_vec();
    for (image, reason) in [
        (backed, "backing file"),
        (with(72, &be(4, 8)), "data is in another file"),
        (delta, "parent disk"),
        (flat, "description of other files"),
    ] {
        let text = rig.refused(&image);
        assert!(text.contains(reason), "{text}");
        assert!(text.contains("qemu-img convert -O raw '"), "{text}");
    }
}

#[test]
fn unsupported_kinds_are_named() {
    let rig = Rig::new();
    let mut zstd_clusters = qcow2(&disk());
    put(&mut zstd_clusters, 72, &be(8, 8));
    put(&mut zstd_clusters, 100, &be(112, 4));
    put(&mut zstd_clusters, 104, &[1]);
    let mut encrypted = qcow2(&disk());
    put(&mut encrypted, 32, &be(2, 4));
    let mut dynamic = b"conectix".to_vec();
    dynamic.resize(4096, 0);
    for (image, reason) in [
        (zstd_clusters, "compressed with zstd"),
        (encrypted, "encrypted"),
        (dynamic, "dynamic VHD"),
        (b"vhdxfile".repeat(100), "VHDX"),
        (gzip(&qcow2(&disk())), "no raw disk"),
    ] {
        let text = rig.refused(&image);
        assert!(text.contains(reason) && text.contains("qemu-img"), "{text}");
    }
}

#[test]
fn impossible_sizes_are_refused() {
    let rig = Rig::new();
    assert!(rig.refused(b"").contains("empty disk"));
    let mut huge = qcow2(&disk());
    put(&mut huge, 24, &be(MAX_SIZE + 512, 8));
    assert!(matches!(rig.import(&huge), Err(ImportError::TooLarge { .. })));
    // An L1 table too small for the disk, or too large to load.
    for (size, l1) in [(1u64 << 40, 1u64), (1 << 20, 1 << 23)] {
        let mut image = qcow2(&disk());
        put(&mut image, 24, &be(size, 8));
        put(&mut image, 36, &be(l1, 4));
        assert!(matches!(rig.import(&image), Err(ImportError::Damaged { .. })));
    }
    let mut vmdk = vmdk(&disk(), false);
    put(&mut vmdk, 12, &(u64::MAX / 512).to_le_bytes());
    assert!(matches!(rig.import(&vmdk), Err(ImportError::TooLarge { .. })));
}

#[test]
fn cut_short_is_damaged() {
    let rig = Rig::new();
    let disk = disk();
    for whole in [qcow2(&disk), vmdk(&disk, true), vmdk(&disk, false), xz(&disk), gzip(&disk), zstd(&disk)] {
        let cut = &whole[..whole.len() / 2];
        match rig.import(cut) {
            Err(ImportError::Damaged { .. }) => {}
            // qcow2 reads as zeros past the end of the file.
            Ok((image, _)) => assert_eq!(image.source_format, Format::Qcow2),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_given_format_is_not_questioned() {
    let bytes = qcow2(&disk());
    let (image, content) =
        Rig::new().import_as(&bytes, Some(Format::Raw), &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(image.source_format, Format::Raw);
    assert!(content == bytes);
}

#[test]
fn an_interrupted_import_leaves_nothing() {
    let rig = Rig::new();
    let mut calls = 0;
    let result = rig.import_as(&vec![1; 32 << 20], None, &mut |done, total| {
        calls += 1;
        assert_eq!(total, Some(32 << 20));
        if done > 10 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(ImportError::Interrupted)));
    assert!(calls >= 3);
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("s"), dir.path().join("t"));
    std::fs::write(&source, [1; 4096]).unwrap();
    std::fs::write(&target, "mine").unwrap();
    let mut progress = |_, _| ControlFlow::Continue(());
    assert!(matches!(import(&source, None, &target, &mut progress), Err(ImportError::Exists(_))));
    // Also when it appears while we work.
    let mut writer = Writer::new(&target, &mut progress).unwrap();
    writer.data(&[1; 512]).unwrap();
    assert!(matches!(writer.finish(), Err(ImportError::Exists(_))));
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn damaged_images_are_never_a_panic(
        kind in 0..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..12),
    ) {
        let disk = &disk()[..200 * 512];
        let mut image = match kind {
            0 => qcow2(disk),
            1 => vmdk(disk, true),
            2 => vmdk(disk, false),
            3 => xz(disk),
            4 => gzip(disk),
            _ => zstd(disk),
        };
        for (index, value, early) in changes {
            let range = if early { 512.min(image.len()) } else { image.len() };
            image[index.index(range)] = value;
        }
        match kind {
            0 => _ = fuzz_qcow2(&image),
            1 | 2 => _ = fuzz_vmdk(&image),
            _ => drop(Rig::new().import(&image)),
        }
    }
}

#[test]
fn a_full_disk_is_named() {
    for error in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
        let error = ImportError::write(Path::new("/images/a.raw"), error.into());
        assert!(matches!(error, ImportError::DiskFull { .. }), "{error:?}");
    }
}

#[test]
fn fuzz_entries_take_whole_images() {
    assert!(fuzz_qcow2(&qcow2(&disk())));
    assert!(fuzz_vmdk(&vmdk(&disk(), true)));
    assert!(!fuzz_qcow2(b"QFI\xfb") && !fuzz_vmdk(b""));
}
