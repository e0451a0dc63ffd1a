//! UDP, ICMP, and the services that answer a single datagram.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use smoltcp::socket::udp;
use smoltcp::wire::{IpAddress, IpEndpoint};

use crate::net::testing::*;
use crate::net::{NetConfig, arp, dhcp, llmnr, wire};
use crate::vmm::backend::{NetBackend, Offload, PartialChecksum};

/// A UDP server on the host's loopback; its port.
fn server() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn alias(port: u16) -> IpEndpoint {
    IpEndpoint::new(IpAddress::Ipv4(ALIAS), port)
}

#[test]
fn datagrams_pass_both_ways() {
    let mut guest = TestGuest::with_offload(config(), false);
    let (host, port) = server();
    let handle = guest.udp(6000);
    // Larger than the host's usual MTU, and larger than the guest's.
    for size in [1, 100, 8_000, 30_000, 60_000] {
        let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
        if size < 8_900 {
            guest.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(&data, alias(port)).unwrap();
            guest.settle();
        } else {
            // smoltcp's fragmentation buffer is too small for these: the guest's kernel would send fragments.
            for frame in fragments(&data, port) {
                guest.exchange(&frame);
            }
        }
        let mut bytes = vec![0; 65_536];
        let (length, from) = host.recv_from(&mut bytes).unwrap();
        assert!(bytes[..length] == data);
        guest.seen = Some(Vec::new());
        host.send_to(&data, from).unwrap();
        let mut got = Vec::new();
        guest.until("the answer", |guest| {
            for frame in guest.seen.as_mut().unwrap().drain(..) {
                let packet = wire::Ipv4::parse(&frame.bytes[14..]).unwrap();
                assert_eq!((packet.source, packet.destination), (ALIAS, GUEST));
                assert_eq!(packet.offset, got.len());
                got.extend_from_slice(packet.payload);
            }
            got.len() == 8 + size
        });
        assert!(got[8..] == data);
        assert_eq!(wire::transport_checksum(ALIAS, GUEST, wire::UDP, &got, &[]), 0);
    }
}

/// A datagram from port 6000 in fragments of 8 KiB.
fn fragments(data: &[u8], port: u16) -> Vec<Vec<u8>> {
    let header = wire::udp_header((GUEST, 6000), (ALIAS, port), data).unwrap();
    let whole = [&header[..], data].concat();
    let count = whole.len().div_ceil(8192);
    let pieces = whole.chunks(8192).enumerate().map(|(i, piece)| {
        let more = if i + 1 < count { wire::MORE_FRAGMENTS } else { 0 };
        let header = wire::Ipv4Header {
            source: GUEST,
            destination: ALIAS,
            protocol: wire::UDP,
            ttl: 64,
            ident: data.len() as u16,
            fragment: (i * 1024) as u16 | more,
        };
        ethernet(wire::ETHERTYPE_IPV4, &[&header.bytes(piece.len())[..], piece].concat())
    });
    pieces.collect()
}

#[test]
fn a_closed_port_is_reported() {
    let mut guest = TestGuest::new(config());
    let (host, port) = server();
    drop(host);
    guest.seen = Some(Vec::new());
    let frame = udp_frame((GUEST, 6001), (ALIAS, port), b"anybody?");
    guest.net.transmit(&frame, Offload::default(), Instant::now());
    guest.until("the error", |guest| !guest.seen.as_ref().unwrap().is_empty());
    let seen = guest.seen.unwrap();
    let packet = wire::Ipv4::parse(&seen[0].bytes[14..]).unwrap();
    assert_eq!((packet.source, packet.payload[0], packet.payload[1]), (ALIAS, 3, 3));
    let quoted = wire::Ipv4::parse(&[&packet.payload[8..], &[0; 8]].concat()).map(|q| (q.source, q.destination));
    assert_eq!(quoted, Some((GUEST, ALIAS)));
    assert_eq!(packet.payload[28..32], [6001u16.to_be_bytes(), port.to_be_bytes()].concat());
}

