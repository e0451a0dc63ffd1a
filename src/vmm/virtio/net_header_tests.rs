use proptest::prelude::*;

use super::*;

const ALL: u64 = F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_HOST_TSO4;

/// An Ethernet frame with IPv4 and TCP headers and `payload` bytes, whose checksum field holds the pseudo header's sum.
fn tcp_frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 54 + payload];
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
    frame[14] = 0x45;
    frame[46] = 5 << 4;
    frame[50..52].copy_from_slice(&0x1234u16.to_be_bytes());
    frame.iter_mut().skip(54).enumerate().for_each(|(i, byte)| *byte = i as u8);
    frame
}

const TCP_SUM: PartialChecksum = PartialChecksum { start: 34, offset: 16 };

#[test]
fn what_the_driver_asks_for_is_understood() {
    let frame = tcp_frame(4000);
    let plain = [0; HEADER_SIZE];
    assert_eq!(parse(&plain, &frame, 0), Some(Offload::default()));
    let tso = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    let expected = Offload { checksum: Some(TCP_SUM), tcp_segment: Some(1460), checksum_valid: false };
    assert_eq!(parse(&tso, &frame, ALL), Some(expected));
    let ecn = [1, 0x81, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    assert_eq!(parse(&ecn, &frame, ALL), Some(expected));
}

#[test]
fn what_was_not_negotiated_or_cannot_be_is_no_frame() {
    let frame = tcp_frame(100);
    let tso = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    assert_eq!(parse(&tso, &frame, F_CSUM), None);
    assert_eq!(parse(&tso, &frame, F_HOST_TSO4), None);
    let without_checksum = [0, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    assert_eq!(parse(&without_checksum, &frame, ALL), None);
    let no_size = [1, 1, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    assert_eq!(parse(&no_size, &frame, ALL), None);
    for other_kind in [2, 3, 4, 5, 0x7f] {
        let header = [1, other_kind, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
        assert_eq!(parse(&header, &frame, ALL), None);
    }
    for (start, offset) in [(153u16, 0u16), (0, 153), (65535, 65535)] {
        let [a, b] = start.to_le_bytes();
        let [c, d] = offset.to_le_bytes();
        assert_eq!(parse(&[1, 0, 0, 0, 0, 0, a, b, c, d, 0, 0], &frame, ALL), None);
    }
    assert!(parse(&[1, 0, 0, 0, 0, 0, 152, 0, 0, 0, 0, 0], &frame, ALL).is_some());
}

#[test]
fn large_frames_go_to_drivers_that_take_them() {
    let offload = Offload { checksum: Some(TCP_SUM), tcp_segment: Some(1460), checksum_valid: false };
    let mut frame = Frame { bytes: tcp_frame(4000), offload };
    let mut header = build(&mut frame, ALL).unwrap();
    set_buffers(&mut header, 3);
    assert_eq!(header, [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 3, 0]);
    assert_eq!(frame.bytes, tcp_frame(4000));
    assert!(build(&mut frame, F_GUEST_CSUM).is_none());
    frame.bytes[12] = 0x86;
    assert!(build(&mut frame, ALL).is_none(), "not IPv4");
    frame.offload.checksum = None;
    assert!(build(&mut frame, ALL).is_none());
}

#[test]
fn checksums_are_finished_for_drivers_that_would_not() {
    for payload in [3, 4] {
        let offload = Offload { checksum: Some(TCP_SUM), ..Offload::default() };
        let mut frame = Frame { bytes: tcp_frame(payload), offload };
        assert_eq!(build(&mut frame, 0), Some([0; HEADER_SIZE]));
        // Over everything from the start on, and the pseudo header's sum, the sum is now "all ones".
        let mut padded = frame.bytes[34..].to_vec();
        padded.push(0);
        let sum = padded.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>() + 0x1234;
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        let once = frame.bytes.clone();
        assert!(build(&mut frame, 0).is_some());
        assert_eq!(frame.bytes, once, "only once");
    }
    let offload = Offload { checksum: Some(PartialChecksum { start: 60, offset: 0 }), ..Offload::default() };
    assert!(build(&mut Frame { bytes: tcp_frame(7), offload }, 0).is_none(), "out of the frame");
}

#[test]
fn verified_checksums_are_told_if_the_driver_cares() {
    let offload = Offload { checksum_valid: true, ..Offload::default() };
    let mut frame = Frame { bytes: tcp_frame(1), offload };
    assert_eq!(build(&mut frame, ALL).unwrap()[0], DATA_VALID);
    assert_eq!(build(&mut frame, 0).unwrap()[0], 0);
}

proptest! {
    #[test]
    fn any_header_and_frame_parse_without_harm(header: [u8; HEADER_SIZE], frame: Vec<u8>, features: u64) {
        if let Some(offload) = parse(&header, &frame, features) {
            let mut back = Frame { bytes: frame, offload };
            let _ = build(&mut back, features);
            let _ = build(&mut back, 0);
        }
    }
}
