use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::storage::chain::is_frozen;
use crate::storage::{Chain, Layer, LayerId};

const SIZE: u64 = 64 * 4096;

struct Rig {
    dir: tempfile::TempDir,
    chain: Chain,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, [1; 40 * 4096]).unwrap();
        Rig { chain: Chain { image: Some(image), frozen: Vec::new() }, dir }
    }

    fn layer(&self, name: &str) -> VolumePaths {
        VolumePaths::in_folder(self.dir.path(), name)
    }

    fn above(&self, names: &[&str]) -> Chain {
        Chain { frozen: names.iter().map(|name| self.layer(name)).collect(), ..self.chain.clone() }
    }
}

fn put(volume: &LiveVolume, block: u64, value: u8) {
    let mut bytes = [value; 4096];
    BlockBackend::write(volume, &[VolatileSlice::from(&mut bytes[..])], block * 4096, Wait::Allowed).unwrap();
}

fn get(volume: &LiveVolume, block: u64) -> u8 {
    let mut bytes = [0xee; 4096];
    volume.read_at(block * 4096, &mut bytes).unwrap();
    assert!(bytes.iter().all(|b| *b == bytes[0]));
    bytes[0]
}

#[test]
fn a_snapshot_keeps_what_was_and_the_volume_goes_on() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    put(&volume, 3, 33);
    put(&volume, 50, 50);
    volume.snapshot(&rig.layer("b")).unwrap();
    assert!(is_frozen(&rig.layer("a")).unwrap() && !is_frozen(&rig.layer("b")).unwrap());
    assert_eq!(volume.held_bytes(), 0);
    put(&volume, 3, 34);
    put(&volume, 4, 44);
    assert_eq!([2, 3, 4, 50, 60].map(|b| get(&volume, b)), [1, 34, 44, 50, 0]);

    // Another volume over the snapshot while the first one runs, in as many processes as one likes.
    let other = rig.above(&["a"]).create(&rig.layer("c"), SIZE * 2, OpenMode::ReadWrite).unwrap();
    assert_eq!([2, 3, 4, 50, 60, 100].map(|b| get(&other, b)), [1, 33, 1, 50, 0, 0]);
    put(&other, 50, 99);
    assert_eq!(get(&volume, 50), 50);

    // A second snapshot holds only what changed since the first.
    volume.snapshot(&rig.layer("d")).unwrap();
    put(&volume, 5, 55);
    volume.flush().unwrap();
    drop(volume);
    let volume = rig.above(&["a", "b"]).open_volume(&rig.layer("d"), OpenMode::ReadWrite).unwrap();
    assert_eq!([3, 4, 5, 50].map(|b| get(&volume, b)), [34, 44, 55, 50]);
    let second = rig.above(&["a"]).open_volume(&rig.layer("b"), OpenMode::ReadOnly).unwrap();
    assert_eq!(second.held_bytes(), 2 * 4096);
    assert_eq!(get(&second, 5), 1);
}

#[test]
fn frozen_layers_are_not_written_and_chains_are_not_mixed_up() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    volume.snapshot(&rig.layer("b")).unwrap();
    volume.snapshot(&rig.layer("c")).unwrap();
    drop(volume);
    let frozen = rig.chain.open_volume(&rig.layer("a"), OpenMode::ReadWrite).unwrap_err();
    assert!(matches!(frozen, StorageError::Frozen { .. }), "{frozen}");
    for wrong in [&["b"][..], &["a"], &[]] {
        let error = rig.above(wrong).open_volume(&rig.layer("c"), OpenMode::ReadWrite).unwrap_err();
        assert!(
            matches!(error, StorageError::WrongParent { .. } | StorageError::BaseChanged { .. }),
            "{wrong:?}: {error}"
        );
    }
    rig.above(&["a", "b"]).open_volume(&rig.layer("c"), OpenMode::ReadWrite).unwrap();
}

