use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_directory_with_a_long_path_and_a_stale_socket_is_no_trouble() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("d".repeat(200));
    assert!(connect(&directory).unwrap().is_none());
    std::fs::create_dir(&directory).unwrap();
    assert!(connect(&directory).unwrap().is_none());
    drop(listen(&directory).unwrap());
    assert!(path(&directory).exists());
    assert!(connect(&directory).unwrap().is_none());
    let listener = listen(&directory).unwrap();
    assert!(connect(&directory).unwrap().is_some());
    listener.accept().unwrap();
}

#[test]
fn what_is_no_directory_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(file.as_file().metadata().unwrap().permissions().mode() & 0o200 != 0);
    assert!(connect(file.path()).is_err());
}
