use super::*;
use crate::region::paths::Paths;

fn region(home: &tempfile::TempDir) -> Region {
    Region::open(Paths::under(home.path())).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, RegionError>) -> Option<&'static str> {
    result.unwrap_err().code()
}

#[test]
fn a_volume_goes_through_a_snapshot_into_another() {
    let home = tempfile::tempdir().unwrap();
    let mut region = region(&home);
    assert_eq!(code(region.create_volume(None, None, Vec::new(), Provisioned::default())), Some("MissingParameter"));
    let volume = region.create_volume(Some(2 << 30), None, Vec::new(), Provisioned::default()).unwrap();
    assert_eq!((volume.size, volume.state), (2, VolumeState::Available));
    let snapshot = region.create_snapshot(&volume.volume_id, "first", Vec::new()).unwrap();
    assert_eq!(
        code(region.create_volume(Some(1 << 30), Some(&snapshot), Vec::new(), Provisioned::default())),
        Some("InvalidParameterValue")
    );
    let copy = region.create_volume(Some(3 << 30), Some(&snapshot), Vec::new(), Provisioned::default()).unwrap();
    assert_eq!(copy.snapshot_id, snapshot.snapshot_id);

    // What the snapshot is made of lives as long as somebody needs it.
    let frozen = region.layer(&snapshot.amiable.layers.frozen[0]);
    region.delete_snapshot(&snapshot.snapshot_id).unwrap();
    region.delete_volume(&volume.volume_id).unwrap();
    assert!(frozen.map.exists());
    region.delete_volume(&copy.volume_id).unwrap();
    assert!(!frozen.map.exists() && !frozen.data.exists());
    assert_eq!(std::fs::read_dir(region.paths().volumes()).unwrap().count(), 0);
    assert_eq!(code(region.volume(&copy.volume_id)), Some("InvalidVolume.NotFound"));
    assert_eq!(code(region.snapshot(&snapshot.snapshot_id)), Some("InvalidSnapshot.NotFound"));
}

#[test]
fn volumes_grow_and_do_not_shrink() {
    let home = tempfile::tempdir().unwrap();
    let mut region = region(&home);
    let id = region.create_volume(Some(2 << 30), None, Vec::new(), Provisioned::default()).unwrap().volume_id;
    assert_eq!(code(region.resize_volume(&id, 1 << 30)), Some("InvalidParameterValue"));
    assert_eq!(region.resize_volume(&id, 5 << 30).unwrap().size, 5);
    assert_eq!(region.volume(&id).unwrap().amiable.size_in_bytes, 5 << 30);
    assert_eq!(crate::storage::chain::size_of(&region.layer(&id)).unwrap(), 5 << 30);
}

#[test]
fn a_snapshot_that_was_cut_short_is_ended_either_way() {
    use super::super::model::NextLayer;
    let home = tempfile::tempdir().unwrap();
    let mut region = region(&home);
    for happened in [false, true] {
        let volume = region.create_volume(Some(1 << 30), None, Vec::new(), Provisioned::default()).unwrap();
        let id = volume.volume_id.clone();
        // Killed after the intention was recorded, before or after the volume went on in its new layer.
        let next = NextLayer { layer: format!("{id}-next"), snapshot_id: "snap-1".to_owned() };
        region.edit(&id, |volume| volume.amiable.next = Some(next)).unwrap();
        if happened {
            let live =
                region.chain(&volume.amiable.layers).open_volume(&region.layer(&id), OpenMode::ReadWrite).unwrap();
            live.snapshot(&region.layer(&format!("{id}-next"))).unwrap();
        }
        region.finish_snapshots().unwrap();
        let facts = region.volume(&id).unwrap().amiable;
        assert_eq!(facts.next, None);
        let expected = if happened { format!("{id}-next") } else { id.clone() };
        assert_eq!((facts.top.as_str(), facts.layers.frozen.len()), (expected.as_str(), usize::from(happened)));
        let chain = region.chain(&facts.layers);
        chain.open_volume(&region.layer(&facts.top), OpenMode::ReadWrite).unwrap();
        region.delete_volume(&id).unwrap();
        assert_eq!(std::fs::read_dir(region.paths().volumes()).unwrap().count(), 0);
    }
}

#[test]
fn a_volume_of_an_older_store_is_read() {
    let body = r#"{"VolumeId":"vol-1","SizeInBytes":3221225472,"ImageId":"ami-1","InstanceId":"i-1","CreateTime":"x"}"#;
    let volume = serde_json::from_str::<Volume>(body).unwrap().current();
    assert_eq!((volume.size, volume.amiable.size_in_bytes, volume.amiable.slot), (3, 3 << 30, 4));
    assert_eq!(volume.provisioned(), Provisioned::default());
    let again = serde_json::to_string(&volume).unwrap().replace("\"gp3\"", "\"\"");
    assert_eq!(serde_json::from_str::<Volume>(&again).unwrap().provisioned(), Provisioned::default());
    assert_eq!((volume.amiable.top.as_str(), volume.amiable.layers.image_id.as_deref()), ("vol-1", Some("ami-1")));
}
