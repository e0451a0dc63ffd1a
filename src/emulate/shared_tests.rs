use super::*;
use crate::emulate::Kernel;

#[test]
fn a_directory_without_a_keeper_has_no_status_and_nothing_to_stop() {
    let temp = tempfile::tempdir().unwrap();
    assert!(SharedHost::status(temp.path()).unwrap().is_none());
    assert!(!SharedHost::stop(temp.path(), Duration::ZERO).unwrap());
    assert!(SharedHost::status(&temp.path().join("none")).unwrap().is_none());
}

#[test]
fn a_keeper_that_fails_before_it_listens_is_told_by_its_log() {
    let temp = tempfile::tempdir().unwrap();
    let kernel = Kernel { image: "/k".into(), modules: "/m".into() };
    let mut settings = Settings::new(temp.path().join("state"), kernel);
    // Not a keeper at all: `false` says nothing, and ends with 1.
    settings.binary = Some("/bin/false".into());
    std::fs::create_dir(&settings.directory).unwrap();
    std::fs::write(settings.directory.join(socket::LOG), "a reason\n").unwrap();
    let error = SharedHost::open(settings).unwrap_err();
    assert_eq!(error.to_string(), "the emulated host did not start: a reason");
}
