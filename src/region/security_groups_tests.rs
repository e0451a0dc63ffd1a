use super::*;
use crate::ec2::security_group::{Cidr, Protocol};
use crate::region::paths::Paths;

fn region() -> (tempfile::TempDir, Region) {
    let home = tempfile::tempdir().unwrap();
    let region = Region::open(Paths::under(home.path())).unwrap();
    (home, region)
}

fn ssh() -> Permission {
    Permission::new(Protocol::Tcp, Some((22, 22)), Cidr::ANY_IPV4.into()).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, RegionError>) -> Option<&'static str> {
    result.unwrap_err().code()
}

#[test]
fn the_default_group_is_always_there() {
    let (_home, mut region) = region();
    let default = region.security_group("default").unwrap();
    assert_eq!(region.security_groups().unwrap(), std::slice::from_ref(&default));
    assert_eq!(region.security_group(&default.group_id[..8]).unwrap(), default);
    assert_eq!(code(region.delete_security_group(&default.group_id)), Some("CannotDelete"));
    assert_eq!(code(region.create_security_group("default", "mine")), Some("InvalidParameterValue"));
    // Changed, it is the same group.
    region.create_security_group("web", "web").unwrap();
    let all = [Permission::all(Cidr::ANY_IPV4.into()), Permission::all(Cidr::ANY_IPV6.into())];
    region.revoke_security_group(&default.group_id, Direction::Ingress, &all, &[]).unwrap();
    let groups = region.security_groups().unwrap();
    assert_eq!((groups.len(), groups[0].group_name.as_str()), (2, "default"));
    assert_eq!(groups[0].rules(Direction::Ingress).count(), 1);
    assert_eq!(region.security_group("default").unwrap(), groups[0]);
}

#[test]
fn groups_are_made_found_changed_and_deleted() {
    let (_home, mut region) = region();
    let web = region.create_security_group("web", "for the web").unwrap();
    assert_eq!(code(region.create_security_group("web", "twice")), Some("InvalidGroup.Duplicate"));
    for key in ["web", &web.group_id, &web.group_id[..12]] {
        assert_eq!(region.security_group(key).unwrap().group_id, web.group_id);
    }
    assert_eq!(code(region.security_group("sg-")), Some("InvalidGroupId.Malformed"));
    for key in ["", "nobody", "sg-0123456789abcdef0"] {
        assert_eq!(code(region.security_group(key)), Some("InvalidGroup.NotFound"), "{key:?}");
    }
    let id = web.group_id.as_str();
    region.authorize_security_group(id, Direction::Ingress, vec![ssh()], None).unwrap();
    let again = region.authorize_security_group(id, Direction::Ingress, vec![ssh()], None);
    assert_eq!(code(again), Some("InvalidPermission.Duplicate"));
    let nobody = Permission::all(Peer::ReferencedGroupId("sg-0123456789abcdef0".to_owned()));
    assert_eq!(
        code(region.authorize_security_group(id, Direction::Ingress, vec![nobody], None)),
        Some("InvalidGroup.NotFound")
    );
    assert_eq!(region.security_group(id).unwrap().rules.len(), 2);
    region.revoke_security_group(id, Direction::Ingress, &[ssh()], &[]).unwrap();
    let gone = region.revoke_security_group(id, Direction::Ingress, &[ssh()], &[]);
    assert_eq!(code(gone), Some("InvalidPermission.NotFound"));
    region.delete_security_group(id).unwrap();
    assert_eq!(code(region.delete_security_group(id)), Some("InvalidGroup.NotFound"));
}

#[test]
fn a_group_that_a_rule_names_stays() {
    let (_home, mut region) = region();
    let web = region.create_security_group("web", "web").unwrap().group_id;
    let db = region.create_security_group("db", "db").unwrap().group_id;
    let from = |id: &str| vec![Permission::all(Peer::ReferencedGroupId(id.to_owned()))];
    region.authorize_security_group(&db, Direction::Ingress, from(&web), None).unwrap();
    // Its own rules do not keep it.
    region.authorize_security_group(&db, Direction::Ingress, from(&db), None).unwrap();
    assert_eq!(code(region.delete_security_group(&web)), Some("DependencyViolation"));
    region.delete_security_group(&db).unwrap();
    region.delete_security_group(&web).unwrap();
}

#[test]
fn an_instance_is_in_one_to_five_groups() {
    let (_home, mut region) = region();
    let names: Vec<String> = (0..6).map(|n| format!("g{n}")).collect();
    for name in &names {
        region.create_security_group(name, name).unwrap();
    }
    let tables = region.store.tables();
    assert_eq!(resolve(&tables, &[]).unwrap()[0].group_name, "default");
    assert_eq!(resolve(&tables, &names[..5]).unwrap().len(), 5);
    assert_eq!(code(resolve(&tables, &names)), Some("SecurityGroupsPerInterfaceLimitExceeded"));
    assert_eq!(code(resolve(&tables, &["g1".to_owned(), "g1".to_owned()])), Some("InvalidParameterValue"));
    assert_eq!(code(resolve(&tables, &["g1".to_owned(), "g9".to_owned()])), Some("InvalidGroup.NotFound"));
}

#[test]
fn what_was_not_told_is_told_until_it_was() {
    let (_home, mut region) = region();
    let tables = region.store.tables();
    tables.security_groups_changed(["i-1", "i-2"]).unwrap();
    tables.security_groups_changed(["i-2"]).unwrap();
    assert_eq!(tables.security_group_version().unwrap(), 2);
    tables.told_groups("i-1", 1).unwrap();
    tables.told_groups("i-2", 1).unwrap();
    assert_eq!(tables.untold_groups().unwrap(), ["i-2"], "it was told of an older state");
    // It has no process: nobody needs to know.
    region.tell_groups().unwrap();
    assert!(region.store.tables().untold_groups().unwrap().is_empty());
}
