use super::super::lock::is_held;
use super::*;

#[test]
fn a_value_and_a_file_arrive_together() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let lock = InstanceLock::take(&path).unwrap().unwrap();
    let preparation =
        Preparation { memory_mib: 1024, cores: 1, threads_per_core: 2, kernel: Some("/boot/vmlinux".into()) };
    send(&ours, &Some(&preparation), None).unwrap();
    send(&ours, &"the order", Some(lock.file())).unwrap();
    drop((ours, lock));
    let (first, none) = receive::<Option<Preparation>>(&theirs).unwrap().unwrap();
    assert_eq!(first, Some(preparation));
    assert!(none.is_none());
    assert!(is_held(&path), "by the message that is on its way");
    let (order, file) = receive::<String>(&theirs).unwrap().unwrap();
    assert_eq!(order, "the order");
    assert!(is_held(&path));
    drop(file);
    assert!(!is_held(&path));
    assert!(receive::<String>(&theirs).unwrap().is_none(), "the sender is gone");
}

#[test]
fn what_is_too_long_or_cut_off_is_an_error() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(&(MAX_ORDER + 1).to_le_bytes()).unwrap();
    assert_eq!(receive::<String>(&theirs).unwrap_err().kind(), io::ErrorKind::InvalidData);
    ours.write_all(&[9, 0, 0, 0, b'"']).unwrap();
    drop(ours);
    assert_eq!(receive::<String>(&theirs).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
