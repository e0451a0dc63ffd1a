use proptest::prelude::*;
use vm_memory::VolatileSlice;

use super::*;
use crate::boot::Disk;
use crate::storage::RawImage;
use crate::vmm::backend::{BlockBackend, Wait};

/// 40 sectors more than 60 blocks: neither the base nor the volume ends on a block.
const BASE: usize = 60 * 4096 + 1024;
const SIZE: usize = 90 * 4096 + 1536;

struct Rig {
    dir: tempfile::TempDir,
    paths: VolumePaths,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("base"), base_content()).unwrap();
        let paths = VolumePaths::in_folder(dir.path(), "vol-1");
        Rig { dir, paths }
    }

    fn base(&self) -> Option<Arc<dyn Layer>> {
        Some(Arc::new(RawImage::open(&self.dir.path().join("base")).unwrap()))
    }

    fn create(&self) -> Volume {
        Volume::create(&self.paths, SIZE as u64, self.base(), OpenMode::ReadWrite).unwrap()
    }

    fn open(&self, mode: OpenMode) -> Volume {
        Volume::open(&self.paths, self.base(), mode).unwrap()
    }
}

fn base_content() -> Vec<u8> {
    (0..BASE).map(|i| (i / 512 % 250 + 1) as u8).collect()
}

fn all(volume: &Volume) -> Vec<u8> {
    let mut all = vec![0xaa; SIZE];
    volume.read_at(0, &mut all).unwrap();
    all
}

fn write(volume: &Volume, at: usize, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    volume.write(&[VolatileSlice::from(&mut bytes[..])], at as u64, Wait::Allowed).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u8),
    Zero(usize, usize, bool),
    Discard(usize, usize),
    Read(usize, usize),
    Flush,
    Reopen,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Sectors; often within one block, sometimes across many.
    let range = (0..SIZE / 512, prop_oneof![1..9usize, 1..200usize])
        .prop_map(|(at, n)| (at * 512, n.min(SIZE / 512 - at) * 512));
    let step = prop_oneof![
        6 => (range.clone(), 1..=255u8).prop_map(|((at, n), fill)| Step::Write(at, n, fill)),
        2 => (range.clone(), any::<bool>()).prop_map(|((at, n), deallocate)| Step::Zero(at, n, deallocate)),
        2 => range.clone().prop_map(|(at, n)| Step::Discard(at, n)),
        3 => range.prop_map(|(at, n)| Step::Read(at, n)),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    /// The volume against a vector. After a crash each sector has the flushed content or a later one.
    #[test]
    fn behaves_as_a_vector(steps in steps()) {
        let rig = Rig::new();
        let mut volume = rig.create();
        let mut now = base_content();
        now.resize(SIZE, 0);
        // What each sector may show after a crash.
        let mut possible: Vec<Vec<u8>> = now.chunks(512).map(|s| vec![s[0]]).collect();
        for step in steps {
            match step {
                Step::Write(at, n, fill) => {
                    write(&volume, at, &vec![fill; n]);
                    now[at..at + n].fill(fill);
                }
                Step::Zero(at, n, deallocate) => {
                    volume.write_zeroes(at as u64, n as u64, deallocate).unwrap();
                    now[at..at + n].fill(0);
                }
                Step::Discard(at, n) => {
                    volume.discard(at as u64, n as u64).unwrap();
                    let after = all(&volume);
                    for (i, sector) in now.chunks_mut(512).enumerate() {
                        let seen = &after[i * 512..(i + 1) * 512];
                        let inside = (at..at + n).contains(&(i * 512));
                        prop_assert!(seen == sector || inside && seen.iter().all(|b| *b == 0), "sector {i}");
                        sector.copy_from_slice(seen);
                    }
                }
                Step::Read(at, n) => {
                    let mut buf = vec![0xaa; n];
                    volume.read(&[VolatileSlice::from(&mut buf[..])], at as u64, Wait::Allowed).unwrap();
                    prop_assert_eq!(&buf[..], &now[at..at + n]);
                }
                Step::Flush => {
                    volume.flush().unwrap();
                    possible = now.chunks(512).map(|s| vec![s[0]]).collect();
                }
                Step::Reopen => {
                    volume.flush().unwrap();
                    drop(volume);
                    volume = rig.open(OpenMode::ReadWrite);
                    prop_assert_eq!(&all(&volume), &now);
                    possible = now.chunks(512).map(|s| vec![s[0]]).collect();
                }
                Step::Crash => {
                    drop(volume);
                    volume = rig.open(OpenMode::ReadWrite);
                    now = all(&volume);
                    for (i, sector) in now.chunks(512).enumerate() {
                        prop_assert!(sector.iter().all(|b| *b == sector[0]), "sector {i} is torn");
                        prop_assert!(possible[i].contains(&sector[0]), "sector {i} shows {}", sector[0]);
                    }
                }
            }
            for (i, sector) in now.chunks(512).enumerate() {
                if !possible[i].contains(&sector[0]) {
                    possible[i].push(sector[0]);
                }
            }
        }
        prop_assert_eq!(all(&volume), now);
        prop_assert_eq!(std::fs::read(rig.dir.path().join("base")).unwrap(), base_content());
    }
}

