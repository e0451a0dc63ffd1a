use std::os::unix::fs::FileExt;

use super::*;
use crate::ec2::volume_types::Provisioned;
use crate::region::paths::Paths;
use crate::storage::chain::MOST_LAYERS;
use crate::storage::{OpenMode, StorageError};
use crate::vmm::backend::{BlockBackend, Wait};

struct Home {
    region: Region,
    _directory: tempfile::TempDir,
    volume_id: String,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut region = Region::open(Paths::under(directory.path())).unwrap();
        let volume_id =
            region.create_volume(Some(1 << 30), None, Vec::new(), Provisioned::default()).unwrap().volume_id;
        Home { region, _directory: directory, volume_id }
    }

    fn layers(&self) -> Vec<String> {
        self.region.volume(&self.volume_id).unwrap().amiable.layers.frozen
    }

    fn open(&self, id: &str) -> Result<crate::storage::LiveVolume, StorageError> {
        let facts = self.region.volume(id).unwrap().amiable;
        self.region.chain(&facts.layers).open_volume(&self.region.layer(&facts.top), OpenMode::ReadWrite)
    }

    /// Write a block, then take a snapshot.
    fn day(&mut self, day: u8) -> Snapshot {
        let volume = self.open(&self.volume_id).unwrap();
        let mut bytes = [day; 4096];
        let to = [vm_memory::VolatileSlice::from(&mut bytes[..])];
        BlockBackend::write(&volume, &to, u64::from(day) * 8192, Wait::Allowed).unwrap();
        volume.close().unwrap();
        drop(volume);
        let id = self.volume_id.clone();
        self.region.create_snapshot(&id, "", Vec::new()).unwrap()
    }

    /// Which days a volume shows, of so many.
    fn days(&self, id: &str, most: u8) -> Vec<u8> {
        let volume = self.open(id).unwrap();
        let shows = |day: u8| {
            let mut bytes = [0; 4096];
            crate::boot::Disk::read_at(&volume, u64::from(day) * 8192, &mut bytes).unwrap();
            assert!(bytes == [day; 4096] || bytes == [0; 4096]);
            bytes[0] != 0
        };
        (1..=most).filter(|day| shows(*day)).collect()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.region.paths().volumes()).unwrap().count()
    }
}

fn names(text: &str) -> Vec<Vec<String>> {
    text.split(' ').map(|list| list.chars().map(String::from).collect()).collect()
}

#[test]
fn runs_end_where_something_needs_a_layer_for_itself() {
    for (lists, expected) in [
        ("abcd", "abcd"),
        ("abcd ab", "ab cd"),
        ("abcd ab abc", "ab"),
        ("abcd abce", "abc"),
        ("abcd abce abcef", "abc"),
        ("abcdef abc abcgh", "abc def gh"),
        ("a", ""),
        ("ab b", "ab"),
    ] {
        let expected = if expected.is_empty() { Vec::new() } else { names(expected) };
        assert_eq!(runs(&names(lists)), expected, "{lists}");
    }
}

#[test]
fn layers_of_deleted_snapshots_are_merged_by_prune() {
    let mut home = Home::new();
    let snapshots: Vec<_> = (1..=6).map(|day| home.day(day)).collect();
    let third =
        home.region.create_volume(None, Some(&snapshots[2]), Vec::new(), Provisioned::default()).unwrap().volume_id;
    for snapshot in [&snapshots[0], &snapshots[1], &snapshots[2], &snapshots[4]] {
        home.region.delete_snapshot(&snapshot.snapshot_id).unwrap();
    }
    assert_eq!((home.layers().len(), home.files()), (6, 16));
    let pruned = home.region.prune().unwrap();
    // Up to the third day is a volume's, the fourth and the sixth are snapshots.
    assert_eq!((home.layers().len(), home.files()), (3, 10));
    assert!(pruned.bytes > 0, "{pruned:?}");
    assert_eq!(home.days(&third, 6), [1, 2, 3]);
    assert_eq!(home.days(&home.volume_id, 6), [1, 2, 3, 4, 5, 6]);
    let fourth = home.region.snapshot(&snapshots[3].snapshot_id).unwrap();
    let fourth = home.region.create_volume(None, Some(&fourth), Vec::new(), Provisioned::default()).unwrap().volume_id;
    assert_eq!(home.days(&fourth, 6), [1, 2, 3, 4]);
    // Made of what was known before: what is there now counts.
    let sixth =
        home.region.create_volume(None, Some(&snapshots[5]), Vec::new(), Provisioned::default()).unwrap().volume_id;
    assert_eq!(home.days(&sixth, 6), [1, 2, 3, 4, 5, 6]);
    assert_eq!(home.region.prune().unwrap(), crate::region::prune::Pruned::default());
}