#[test]
fn unreachable_destinations_are_refused_at_once() {
    let mut guest = TestGuest::new(config());
    let cases = [
        (Ipv4Addr::LOCALHOST, 53, 1),
        (Ipv4Addr::new(10, 0, 0, 77), 9, 1),
        (Ipv4Addr::new(169, 254, 1, 1), 9, 1),
        (GATEWAY, 9, 3),
        (DNS, 54, 3),
        (IMDS, 53, 3),
    ];
    for (ip, port, code) in cases {
        let frames = guest.exchange(&udp_frame((GUEST, 6002), (ip, port), b"x"));
        assert_eq!(frames.len(), 1, "{ip}");
        assert_eq!(frames[0].bytes[34..36], [3, code], "{ip}");
    }
    // Multicast and broadcast are not worth an answer.
    for ip in [Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)] {
        assert!(guest.exchange(&udp_frame((GUEST, 6002), (ip, 5353), b"x")).is_empty(), "{ip}");
    }
}

#[test]
fn other_senders_and_wrong_checksums_are_dropped() {
    let mut guest = TestGuest::new(config());
    let good = udp_frame((GUEST, 6003), (GATEWAY, 9), b"xy");
    assert_eq!(guest.exchange(&good).len(), 1);
    let mut other_mac = good.clone();
    other_mac[11] ^= 1;
    assert!(guest.exchange(&other_mac).is_empty());
    let mut other_destination = good.clone();
    other_destination[5] ^= 1;
    assert!(guest.exchange(&other_destination).is_empty());
    assert!(guest.exchange(&udp_frame((Ipv4Addr::new(10, 0, 0, 6), 6003), (GATEWAY, 9), b"xy")).is_empty());
    for at in [16, 26, 43] {
        let mut wrong = good.clone();
        wrong[at] ^= 1;
        assert!(guest.exchange(&wrong).is_empty(), "byte {at}");
    }
    // An unfinished checksum is not wrong.
    let mut partial = good;
    partial[40] ^= 0x55;
    let offload = Offload { checksum: Some(PartialChecksum { start: 34, offset: 6 }), ..Offload::default() };
    guest.net.transmit(&partial, offload, Instant::now());
    assert!(guest.net.receive().is_some());
}

#[test]
fn dhcp_works_before_the_guest_has_an_address() {
    let leases = Arc::new(AtomicUsize::new(0));
    let count = leases.clone();
    let on_lease = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mut guest = TestGuest::new(NetConfig { on_lease: Some(on_lease), ..config() });
    let mut discover = vec![0; 240];
    discover[..3].copy_from_slice(&[1, 1, 6]);
    discover[28..34].copy_from_slice(&GUEST_MAC);
    discover[236..].copy_from_slice(&[99, 130, 83, 99]);
    discover.extend([53, 1, 1, 255]);
    for (flag, ip, mac) in [(0x80, Ipv4Addr::BROADCAST, [0xff; 6]), (0, GUEST, GUEST_MAC)] {
        discover[10] = flag;
        let source = (Ipv4Addr::UNSPECIFIED, dhcp::CLIENT_PORT);
        let mut frame = udp_frame(source, (Ipv4Addr::BROADCAST, dhcp::SERVER_PORT), &discover);
        frame[..6].fill(0xff);
        let frames = guest.exchange(&frame);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].bytes[..6], mac);
        let packet = wire::Ipv4::parse(&frames[0].bytes[14..]).unwrap();
        assert!(packet.transport_checksum_fits());
        let reply = wire::Udp::parse(packet.payload).unwrap();
        assert_eq!((packet.source, packet.destination), (GATEWAY, ip));
        assert_eq!((reply.source, reply.destination), (dhcp::SERVER_PORT, dhcp::CLIENT_PORT));
        assert_eq!(reply.payload[16..20], GUEST.octets());
    }
    assert_eq!(leases.load(Ordering::Relaxed), 0, "an offer is no lease");
    // Renewing, with the address in ciaddr.
    discover[12..16].copy_from_slice(&GUEST.octets());
    discover[242] = 3;
    let renewal = udp_frame((GUEST, dhcp::CLIENT_PORT), (GATEWAY, dhcp::SERVER_PORT), &discover);
    assert_eq!(guest.exchange(&renewal).len(), 1);
    assert_eq!(leases.load(Ordering::Relaxed), 1);
}

