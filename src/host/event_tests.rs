use super::*;

#[test]
fn events_cross_the_wire_whole() {
    let bytes: Vec<u8> = (0..=255).collect();
    let mut wire = Vec::new();
    write_line(&mut wire, &Event::Console { data: bytes.clone() }).unwrap();
    write_line(&mut wire, &Event::Stage { stage: Stage::Dhcp, detail: None }).unwrap();
    wire.extend(b"garbage\n");
    write_line(&mut wire, &Event::Ended { end: End::Crashed { text: "triple fault".into() } }).unwrap();
    let mut seen = Vec::new();
    read_events(&wire[..], |event| {
        seen.push(event);
        true
    })
    .unwrap();
    assert!(matches!(&seen[0], Event::Console { data } if *data == bytes));
    assert!(matches!(&seen[1], Event::Stage { stage: Stage::Dhcp, detail: None }));
    assert!(matches!(&seen[2], Event::Warning { text } if text.contains("garbage")));
    assert!(matches!(&seen[3], Event::Ended { end: End::Crashed { .. } }));
}

#[test]
fn orders_that_are_none_are_passed_over() {
    let mut wire = b"{}\nnot json\n".to_vec();
    write_line(&mut wire, &Control::Input { data: b"ls\r".to_vec() }).unwrap();
    write_line(&mut wire, &Control::Stop).unwrap();
    write_line(&mut wire, &Control::Sync).unwrap();
    let mut seen = Vec::new();
    read_values(&wire[..], |control: Control| {
        seen.push(control.clone());
        !matches!(control, Control::Stop)
    })
    .unwrap();
    assert_eq!(seen.len(), 2, "nothing is read after the last wanted order: {seen:?}");
}

#[test]
fn an_endless_line_does_not_grow_without_bound() {
    let endless = io::repeat(b'x').take(5 * MAX_LINE);
    let mut warnings = 0;
    read_events(endless, |event| {
        assert!(matches!(&event, Event::Warning { text } if text.len() < 300));
        warnings += 1;
        true
    })
    .unwrap();
    assert_eq!(warnings, 5);
}