#[test]
fn snapshots_that_are_all_kept_meet_no_wall() {
    let mut home = Home::new();
    let id = home.volume_id.clone();
    let mut kept = Vec::new();
    for day in 1..=9 {
        home.region.make_room(&id, 5).unwrap();
        kept.push(home.day(day));
        assert!(home.layers().len() < 5, "{:?}", home.layers());
    }
    assert_eq!(home.days(&id, 9), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for (day, snapshot) in (1..=9u8).zip(&kept) {
        let snapshot = home.region.snapshot(&snapshot.snapshot_id).unwrap();
        let made =
            home.region.create_volume(None, Some(&snapshot), Vec::new(), Provisioned::default()).unwrap().volume_id;
        assert_eq!(home.days(&made, 9), (1..=day).collect::<Vec<_>>());
        home.region.delete_volume(&made).unwrap();
    }
    // Nothing is left of any of it.
    home.region.delete_volume(&id).unwrap();
    for snapshot in kept {
        home.region.delete_snapshot(&snapshot.snapshot_id).unwrap();
    }
    assert_eq!(home.files(), 0);
}

#[test]
fn a_volume_whose_old_snapshots_are_deleted_meets_no_wall_and_copies_seldom() {
    let mut home = Home::new();
    let id = home.volume_id.clone();
    let (mut kept, mut folds) = (std::collections::VecDeque::new(), 0);
    for day in 1..=30 {
        let before = home.layers().len();
        home.region.make_room(&id, 8).unwrap();
        folds += usize::from(home.layers().len() < before);
        kept.push_back(home.day(day));
        if kept.len() > 2 {
            home.region.delete_snapshot(&kept.pop_front().unwrap().snapshot_id).unwrap();
        }
    }
    assert!((3..=8).contains(&folds), "{folds}");
    assert_eq!(home.days(&id, 30), (1..=30).collect::<Vec<_>>());
}

#[test]
fn layers_that_are_about_to_be_opened_by_name_stay() {
    let mut home = Home::new();
    let snapshots: Vec<_> = (1..=3).map(|day| home.day(day)).collect();
    for snapshot in &snapshots {
        home.region.delete_snapshot(&snapshot.snapshot_id).unwrap();
    }
    let attached = |state| super::super::model::Attachment {
        instance_id: "i-1".to_owned(),
        device: "/dev/sdf".to_owned(),
        state,
        attach_time: String::new(),
        delete_on_termination: false,
    };
    let id = home.volume_id.clone();
    home.region.edit(&id, |volume| volume.attachments = vec![attached(AttachmentState::Attaching)]).unwrap();
    let (layers, files) = (home.layers(), home.files());
    home.region.fold().unwrap();
    assert_eq!((home.layers(), home.files()), (layers, files));
    home.region.edit(&id, |volume| volume.attachments = vec![attached(AttachmentState::Attached)]).unwrap();
    home.region.fold().unwrap();
    assert_eq!((home.layers().len(), home.files()), (1, 4));
    assert_eq!(home.days(&id, 3), [1, 2, 3]);
}

#[test]
fn a_merge_that_fails_changes_nothing() {
    let mut home = Home::new();
    let snapshots: Vec<_> = (1..=3).map(|day| home.day(day)).collect();
    for snapshot in &snapshots {
        home.region.delete_snapshot(&snapshot.snapshot_id).unwrap();
    }
    let layers = home.layers();
    let damaged = home.region.layer(&layers[1]).map;
    let file = std::fs::File::options().read(true).write(true).open(damaged).unwrap();
    file.write_all_at(b"X", 0).unwrap();
    assert_eq!(home.region.fold().unwrap(), Folded::default());
    file.write_all_at(b"a", 0).unwrap();
    assert_eq!((home.layers(), home.files()), (layers, 8));
    assert!(home.layers().len() < MOST_LAYERS);
    assert_eq!(home.days(&home.volume_id, 3), [1, 2, 3]);
}
