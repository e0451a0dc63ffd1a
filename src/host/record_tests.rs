use super::*;

#[test]
fn a_run_is_appended_to_the_runs_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i-1");
    for text in ["first\n", "second\n"] {
        Recorder::open(&path).unwrap().console(text.as_bytes()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path.join(CONSOLE_LOG)).unwrap(), "first\nsecond\n");
}

#[test]
fn a_guest_that_never_stops_writing_fills_two_files_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::open(dir.path()).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..40 {
        recorder.console(&block).unwrap();
    }
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    assert_eq!(size("console.log.1"), MAX_FILE);
    assert_eq!(size("console.log"), (40 << 20) - 2 * MAX_FILE);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
}