#[test]
fn a_new_volume_reads_as_its_base_and_stores_nothing() {
    let rig = Rig::new();
    let volume = Volume::create(&rig.paths, 1 << 40, rig.base(), OpenMode::ReadWrite).unwrap();
    let mut buf = vec![0xaa; BASE + 4096];
    volume.read_at(0, &mut buf).unwrap();
    assert_eq!(buf[..BASE], base_content());
    assert!(buf[BASE..].iter().all(|b| *b == 0));
    assert_eq!(volume.held_bytes(), 0);
    let sizes = super::super::image::size_of(&rig.paths.data).unwrap();
    assert_eq!((sizes.virtual_size, sizes.stored), (1 << 40, 0));
}

#[test]
fn threads_write_their_own_sectors_of_shared_blocks() {
    const THREADS: usize = 4;
    let rig = Rig::new();
    let volume = rig.create();
    let barrier = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for me in 0..THREADS {
            let (volume, barrier) = (&volume, &barrier);
            scope.spawn(move || {
                for block in 0..SIZE.div_ceil(4096) {
                    // Now all four touch the same block for the first time.
                    barrier.wait();
                    for sector in (block * 8..(block * 8 + 8).min(SIZE / 512)).filter(|s| s % THREADS == me) {
                        write(volume, sector * 512, &[me as u8 + 100; 512]);
                        let mut back = [0; 512];
                        volume.read_at(sector as u64 * 512, &mut back).unwrap();
                        assert_eq!(back, [me as u8 + 100; 512]);
                    }
                    if block % 16 == me {
                        volume.flush().unwrap();
                    }
                }
            });
        }
    });
    let expected: Vec<u8> = (0..SIZE).map(|i| (i / 512 % THREADS) as u8 + 100).collect();
    assert!(all(&volume) == expected);
    volume.flush().unwrap();
    drop(volume);
    assert!(all(&rig.open(OpenMode::ReadOnly)) == expected);
}

