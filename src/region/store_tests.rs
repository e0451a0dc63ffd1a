use serde_json::{Value, json};

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("deep/down/region.sqlite3")).unwrap();
    (dir, store)
}

fn row<'a>(id: &'a str, ip: Option<&'a str>) -> InstanceRow<'a> {
    InstanceRow {
        instance_id: id,
        image_id: "ami-1",
        state: "pending",
        private_ip: ip,
        launched: "2026-11-20T00:00:00Z",
    }
}

#[test]
fn images_are_found_by_name_and_by_the_start_of_their_id() {
    let (_dir, store) = store();
    let tables = store.tables();
    tables.put_image("ami-0a1", "debian-12", &json!({"n": 1})).unwrap();
    tables.put_image("ami-0b2", "ami-0a1", &json!({"n": 2})).unwrap();
    assert_eq!(tables.find_images::<Value>("debian-12").unwrap(), [json!({"n": 1})]);
    assert_eq!(tables.find_images::<Value>("ami-0b").unwrap(), [json!({"n": 2})]);
    assert_eq!(tables.find_images::<Value>("ami-0").unwrap().len(), 2);
    // An exact name comes before the start of an id.
    assert_eq!(tables.find_images::<Value>("ami-0a1").unwrap()[0], json!({"n": 2}));
    assert!(tables.find_images::<Value>("%").unwrap().is_empty());
    assert!(tables.put_image("ami-0c3", "debian-12", &json!({})).is_err(), "a name is unique");
}

#[test]
fn instances_are_found_by_their_name_tag() {
    let (_dir, store) = store();
    let tables = store.tables();
    let body = json!({"Tags": [{"Key": "Name", "Value": "web"}, {"Key": "x", "Value": "y"}]});
    tables.put_instance(row("i-01", Some("172.31.0.10")), &body).unwrap();
    tables.put_instance(row("i-02", Some("172.31.0.11")), &json!({"Tags": []})).unwrap();
    assert_eq!(tables.find_instances::<Value>("web").unwrap().len(), 1);
    assert_eq!(tables.find_instances::<Value>("y").unwrap().len(), 0);
    assert_eq!(tables.find_instances::<Value>("i-0").unwrap().len(), 2);
}

#[test]
fn an_address_belongs_to_one_instance_until_it_is_terminated() {
    let (_dir, store) = store();
    let tables = store.tables();
    tables.put_instance(row("i-01", Some("172.31.0.10")), &json!({})).unwrap();
    assert!(tables.is_address_used("172.31.0.10").unwrap());
    assert!(tables.put_instance(row("i-02", Some("172.31.0.10")), &json!({})).is_err());
    tables.put_instance(row("i-01", None), &json!({})).unwrap();
    tables.put_instance(row("i-02", Some("172.31.0.10")), &json!({})).unwrap();
}

#[test]
fn a_failed_transaction_leaves_nothing() {
    let (_dir, mut store) = store();
    let result: Result<(), StoreError> = store.transaction(|tables| {
        tables.put_image("ami-1", "a", &json!({}))?;
        tables.put_image("ami-2", "a", &json!({}))
    });
    assert!(result.is_err());
    assert!(store.tables().images::<Value>().unwrap().is_empty());
}

#[test]
fn a_store_of_the_future_is_left_alone() {
    let (dir, store) = store();
    store.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let error = Store::open(&dir.path().join("deep/down/region.sqlite3")).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
}

#[test]
fn two_processes_make_one_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("region.sqlite3");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || {
                let store = Store::open(path).unwrap();
                store.tables().put_image(&format!("ami-{n}"), &format!("name-{n}"), &json!({"n": n})).unwrap();
            });
        }
    });
    assert_eq!(Store::open(&path).unwrap().tables().images::<Value>().unwrap().len(), 8);
}

#[test]
fn a_closed_store_keeps_a_short_log_and_no_long_one() {
    let (dir, store) = store();
    let path = dir.path().join("deep/down/region.sqlite3");
    let log = || std::fs::metadata(path.with_extension("sqlite3-wal")).unwrap().len();
    store.tables().set_setting("a", "1").unwrap();
    drop(store);
    assert!((1..LONG_LOG).contains(&log()), "{}", log());
    let store = Store::open(&path).unwrap();
    assert_eq!(store.tables().setting("a").unwrap().as_deref(), Some("1"), "what only the log has");
    store.tables().set_setting("b", &"x".repeat(LONG_LOG as usize)).unwrap();
    let other = Store::open(&path).unwrap();
    drop(store);
    drop(other);
    assert_eq!(log(), 0);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.tables().setting("b").unwrap().unwrap().len(), LONG_LOG as usize);
}

#[test]
fn instances_that_an_older_store_has_as_terminated_are_forgotten_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("region.sqlite3");
    let old = Connection::open(&path).unwrap();
    MIGRATIONS[..3].iter().for_each(|step| old.execute_batch(step).unwrap());
    old.pragma_update(None, "user_version", 3).unwrap();
    for (id, state) in [("i-1", "terminated"), ("i-2", "stopped")] {
        let sql = "INSERT INTO instance VALUES (?1, 'ami-1', ?2, NULL, '2026-11-20T00:00:00Z', '{\"Amiable\":{}}')";
        old.execute(sql, [id, state]).unwrap();
    }
    drop(old);
    let store = Store::open(&path).unwrap();
    let tables = store.tables();
    assert_eq!(tables.instances_ended_before("2026-11-20T00:00:01Z").unwrap(), ["i-1"]);
    assert_eq!(tables.instances_ended_before("2026-11-20T00:00:00Z").unwrap(), [""; 0]);
    tables.remove_instance("i-1").unwrap();
    assert_eq!(tables.instances::<Value>().unwrap().len(), 1);
}

#[test]
fn a_store_that_one_process_has_to_itself_is_read_and_written() {
    let (dir, store) = store();
    store.tables().put_image("ami-1", "a", &json!({"n": 1})).unwrap();
    drop(store);
    let path = dir.path().join("deep/down/region.sqlite3");
    let alone = Store::open_at(&path, true).unwrap();
    assert!(alone.is_cramped());
    assert_eq!(alone.tables().images::<Value>().unwrap().len(), 1);
    alone.tables().remove_image("ami-1").unwrap();
    drop(alone);
    assert!(Store::open(&path).unwrap().tables().images::<Value>().unwrap().is_empty());
}