#[test]
fn a_crash_before_the_switch_leaves_the_old_layer_and_one_after_it_the_new() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    put(&volume, 1, 11);
    volume.flush().unwrap();
    // The new layer is there, nothing says that it counts.
    drop(Volume::create(&rig.layer("b"), SIZE, Some(volume.top()), OpenMode::ReadWrite).unwrap());
    drop(volume);
    assert!(!is_frozen(&rig.layer("a")).unwrap());
    rig.layer("b").remove().unwrap();
    let volume = rig.chain.open_volume(&rig.layer("a"), OpenMode::ReadWrite).unwrap();
    assert_eq!(get(&volume, 1), 11);
    // Switched, written, flushed, and then killed: the old layer says that the new one counts.
    volume.snapshot(&rig.layer("b")).unwrap();
    put(&volume, 2, 22);
    volume.flush().unwrap();
    drop(volume);
    assert!(is_frozen(&rig.layer("a")).unwrap());
    let volume = rig.above(&["a"]).open_volume(&rig.layer("b"), OpenMode::ReadWrite).unwrap();
    assert_eq!((get(&volume, 1), get(&volume, 2)), (11, 22));
}

#[test]
fn a_snapshot_that_can_not_be_made_changes_nothing() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    let nowhere = VolumePaths::in_folder(&rig.dir.path().join("nowhere"), "b");
    assert!(volume.snapshot(&nowhere).is_err());
    assert!(!is_frozen(&rig.layer("a")).unwrap());
    put(&volume, 1, 11);
    assert_eq!(get(&volume, 1), 11);
}

#[test]
fn a_volume_grows_while_it_is_used_and_stays_so() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    put(&volume, 63, 63);
    assert!(volume.grow(SIZE / 2).is_err());
    let large = 3 << 30;
    volume.grow(large).unwrap();
    assert_eq!(BlockBackend::size(&volume), large);
    put(&volume, large / 4096 - 1, 9);
    volume.snapshot(&rig.layer("b")).unwrap();
    volume.flush().unwrap();
    drop(volume);
    let volume = rig.above(&["a"]).open_volume(&rig.layer("b"), OpenMode::ReadWrite).unwrap();
    assert_eq!(Layer::size(&**volume.shared()), large);
    assert_eq!([0, 63, 64, large / 4096 - 1].map(|b| get(&volume, b)), [1, 63, 0, 9]);
}

#[test]
fn a_snapshot_under_writes_is_one_moment_s_content() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("l0"), SIZE, OpenMode::ReadWrite).unwrap();
    let stop = AtomicBool::new(false);
    let names: Vec<String> = (0..6).map(|n| format!("l{n}")).collect();
    std::thread::scope(|scope| {
        // Block 0 is always written before block 1 with the same value: no snapshot may show block 1 ahead.
        scope.spawn(|| {
            for value in (1u8..=250).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                put(&volume, 0, value);
                put(&volume, 1, value);
            }
        });
        for name in &names[1..] {
            while volume.held_bytes() < 2 * 4096 {
                std::thread::yield_now();
            }
            volume.snapshot(&rig.layer(name)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(volume);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for depth in 0..5 {
        let snapshot = rig.above(&names[..depth]).open_volume(&rig.layer(names[depth]), OpenMode::ReadOnly).unwrap();
        let (first, second) = (get(&snapshot, 0), get(&snapshot, 1));
        assert!(first == second || first == second % 250 + 1 || (second == 1 && first == 2), "{first} {second}");
    }
}

#[test]
fn a_freeze_that_fails_leaves_the_volume_in_its_old_layer() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    put(&volume, 1, 11);
    volume.top().lock_durable().map.failing_headers = 1;
    volume.snapshot(&rig.layer("b")).unwrap_err();
    assert!(!is_frozen(&rig.layer("a")).unwrap() && !rig.layer("b").map.exists());
    put(&volume, 2, 22);
    volume.flush().unwrap();
    volume.snapshot(&rig.layer("b")).unwrap();
    put(&volume, 1, 12);
    volume.flush().unwrap();
    drop(volume);
    let volume = rig.above(&["a"]).open_volume(&rig.layer("b"), OpenMode::ReadWrite).unwrap();
    assert_eq!([1, 2, 3].map(|b| get(&volume, b)), [12, 22, 1]);
}

#[test]
fn what_was_written_while_a_freeze_failed_is_taken_back() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE - 1024, OpenMode::ReadWrite).unwrap();
    put(&volume, 1, 11);
    let new = Volume::create(&rig.layer("b"), SIZE - 1024, Some(volume.top()), OpenMode::ReadWrite).unwrap();
    let old = std::mem::replace(&mut *volume.alone(), Arc::new(new));
    put(&volume, 1, 12);
    put(&volume, 50, 50);
    let last = SIZE - 4096;
    let mut bytes = [7; 512];
    BlockBackend::write(&volume, &[VolatileSlice::from(&mut bytes[..])], last + 1024, Wait::Allowed).unwrap();
    old.take_back(&volume.top()).unwrap();
    *volume.alone() = old;
    assert_eq!([1, 2, 50].map(|b| get(&volume, b)), [12, 1, 50]);
    let mut end = [0xee; 3072];
    volume.read_at(last, &mut end).unwrap();
    assert!(end[..1024].iter().chain(&end[1536..]).all(|b| *b == 0) && end[1024..1536] == [7; 512]);
}