#[test]
fn arp_time_and_the_two_llmnr_names() {
    let mut guest = TestGuest::new(config());
    let request = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &GUEST_MAC, &GUEST.octets(), &[0; 6], &IMDS.octets()].concat();
    let mut frame = ethernet(wire::ETHERTYPE_ARP, &request);
    frame[..6].fill(0xff);
    let frames = guest.exchange(&frame);
    assert_eq!(frames[0].bytes[14..], arp::answer(&config(), &request).unwrap());
    assert_eq!(frames[0].bytes[..14], [&GUEST_MAC[..], &GATEWAY_MAC, &[8, 6]].concat());

    let mut time = [0; 48];
    time[0] = 0x23;
    let (from, _, reply) = guest.ask_udp((NTP, 123), &time).unwrap();
    assert_eq!((from, reply.len(), reply[0]), (NTP, 48, 0x24));

    let mut query = dns_query(3, "instance-data", 1);
    query[2..4].fill(0);
    let mut frame = udp_frame((GUEST, 5000), (llmnr::GROUP, llmnr::PORT), &query);
    frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 0xfc]);
    let frames = guest.exchange(&frame);
    let packet = wire::Ipv4::parse(&frames[0].bytes[14..]).unwrap();
    let reply = wire::Udp::parse(packet.payload).unwrap();
    assert_eq!((packet.source, packet.destination, frames[0].bytes[22]), (GATEWAY, GUEST, 255));
    assert_eq!((reply.source, reply.destination), (llmnr::PORT, 5000));
    assert_eq!(reply.payload[2..4], [0x80, 0]);
}

#[test]
fn own_addresses_answer_echo() {
    let mut guest = TestGuest::new(config());
    for (ip, length) in [(GATEWAY, 56), (DNS, 0), (IMDS, 8000)] {
        let mut request = vec![8, 0, 0, 0, 1, 2, 3, 4];
        request.extend((0..length).map(|i| i as u8));
        let sum = wire::internet_checksum(&request);
        request[2..4].copy_from_slice(&sum.to_be_bytes());
        let frames = guest.exchange(&ip_frame(GUEST, ip, wire::ICMP, &request));
        let packet = wire::Ipv4::parse(&frames[0].bytes[14..]).unwrap();
        assert_eq!((packet.source, packet.payload[0]), (ip, 0));
        assert_eq!(packet.payload[4..], request[4..]);
        assert_eq!(wire::internet_checksum(packet.payload), 0);
        request[2] ^= 1;
        assert!(guest.exchange(&ip_frame(GUEST, ip, wire::ICMP, &request)).is_empty());
    }
    let frames = guest.exchange(&ip_frame(GUEST, GATEWAY, 132, &[0; 16]));
    assert_eq!(frames[0].bytes[34..36], [3, 2], "SCTP: protocol unreachable");
}

#[test]
fn echo_to_the_outside_is_answered_or_refused() {
    let mut guest = TestGuest::new(config());
    guest.seen = Some(Vec::new());
    let mut request = vec![8, 0, 0, 0, 9, 9, 0, 1, 0xaa];
    let sum = wire::internet_checksum(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    let frame = ip_frame(GUEST, ALIAS, wire::ICMP, &request);
    guest.net.transmit(&frame, Offload::default(), Instant::now());
    guest.until("an answer", |guest| !guest.seen.as_ref().unwrap().is_empty());
    let seen = guest.seen.unwrap();
    let packet = wire::Ipv4::parse(&seen[0].bytes[14..]).unwrap();
    assert_eq!(wire::internet_checksum(packet.payload), 0);
    match packet.payload[0] {
        0 => assert_eq!((packet.source, &packet.payload[4..]), (ALIAS, &request[4..])),
        3 => eprintln!("this host permits no ICMP sockets: the guest was told so"),
        other => panic!("ICMP type {other}"),
    }
}

#[test]
fn idle_udp_flows_end_and_the_table_is_bounded() {
    let mut guest = TestGuest::new(config());
    let (_host, port) = server();
    let start = Instant::now();
    for i in 0..1200u16 {
        let frame = udp_frame((GUEST, 7000 + i), (ALIAS, port), b"x");
        guest.net.transmit(&frame, Offload::default(), start);
    }
    let flows = guest.net.udp_flows();
    assert!(flows <= 1024 && flows > 100, "{flows}");
    guest.net.poll(start + Duration::from_secs(29));
    assert_eq!(guest.net.udp_flows(), flows);
    assert!(guest.net.poll(start + Duration::from_secs(31)).is_none());
    assert_eq!(guest.net.udp_flows(), 0);
}

#[test]
fn the_alias_is_off_unless_given() {
    let mut guest = TestGuest::new(NetConfig { host_alias: None, ..config() });
    let (host, port) = server();
    host.set_nonblocking(true).unwrap();
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    guest.exchange(&udp_frame((GUEST, 6004), (*to.ip(), port), b"x"));
    assert!(host.recv(&mut [0; 8]).is_err());
}
