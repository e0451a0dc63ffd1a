//! Frames that no honest guest sends: no panic, and never more output than the queue holds.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::net::testing::*;
use crate::net::{NetConfig, wire};
use crate::vmm::backend::{NetBackend, Offload, PartialChecksum};

/// No way out: nothing that a random frame says reaches another machine.
fn closed() -> NetConfig {
    NetConfig { host_alias: Some((ALIAS, Ipv4Addr::LOCALHOST.into())), ..config() }
}

fn destination() -> impl Strategy<Value = Ipv4Addr> {
    let known = vec![GATEWAY, DNS, LINK_DNS, NTP, IMDS, GUEST, Ipv4Addr::new(10, 0, 0, 99), Ipv4Addr::LOCALHOST];
    let wide = vec![Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 252), Ipv4Addr::UNSPECIFIED];
    prop::sample::select([known, wide].concat())
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![prop::sample::select(vec![0, 22, 53, 67, 68, 80, 123, 5355]), 1000u16..1004]
}

/// A TCP segment with consistent lengths and checksum.
fn segment() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (any::<u8>(), any::<u32>(), any::<u32>(), any::<u16>());
    let options = prop::collection::vec(any::<u8>(), 0..40);
    let payload = prop::collection::vec(any::<u8>(), 0..100);
    (destination(), 1000u16..1004, port(), numbers, options, payload).prop_map(
        |(to, source, port, (flags, sequence, ack, window), mut options, payload)| {
            options.resize(options.len().div_ceil(4) * 4, 0);
            let mut bytes = [source.to_be_bytes(), port.to_be_bytes()].concat();
            // Small numbers hit windows.
            bytes.extend((sequence % 64).to_be_bytes());
            bytes.extend(ack.to_be_bytes());
            bytes.extend([(((20 + options.len()) / 4) << 4) as u8, flags & 0x3f]);
            bytes.extend(window.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(options);
            bytes.extend(payload);
            let sum = wire::transport_checksum(GUEST, to, wire::TCP, &bytes, &[]);
            bytes[16..18].copy_from_slice(&sum.to_be_bytes());
            ip_frame(GUEST, to, wire::TCP, &bytes)
        },
    )
}

fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..600);
    (destination(), port(), port(), payload)
        .prop_map(|(to, source, port, payload)| udp_frame((GUEST, source), (to, port), &payload))
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..100);
    (destination(), any::<u8>(), any::<u16>(), 0u16..4, payload).prop_map(|(to, protocol, fragment, ident, payload)| {
        let header = wire::Ipv4Header { source: GUEST, destination: to, protocol, ttl: 1, ident, fragment };
        ethernet(wire::ETHERTYPE_IPV4, &[&header.bytes(payload.len())[..], &payload].concat())
    })
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    let ethertype = prop::sample::select(vec![wire::ETHERTYPE_IPV4, wire::ETHERTYPE_ARP, wire::ETHERTYPE_IPV6, 0x8100]);
    let body = prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        segment(),
        datagram(),
        packet(),
        (ethertype, body).prop_map(|(ethertype, body)| ethernet(ethertype, &body)),
        prop::collection::vec(any::<u8>(), 0..60),
    ]
}

fn offload() -> impl Strategy<Value = Offload> {
    (any::<(u16, u16)>(), any::<Option<u16>>(), any::<(bool, bool)>()).prop_map(
        |((start, offset), tcp_segment, (partial, checksum_valid))| Offload {
            checksum: partial.then_some(PartialChecksum { start, offset }),
            tcp_segment,
            checksum_valid,
        },
    )
}

#[test]
fn flows_made_and_forgotten_leave_nothing_behind() {
    let mut guest = TestGuest::new(closed());
    let now = Instant::now();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for i in 0..20_000u32 {
        // A SYN, then a reset; nothing is taken from the queue.
        for flags in [2, 4] {
            let mut bytes = [(1000 + (i % 500) as u16).to_be_bytes(), port.to_be_bytes()].concat();
            bytes.extend(if flags == 2 { 7u32 } else { 8 }.to_be_bytes());
            bytes.extend([0, 0, 0, 0, 0x50, flags, 16, 0, 0, 0, 0, 0]);
            let offload = Offload { checksum_valid: true, ..Offload::default() };
            let to = if i % 2 == 0 { ALIAS } else { IMDS };
            guest.net.transmit(&ip_frame(GUEST, to, wire::TCP, &bytes), offload, now);
        }
        guest.net.transmit(&udp_frame((GUEST, i as u16 | 1), (ALIAS, 9), b"x"), Offload::default(), now);
    }
    let (timers, blocked) = guest.net.entries();
    assert!(timers < 10_000 && blocked < 10_000, "{timers} {blocked}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_are_survived(
        frames in prop::collection::vec((anything(), offload(), 0u64..400), 1..60),
        take in any::<bool>(),
    ) {
        let mut guest = TestGuest::new(closed());
        let mut now = Instant::now();
        let mut held = 0;
        for (frame, offload, pause) in frames {
            now += Duration::from_millis(pause);
            guest.net.transmit(&frame, offload, now);
            guest.net.poll(now);
            while take && let Some(frame) = guest.net.receive() {
                prop_assert!(frame.bytes.len() <= 65_549);
                held += 1;
                guest.net.recycle(frame);
            }
            prop_assert!(held < 10_000);
        }
        let left = std::iter::from_fn(|| guest.net.receive()).count();
        prop_assert!(left <= 1000);
    }

    #[test]
    fn a_live_connection_survives_any_segments(
        segments in prop::collection::vec((any::<u8>(), -70_000i32..70_000, -70_000i32..70_000, any::<u16>(), 0usize..3000), 1..40),
    ) {
        // A handshake by hand, then anything around the right numbers.
        let mut guest = TestGuest::new(closed());
        let now = Instant::now();
        let send = |guest: &mut TestGuest, flags: u8, sequence: u32, ack: u32, window: u16, length: usize| {
            let mut bytes = [1000u16.to_be_bytes(), 80u16.to_be_bytes()].concat();
            bytes.extend(sequence.to_be_bytes());
            bytes.extend(ack.to_be_bytes());
            bytes.extend([0x50, flags & 0x3f]);
            bytes.extend(window.to_be_bytes());
            bytes.resize(20 + length, 0x61);
            let offload = Offload { checksum_valid: true, ..Offload::default() };
            guest.net.transmit(&ip_frame(GUEST, IMDS, wire::TCP, &bytes), offload, now);
            std::iter::from_fn(|| guest.net.receive()).collect::<Vec<_>>()
        };
        let answer = send(&mut guest, 2, 99, 0, 1000, 0);
        let theirs = u32::from_be_bytes(answer[0].bytes[38..42].try_into().unwrap()).wrapping_add(1);
        send(&mut guest, 16, 100, theirs, 1000, 0);
        prop_assert_eq!(guest.net.tcp_flows(), 1);
        for (flags, sequence, ack, window, length) in segments {
            let sequence = 100u32.wrapping_add_signed(sequence % 3000);
            let ack = theirs.wrapping_add_signed(ack % 3000);
            let frames = send(&mut guest, flags, sequence, ack, window, length);
            prop_assert!(frames.len() <= 1024);
        }
    }
}