#[test]
fn a_layer_of_which_is_not_known_whether_it_is_frozen_makes_nothing_durable_any_more() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    put(&volume, 1, 11);
    volume.top().lock_durable().map.failing_headers = 2;
    volume.snapshot(&rig.layer("b")).unwrap_err();
    put(&volume, 1, 12);
    assert_eq!([1, 2].map(|b| get(&volume, b)), [12, 1]);
    volume.flush().unwrap_err();
    volume.close().unwrap_err();
    drop(volume);
    // As it was written before, and as the header says.
    let volume = rig.chain.open_volume(&rig.layer("a"), OpenMode::ReadWrite).unwrap();
    assert_eq!(get(&volume, 1), 11);
}

#[test]
fn a_layer_of_version_1_gets_an_id_before_another_lies_over_it() {
    let rig = Rig::new();
    drop(rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap());
    let file = std::fs::File::options().write(true).open(rig.layer("a").map).unwrap();
    let header = crate::storage::map_file::testing::header_1(SIZE, 40 * 4096);
    std::os::unix::fs::FileExt::write_all_at(&file, &header, 0).unwrap();
    drop(file);
    assert_eq!(rig.chain.open_volume(&rig.layer("a"), OpenMode::ReadOnly).unwrap().top().id(), LayerId::default());
    let volume = rig.chain.open_volume(&rig.layer("a"), OpenMode::ReadWrite).unwrap();
    put(&volume, 1, 11);
    volume.snapshot(&rig.layer("b")).unwrap();
    put(&volume, 2, 22);
    volume.flush().unwrap();
    drop(volume);
    let volume = rig.above(&["a"]).open_volume(&rig.layer("b"), OpenMode::ReadWrite).unwrap();
    assert_eq!([1, 2, 3].map(|b| get(&volume, b)), [11, 22, 1]);
    assert_ne!(volume.top().base.as_ref().unwrap().id(), LayerId::default());
}

#[test]
fn flushes_during_a_snapshot_are_durable_and_accesses_go_on() {
    let rig = Rig::new();
    let volume = rig.chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    // As a snapshot holds it while the old layer is frozen: writes and reads go on, a flush does not come through.
    let no_flush = volume.flushes.write().unwrap();
    let flushed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            volume.flush().unwrap();
            flushed.store(true, Ordering::SeqCst);
        });
        for value in 1..100 {
            put(&volume, 1, value);
            assert_eq!(get(&volume, 1), value);
            std::thread::yield_now();
        }
        assert!(!flushed.load(Ordering::SeqCst));
        drop(no_flush);
    });
    assert!(flushed.load(Ordering::SeqCst));
}
