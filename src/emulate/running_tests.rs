use super::*;

#[test]
fn the_wait_status_is_handed_back_as_it_is() {
    assert_eq!(exit_status(&(7i32 << 8).to_le_bytes()).unwrap().code(), Some(7));
    assert_eq!(exit_status(&9i32.to_le_bytes()).unwrap().signal(), Some(9));
    assert!(exit_status(b"no").is_none());
}

#[test]
fn a_channel_that_ends_ends_the_command() {
    let (channel, other) = UnixStream::pair().unwrap();
    let mut running = Running::new(channel, None).unwrap();
    drop(other);
    assert!(matches!(running.wait(None), Err(Error::Lost { .. })));
}

#[test]
fn a_machine_of_another_version_is_not_used() {
    let (channel, mut other) = UnixStream::pair().unwrap();
    let running = Running::new(channel, None).unwrap();
    channel::send(&mut other, Kind::Hello, MACHINE, &(channel::VERSION + 1).to_le_bytes()).unwrap();
    assert!(matches!(running.wait_until_up(Duration::from_secs(60)), Err(Error::OtherVersion)));
}
