use super::super::model::VolumeState;
use super::super::paths::Paths;
use super::super::store::InstanceRow;
use super::*;

fn region(home: &tempfile::TempDir) -> Region {
    Region::open(Paths::under(home.path())).unwrap()
}

fn mends(region: &Region) -> Vec<String> {
    region.leftovers().unwrap().into_iter().map(|leftover| leftover.mend).collect()
}

#[test]
fn a_tidy_region_has_none() {
    let home = tempfile::tempdir().unwrap();
    let mut region = region(&home);
    let volume = region.create_volume(Some(1 << 30), None, Vec::new(), Default::default()).unwrap().volume_id;
    region.create_snapshot(&volume, "", Vec::new()).unwrap();
    assert_eq!(region.leftovers().unwrap(), []);
}

#[test]
fn each_leftover_is_told_with_what_mends_it() {
    let home = tempfile::tempdir().unwrap();
    let mut region = region(&home);
    let volume = region.create_volume(Some(1 << 30), None, Vec::new(), Default::default()).unwrap().volume_id;
    let snapshot = region.create_snapshot(&volume, "", Vec::new()).unwrap();
    let frozen = region.layer(&snapshot.amiable.layers.frozen[0]);
    fs::write(region.paths().volumes().join("vol-x.map"), "x").unwrap();
    assert_eq!(mends(&region), ["amiable prune, in an hour"]);
    let file = fs::File::options().write(true).open(region.paths().volumes().join("vol-x.map")).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7200)).unwrap();
    assert_eq!(mends(&region), ["amiable prune"]);
    region.prune().unwrap();

    frozen.remove().unwrap();
    let both = [format!("amiable volume rm {volume}"), format!("amiable snapshot rm {}", snapshot.snapshot_id)];
    assert_eq!(mends(&region), both);
    // What it says does it.
    region.delete_volume(&volume).unwrap();
    region.delete_snapshot(&snapshot.snapshot_id).unwrap();
    assert_eq!(region.leftovers().unwrap(), []);
}

#[test]
fn a_volume_of_an_instance_that_is_gone_can_be_detached() {
    let home = tempfile::tempdir().unwrap();
    let mut region = region(&home);
    let volume = region.create_volume(Some(1 << 30), None, Vec::new(), Default::default()).unwrap().volume_id;
    let attachment = super::super::model::Attachment {
        instance_id: "i-1".to_owned(),
        device: "/dev/sdf".to_owned(),
        state: AttachmentState::Attached,
        attach_time: String::new(),
        delete_on_termination: false,
    };
    region.edit(&volume, |volume| volume.attachments = vec![attachment]).unwrap();
    assert_eq!(mends(&region), [format!("amiable volume detach {volume}")]);
    region.detach_volume(&volume, false).unwrap();
    assert_eq!(region.leftovers().unwrap(), []);
    assert_eq!(region.volume(&volume).unwrap().state, VolumeState::Available);
}

#[test]
fn terminated_instances_are_forgotten_after_an_hour() {
    let home = tempfile::tempdir().unwrap();
    let mut region = region(&home);
    let now = jiff::Timestamp::now();
    for (id, minutes) in [("i-old", 61), ("i-young", 59)] {
        let ended = super::super::time_text(now - std::time::Duration::from_secs(minutes * 60));
        let row =
            InstanceRow { instance_id: id, image_id: "ami-1", state: "terminated", private_ip: None, launched: "2026" };
        let body = serde_json::json!({ "InstanceId": id, "Amiable": { "Ended": ended } });
        region.store.tables().put_instance(row, &body).unwrap();
        fs::create_dir_all(region.paths().instance(id)).unwrap();
    }
    region.forget_terminated().unwrap();
    let left: Vec<serde_json::Value> = region.store.tables().instances().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["InstanceId"], "i-young");
    assert!(!region.paths().instance("i-old").exists() && region.paths().instance("i-young").exists());
}
