use super::*;

#[test]
fn frames_come_back_and_long_payloads_are_cut() {
    let mut wire = Vec::new();
    send(&mut wire, Kind::Hello, b"").unwrap();
    send(&mut wire, Kind::Stdout, &vec![7; MAX_PAYLOAD + 1]).unwrap();
    let (mut wire, mut payload) = (&wire[..], Vec::new());
    assert_eq!(receive(&mut wire, &mut payload).unwrap(), Some(Kind::Hello));
    assert!(payload.is_empty());
    assert_eq!(receive(&mut wire, &mut payload).unwrap(), Some(Kind::Stdout));
    assert_eq!(payload.len(), MAX_PAYLOAD);
    assert_eq!(receive(&mut wire, &mut payload).unwrap(), Some(Kind::Stdout));
    assert_eq!(payload, [7]);
    assert_eq!(receive(&mut wire, &mut payload).unwrap(), None);
}

#[test]
fn bad_frames_are_refused() {
    let mut payload = Vec::new();
    for (wire, kind) in [
        (&[99u8, 0, 0, 0, 0][..], io::ErrorKind::InvalidData),
        (&[17, 1, 0, 1, 0][..], io::ErrorKind::InvalidData),
        (&[17, 0xff, 0xff, 0xff, 0xff][..], io::ErrorKind::InvalidData),
        (&[17, 2, 0, 0, 0, 1][..], io::ErrorKind::UnexpectedEof),
        (&[17, 2][..], io::ErrorKind::UnexpectedEof),
    ] {
        assert_eq!(receive(&mut &wire[..], &mut payload).unwrap_err().kind(), kind, "{wire:?}");
    }
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics(wire in proptest::collection::vec(0u8.., 0..200)) {
        let (mut wire, mut payload) = (&wire[..], Vec::new());
        while let Ok(Some(_)) = receive(&mut wire, &mut payload) {}
    }
}
