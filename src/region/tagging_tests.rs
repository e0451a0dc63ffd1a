use super::super::paths::Paths;
use super::*;

fn set(pairs: &[(&str, &str)]) -> TagChange {
    TagChange { set: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), remove: Vec::new() }
}

fn texts(tags: &[Tag]) -> Vec<String> {
    tags.iter().map(|tag| format!("{}={}", tag.key, tag.value)).collect()
}

#[test]
fn tags_are_set_replaced_and_taken_away() {
    let home = tempfile::tempdir().unwrap();
    let mut region = Region::open(Paths::under(home.path())).unwrap();
    let volume = region.create_volume(Some(1 << 30), None, Vec::new(), Default::default()).unwrap().volume_id;
    let snapshot = region.create_snapshot(&volume, "", Vec::new()).unwrap().snapshot_id;
    for id in [volume, snapshot] {
        let resource = region.resource(&id[..id.len() - 4]).unwrap();
        assert_eq!(resource.id(), id);
        region.change_tags(&resource, &set(&[("Name", "a"), ("env", "dev")])).unwrap();
        let tags = region.change_tags(&resource, &set(&[("env", "")])).unwrap();
        assert_eq!(texts(&tags), ["Name=a", "env="]);
        let remove = TagChange { set: Vec::new(), remove: vec!["env".to_owned(), "none".to_owned()] };
        assert_eq!(texts(&region.change_tags(&resource, &remove).unwrap()), ["Name=a"]);
        let many: Vec<(String, String)> = (0..50).map(|n| (format!("k{n}"), String::new())).collect();
        let error = region.change_tags(&resource, &TagChange { set: many, remove: Vec::new() }).unwrap_err();
        assert_eq!(error.code(), Some("TagLimitExceeded"));
        let error = region.change_tags(&resource, &set(&[("aws:x", "y")])).unwrap_err();
        assert_eq!(error.code(), Some("InvalidParameterValue"));
    }
    // Both have the name by now.
    assert_eq!(region.resource("a").unwrap_err().code(), Some("InvalidID"));
    assert_eq!(region.resource("nobody").unwrap_err().code(), Some("InvalidID"));
    assert_eq!(region.resource("vol-0nothing").unwrap_err().code(), Some("InvalidVolume.NotFound"));
}
