use proptest::prelude::*;
use vm_memory::VolatileSlice;

use super::*;
use crate::boot::Disk;
use crate::storage::chain::is_frozen;
use crate::storage::{Chain, LiveVolume};
use crate::vmm::backend::{BlockBackend, Wait};

const BASE: u64 = 10 * 4096 + 512;
const SIZE: u64 = 40 * 4096 - 1024;

struct Rig {
    dir: tempfile::TempDir,
    image: Option<std::path::PathBuf>,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, [1; BASE as usize]).unwrap();
        Rig { image: Some(image), dir }
    }

    fn layer(&self, name: &str) -> VolumePaths {
        VolumePaths::in_folder(self.dir.path(), name)
    }

    fn open(&self, frozen: &[&str], top: &str) -> LiveVolume {
        let frozen = frozen.iter().map(|name| self.layer(name)).collect();
        Chain { image: self.image.clone(), frozen }.open_volume(&self.layer(top), OpenMode::ReadWrite).unwrap()
    }
}

fn all(volume: &LiveVolume) -> Vec<u8> {
    let mut bytes = vec![0xee; Disk::size(volume) as usize];
    volume.read_at(0, &mut bytes).unwrap();
    bytes
}

fn put(volume: &LiveVolume, at: u64, len: usize, value: u8) {
    let mut bytes = vec![value; len];
    BlockBackend::write(volume, &[VolatileSlice::from(&mut bytes[..])], at, Wait::Allowed).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_merged_layer_shows_what_its_layers_did(
        writes in prop::collection::vec(prop::collection::vec((0..SIZE / 512 - 8, 1usize..9, 0u8..255, 0u8..4), 0..6), 4),
        from in 0usize..3,
        grows in prop::collection::vec(prop::sample::select(vec![0u64, 512, 9 * 4096]), 4),
    ) {
        let rig = Rig::new();
        let names = ["a", "b", "c", "d", "top"];
        let chain = Chain { image: rig.image.clone(), frozen: Vec::new() };
        let volume = chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
        for ((writes, grow), name) in writes.iter().zip(grows).zip(&names[1..]) {
            volume.grow(Disk::size(&volume) + grow).unwrap();
            for (at, sectors, value, kind) in writes {
                match kind {
                    0 => volume.write_zeroes(at * 512, *sectors as u64 * 512, true).unwrap(),
                    1 => volume.discard(at * 512, *sectors as u64 * 512).unwrap(),
                    _ => put(&volume, at * 512, sectors * 512, *value),
                }
            }
            volume.snapshot(&rig.layer(name)).unwrap();
        }
        put(&volume, 4096, 512, 77);
        let before = all(&volume);
        volume.close().unwrap();
        // While others have the layers open.
        let layers: Vec<_> = names[from..4].iter().map(|name| rig.layer(name)).collect();
        merge(&layers, &rig.layer("m")).unwrap();
        prop_assert_eq!(&all(&volume), &before);
        drop(volume);
        layers.iter().for_each(|layer| layer.remove().unwrap());
        let frozen: Vec<&str> = names[..from].iter().copied().chain(["m"]).collect();
        let volume = rig.open(&frozen, "top");
        prop_assert_eq!(&all(&volume), &before);
    }
}

#[test]
fn what_can_not_be_merged_leaves_nothing() {
    let rig = Rig::new();
    let chain = Chain { image: rig.image.clone(), frozen: Vec::new() };
    let volume = chain.create(&rig.layer("a"), SIZE, OpenMode::ReadWrite).unwrap();
    volume.snapshot(&rig.layer("b")).unwrap();
    volume.snapshot(&rig.layer("c")).unwrap();
    drop(volume);
    let layers = |names: &[&str]| names.iter().map(|name| rig.layer(name)).collect::<Vec<_>>();
    let wrong = merge(&layers(&["b", "a"]), &rig.layer("m")).unwrap_err();
    assert!(matches!(wrong, StorageError::WrongParent { .. }), "{wrong}");
    let unfrozen = merge(&layers(&["b", "c"]), &rig.layer("m")).unwrap_err();
    assert!(matches!(unfrozen, StorageError::NotFrozen { .. }), "{unfrozen}");
    assert!(!rig.layer("m").data.exists() && !rig.layer("m").map.exists());
    merge(&layers(&["a", "b"]), &rig.layer("m")).unwrap();
    assert!(is_frozen(&rig.layer("m")).unwrap());
    // What is there is not written over.
    assert!(merge(&layers(&["a", "b"]), &rig.layer("m")).is_err());
    assert!(rig.layer("m").data.exists());
    rig.open(&["m"], "c");
}
