use super::*;

#[test]
fn frames_come_back_and_long_payloads_are_cut() {
    let mut wire = Vec::new();
    send(&mut wire, Kind::Hello, MACHINE, b"").unwrap();
    send(&mut wire, Kind::Stdout, 0x0102_0304, &vec![7; MAX_PAYLOAD + 1]).unwrap();
    let (mut wire, mut payload) = (&wire[..], Vec::new());
    assert_eq!(receive(&mut wire, &mut payload).unwrap(), Some(Frame { kind: Kind::Hello, stream: MACHINE }));
    assert!(payload.is_empty());
    let output = Some(Frame { kind: Kind::Stdout, stream: 0x0102_0304 });
    assert_eq!(receive(&mut wire, &mut payload).unwrap(), output);
    assert_eq!(payload.len(), MAX_PAYLOAD);
    assert_eq!(receive(&mut wire, &mut payload).unwrap(), output);
    assert_eq!(payload, [7]);
    assert_eq!(receive(&mut wire, &mut payload).unwrap(), None);
}

#[test]
fn values_come_back_however_many_parts_they_take() {
    let mut wire = Vec::new();
    let value = vec!["x".repeat(50_000); 3];
    send_value(&mut wire, Kind::Message, 1, &value).unwrap();
    send(&mut wire, Kind::Stdout, 1, b"").unwrap();
    let mut wire = &wire[..];
    assert_eq!(receive_value::<Vec<String>>(&mut wire, Kind::Message).unwrap(), value);
    assert!(receive_value::<Vec<String>>(&mut wire, Kind::Message).unwrap_err().to_string().contains("Stdout"));
}

#[test]
fn bad_frames_are_refused() {
    let mut payload = Vec::new();
    for (wire, kind) in [
        (&[99u8, 0, 0, 0, 0, 0, 0, 0, 0][..], io::ErrorKind::InvalidData),
        (&[17, 0, 0, 0, 0, 1, 0, 1, 0][..], io::ErrorKind::InvalidData),
        (&[17, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..], io::ErrorKind::InvalidData),
        (&[17, 0, 0, 0, 0, 2, 0, 0, 0, 1][..], io::ErrorKind::UnexpectedEof),
        (&[17, 2][..], io::ErrorKind::UnexpectedEof),
    ] {
        assert_eq!(receive(&mut &wire[..], &mut payload).unwrap_err().kind(), kind, "{wire:?}");
    }
}

#[test]
fn room_names_its_stream() {
    assert_eq!(read_room(&room(Kind::Stdin, 70_000)), Some((Kind::Stdin, 70_000)));
    assert_eq!(read_room(&[0, 1, 0, 0, 0]), None);
    assert_eq!(read_room(b""), None);
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics(wire in proptest::collection::vec(0u8.., 0..200)) {
        let (mut wire, mut payload) = (&wire[..], Vec::new());
        while let Ok(Some(_)) = receive(&mut wire, &mut payload) {
            let _ = read_room(&payload);
        }
    }
}