#[test]
fn one_writer_or_many_readers() {
    let rig = Rig::new();
    let volume = rig.create();
    for mode in [OpenMode::ReadOnly, OpenMode::ReadWrite, OpenMode::ThrowAway] {
        match Volume::open(&rig.paths, rig.base(), mode) {
            Err(error @ StorageError::InUse { .. }) => {
                let text = error.to_string();
                assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
    drop(volume);
    let reader = rig.open(OpenMode::ReadOnly);
    let _second = rig.open(OpenMode::ReadOnly);
    let mut buf = [0; 512];
    let error = reader.write(&[VolatileSlice::from(&mut buf[..])], 0, Wait::Allowed).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(matches!(Volume::open(&rig.paths, rig.base(), OpenMode::ReadWrite), Err(StorageError::InUse { .. })));
}

#[test]
fn what_does_not_fit_is_an_error_that_says_so() {
    let rig = Rig::new();
    let small = Volume::create(&rig.paths, BASE as u64 - 512, rig.base(), OpenMode::ReadWrite);
    assert!(matches!(small, Err(StorageError::BadSize { .. })));
    assert!(!rig.paths.data.exists());
    drop(rig.create());
    // The volume's file was cut off.
    let data = std::fs::OpenOptions::new().write(true).open(&rig.paths.data).unwrap();
    data.set_len(4096).unwrap();
    assert!(matches!(
        Volume::open(&rig.paths, rig.base(), OpenMode::ReadWrite),
        Err(StorageError::TooShort { found: 4096, .. })
    ));
    data.set_len(SIZE as u64).unwrap();
    // The base was cut off while open: an error for the guest, no panic.
    let volume = rig.open(OpenMode::ReadWrite);
    let base = std::fs::OpenOptions::new().write(true).open(rig.dir.path().join("base")).unwrap();
    base.set_len(8192).unwrap();
    let mut buf = [0; 4096];
    assert_eq!(volume.read_at(8192, &mut buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    drop(volume);
    assert!(matches!(
        Volume::open(&rig.paths, rig.base(), OpenMode::ReadWrite),
        Err(StorageError::BaseChanged { found: 8192, .. })
    ));
    // Making it again over what is there is refused, and leaves it alone.
    assert!(matches!(Volume::create(&rig.paths, SIZE as u64, None, OpenMode::ReadWrite), Err(StorageError::Io { .. })));
    assert!(rig.paths.data.exists() && rig.paths.map.exists());
}

#[test]
fn accesses_out_of_range_are_invalid() {
    let rig = Rig::new();
    let volume = rig.create();
    let mut buf = [0; 1024];
    for (offset, len) in [(SIZE as u64 - 512, 1024), (u64::MAX - 511, 512), (100, 512), (0, 100)] {
        let slices = [VolatileSlice::from(&mut buf[..len])];
        for result in [
            volume.read(&slices, offset, Wait::Allowed),
            volume.write(&slices, offset, Wait::Allowed),
            volume.write_zeroes(offset, len as u64, true),
            volume.discard(offset, len as u64),
        ] {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{offset} {len}");
        }
    }
    assert_eq!(volume.read_at(SIZE as u64 - 1, &mut buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn zeroing_past_the_base_stores_nothing() {
    let rig = Rig::new();
    let volume = rig.create();
    volume.write_zeroes(64 * 4096, (SIZE - 64 * 4096) as u64, false).unwrap();
    assert_eq!(volume.held_bytes(), 0);
    volume.write_zeroes(0, 8192, true).unwrap();
    assert_eq!(volume.held_bytes(), 8192);
}

#[test]
fn a_throw_away_volume_can_be_handed_on_when_closed() {
    let rig = Rig::new();
    let volume = Volume::create(&rig.paths, SIZE as u64, rig.base(), OpenMode::ThrowAway).unwrap();
    write(&volume, 4096, &[7; 4096]);
    volume.flush().unwrap();
    volume.close().unwrap();
    drop(volume);
    assert_eq!(all(&rig.open(OpenMode::ReadOnly))[4096..8192], [7; 4096]);
}

#[test]
fn reads_that_may_not_wait_answer_or_give_up() {
    let rig = Rig::new();
    let volume = rig.create();
    write(&volume, 8192, &[7; 4096]);
    let mut buf = [0; 16384];
    // Both files were just written: their pages are in the cache, if the file system can tell.
    match volume.read(&[VolatileSlice::from(&mut buf[..])], 0, Wait::Never) {
        Ok(()) => assert_eq!(buf[..], all(&volume)[..16384]),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
    }
    // A partial first touch has to read.
    let result = volume.write(&[VolatileSlice::from(&mut buf[..512])], 512, Wait::Never);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_volume_can_be_a_base() {
    let rig = Rig::new();
    let lower = rig.create();
    write(&lower, 512, &[9; 512]);
    lower.flush().unwrap();
    let paths = VolumePaths::in_folder(rig.dir.path(), "vol-2");
    let upper = Volume::create(&paths, SIZE as u64, Some(Arc::new(lower)), OpenMode::ReadWrite).unwrap();
    write(&upper, 1024, &[8; 512]);
    let mut expected = base_content();
    expected.resize(SIZE, 0);
    expected[512..1024].fill(9);
    expected[1024..1536].fill(8);
    assert!(all(&upper) == expected);
}

#[test]
#[ignore = "needs two unused block devices of 1 MiB or more: AMIABLE_TEST_BLOCK_DEVICES=DATA:MAP"]
fn block_devices_do_as_well_as_files() {
    let devices = std::env::var("AMIABLE_TEST_BLOCK_DEVICES").expect("AMIABLE_TEST_BLOCK_DEVICES names two devices");
    let (data, map) = devices.split_once(':').unwrap();
    let rig = Rig { paths: VolumePaths { data: data.into(), map: map.into() }, ..Rig::new() };
    let mut expected = base_content();
    expected.resize(SIZE, 0);
    // Twice: the second volume must not see what the first has left.
    for round in 1..3u8 {
        let volume = rig.create();
        assert!(all(&volume) == expected);
        write(&volume, 512, &[round; 8192]);
        volume.write_zeroes(70 * 4096, 8192, true).unwrap();
        volume.write_zeroes(8192, 4096, true).unwrap();
        volume.discard(4096, 4096).unwrap();
        volume.flush().unwrap();
        let now = all(&volume);
        assert_eq!((now[600], now[8192], now[3 * 4096]), (round, 0, expected[3 * 4096]));
        drop(volume);
        assert!(all(&rig.open(OpenMode::ReadOnly)) == now);
    }
}

#[test]
fn a_reservation_keeps_writers_away_and_lets_lookers_look() {
    let rig = Rig::new();
    drop(rig.create());
    let reservation = rig.paths.reserve().unwrap();
    assert!(matches!(Volume::open(&rig.paths, rig.base(), OpenMode::ReadWrite), Err(StorageError::InUse { .. })));
    assert!(matches!(rig.paths.reserve(), Err(StorageError::InUse { .. })));
    assert!(matches!(Volume::open(&rig.paths, rig.base(), OpenMode::ReadOnly), Err(StorageError::InUse { .. })));
    assert_eq!(all(&rig.open(OpenMode::Look)).len(), SIZE);
    drop(reservation);
    rig.open(OpenMode::ReadWrite);
}
