use proptest::prelude::*;

use super::*;
use crate::net::testing::{GATEWAY, GUEST, GUEST_MAC, config};

const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn message(kind: u8, flags: u16, ciaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; OPTIONS];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(b"xid!");
    bytes[10..12].copy_from_slice(&flags.to_be_bytes());
    bytes[12..16].copy_from_slice(&ciaddr.octets());
    bytes[28..34].copy_from_slice(&GUEST_MAC);
    bytes[236..].copy_from_slice(&COOKIE);
    option(&mut bytes, MESSAGE_TYPE, &[kind]);
    for (code, data) in options {
        option(&mut bytes, *code, data);
    }
    bytes.push(END);
    bytes
}

/// The options of a reply, in order.
fn options(reply: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = OPTIONS;
    while reply[at] != END {
        let length = usize::from(reply[at + 1]);
        found.push((reply[at], reply[at + 2..at + 2 + length].to_vec()));
        at += 2 + length;
    }
    found
}

fn get(reply: &Reply, code: u8) -> Option<Vec<u8>> {
    options(&reply.message).into_iter().find(|(found, _)| *found == code).map(|(_, data)| data)
}

#[test]
fn an_offer_says_what_ec2_says() {
    let duid = [255, 1, 2, 3, 4, 0, 2, 0, 0, 0xab, 0x11, 9, 9, 9, 9, 9, 9, 9, 9];
    let discover = message(DISCOVER, 0, ZERO, &[(CLIENT_ID, &duid), (PARAMETERS, &[1, 3, 6])]);
    let reply = answer(&config(), &discover).unwrap();
    assert_eq!(reply.to, GUEST);
    assert_eq!(reply.message[..8], [2, 1, 6, 0, b'x', b'i', b'd', b'!']);
    assert_eq!(reply.message[16..20], GUEST.octets());
    assert_eq!(reply.message[28..34], GUEST_MAC);
    assert!(reply.message.len() >= LEAST);
    let expected: Vec<(u8, Vec<u8>)> = vec![
        (MESSAGE_TYPE, vec![OFFER]),
        (SERVER, vec![10, 0, 0, 1]),
        (LEASE_TIME, 3600u32.to_be_bytes().to_vec()),
        (SUBNET_MASK, vec![255, 255, 255, 0]),
        (BROADCAST, vec![10, 0, 0, 255]),
        (ROUTER, vec![10, 0, 0, 1]),
        (DNS, vec![10, 0, 0, 2]),
        (DOMAIN, b"ec2.internal".to_vec()),
        (HOST_NAME, b"ip-10-0-0-5".to_vec()),
        (MTU, 9001u16.to_be_bytes().to_vec()),
        (CLIENT_ID, duid.to_vec()),
    ];
    assert_eq!(options(&reply.message), expected);
    let asked = message(DISCOVER, 0, ZERO, &[(PARAMETERS, &[NTP])]);
    assert_eq!(get(&answer(&config(), &asked).unwrap(), NTP), Some(NTP_ADDRESS.to_vec()));
}

const NTP_ADDRESS: [u8; 4] = [169, 254, 169, 123];

#[test]
fn replies_go_where_the_client_listens() {
    let to = |bytes: &[u8]| answer(&config(), bytes).map(|reply| (reply.to, get(&reply, MESSAGE_TYPE).unwrap()[0]));
    let own: &[u8] = &GUEST.octets();
    let server: &[u8] = &GATEWAY.octets();
    let wrong: &[u8] = &[10, 0, 0, 9];
    // Selecting, with and without the broadcast flag; rebooting; renewing; another server's offer taken.
    assert_eq!(to(&message(DISCOVER, 0x8000, ZERO, &[])), Some((Ipv4Addr::BROADCAST, OFFER)));
    let selecting = [(REQUESTED_ADDRESS, own), (SERVER, server)];
    assert_eq!(to(&message(REQUEST, 0, ZERO, &selecting)), Some((GUEST, ACK)));
    assert_eq!(to(&message(REQUEST, 0x8000, ZERO, &selecting)), Some((Ipv4Addr::BROADCAST, ACK)));
    assert_eq!(to(&message(REQUEST, 0, ZERO, &[(REQUESTED_ADDRESS, own)])), Some((GUEST, ACK)));
    assert_eq!(to(&message(REQUEST, 0, GUEST, &[])), Some((GUEST, ACK)));
    assert_eq!(to(&message(REQUEST, 0, ZERO, &[(REQUESTED_ADDRESS, own), (SERVER, wrong)])), None);
    // Wrong addresses are refused, loudly.
    let nak = Some((Ipv4Addr::BROADCAST, NAK));
    assert_eq!(to(&message(REQUEST, 0, ZERO, &[(REQUESTED_ADDRESS, wrong)])), nak);
    assert_eq!(to(&message(REQUEST, 0, Ipv4Addr::new(10, 0, 0, 9), &[])), nak);
    assert_eq!(to(&message(REQUEST, 0, ZERO, &[])), nak);
    assert_eq!(to(&message(INFORM, 0, GUEST, &[])), Some((GUEST, ACK)));
    for silent in [DECLINE, 7, 9, 0] {
        assert_eq!(to(&message(silent, 0, ZERO, &[])), None);
    }
}

#[test]
fn another_implementation_reads_the_reply() {
    use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};
    let request = message(REQUEST, 0, ZERO, &[(REQUESTED_ADDRESS, &GUEST.octets())]);
    let reply = answer(&config(), &request).unwrap();
    assert!(reply.leased);
    let packet = DhcpPacket::new_checked(&reply.message).unwrap();
    let read = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(read.message_type, DhcpMessageType::Ack);
    assert_eq!((read.your_ip, read.router, read.server_identifier), (GUEST, Some(GATEWAY), Some(GATEWAY)));
    assert_eq!(read.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
    assert_eq!(read.lease_duration, Some(3600));
    assert_eq!(read.dns_servers.unwrap()[..], [Ipv4Addr::new(10, 0, 0, 2)]);
}

#[test]
fn inform_leases_nothing_and_nak_promises_nothing() {
    let inform = answer(&config(), &message(INFORM, 0, GUEST, &[])).unwrap();
    assert_eq!(inform.message[16..20], [0; 4]);
    assert_eq!(get(&inform, LEASE_TIME), None);
    assert_eq!(get(&inform, MTU), Some(vec![0x23, 0x29]));
    let nak = answer(&config(), &message(REQUEST, 0, Ipv4Addr::new(10, 0, 0, 9), &[])).unwrap();
    assert_eq!(nak.message[12..20], [0; 8]);
    assert_eq!(get(&nak, MTU), None);
}

#[test]
fn others_messages_are_not_answered() {
    let good = message(DISCOVER, 0, ZERO, &[]);
    for (at, value) in [(0, 2), (1, 6), (2, 8), (24, 10), (33, 0x77), (236, 0)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(answer(&config(), &bad), None, "byte {at}");
    }
    // A length that runs out of the message.
    let mut bad = good;
    bad.pop();
    bad.extend_from_slice(&[CLIENT_ID, 200, 1]);
    assert_eq!(answer(&config(), &bad), None);
}

proptest! {
    #[test]
    fn any_options_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..700), kind in 0u8..10) {
        let mut bytes = message(kind, 0, ZERO, &[]);
        bytes.pop();
        bytes.extend(tail);
        if let Some(reply) = answer(&config(), &bytes) {
            prop_assert!(reply.message.len() < 1200);
            options(&reply.message);
        }
    }
}
