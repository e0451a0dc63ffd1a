//! The network: frames of a hostile guest.
//!
//! Nothing leaves the machine, and no socket of the host is opened: there are no forwards, no resolvers behind and no
//! alias of the host, and each IPv4 packet's destination is overwritten by one that is answered or refused inside.
#![no_main]

#[path = "common.rs"]
mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amiable::net::{Gate, NetConfig, Network, NewFlow, SessionState, StreamService, StreamSession};
use amiable::vmm::backend::{NetBackend, Offload, PartialChecksum};
use common::{MOST_STEPS, Script};

const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 16];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const SERVICE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const NAMES: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const TIME: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 123);
/// Local services, addresses of the subnet, link-local and loopback ones (which are refused), broadcast and LLMNR's group.
const DESTINATIONS: [Ipv4Addr; 10] = [
    SERVICE,
    NAMES,
    TIME,
    Ipv4Addr::new(10, 0, 0, 1),
    GUEST,
    Ipv4Addr::new(10, 0, 0, 99),
    Ipv4Addr::new(169, 254, 1, 1),
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::BROADCAST,
    Ipv4Addr::new(224, 0, 0, 252),
];
const HEADERS: usize = 34;

/// Says what it hears.
struct Echo;

impl StreamService for Echo {
    fn open(&self, _: SocketAddrV4) -> Box<dyn StreamSession> {
        Box::new(Echo)
    }
}

impl StreamSession for Echo {
    fn receive(&mut self, bytes: &[u8], reply: &mut Vec<u8>) -> SessionState {
        reply.extend(bytes);
        SessionState { close: bytes.first() == Some(&b'.'), hop_limit: None }
    }
}

/// Lets every other flow out.
struct Half;

impl Gate for Half {
    fn admits(&self, flow: &NewFlow) -> bool {
        match flow {
            NewFlow::Out { to, .. } => to.port().is_multiple_of(2),
            NewFlow::Echo { to } => to.octets()[3].is_multiple_of(2),
            NewFlow::In { .. } => true,
        }
    }
}

fn network() -> Network {
    let config = NetConfig {
        guest_mac: GUEST_MAC,
        guest_ip: GUEST,
        prefix: 24,
        gateway_mac: GATEWAY_MAC,
        gateway_ip: Ipv4Addr::new(10, 0, 0, 1),
        dns: vec![NAMES],
        domain: "ec2.internal".into(),
        host_name: "ip-10-0-0-5".into(),
        mtu: 9001,
        lease_seconds: 3600,
        names: vec![("db.example.org".into(), Ipv4Addr::new(10, 9, 9, 9))],
        upstreams: Vec::new(),
        forwards: Vec::new(),
        ntp: Some(TIME),
        services: vec![(SocketAddrV4::new(SERVICE, 80), Arc::new(Echo))],
        host_alias: None,
        on_lease: None,
        gate: Some(Arc::new(Half)),
    };
    Network::new(config).unwrap()
}

/// Make the frame one that is looked at, and one that stays here.
fn confine(frame: &mut [u8], destination: Ipv4Addr, acknowledge: Option<u32>) {
    if let Some(addresses) = frame.get_mut(..12) {
        let group = addresses[0] & 1 != 0;
        addresses[..6].copy_from_slice(if group { &[0xff; 6] } else { &GATEWAY_MAC });
        addresses[6..].copy_from_slice(&GUEST_MAC);
    }
    if frame.get(12..14) != Some(&[8, 0]) || frame.len() < HEADERS {
        return;
    }
    let packet = &mut frame[14..];
    // Longer headers where there is room for them.
    let header = usize::from(packet[0] & 15) * 4;
    let header = if (20..=packet.len()).contains(&header) { header } else { 20 };
    packet[0] = 0x40 | (header / 4) as u8;
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[12..16].copy_from_slice(&GUEST.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[10..12].fill(0);
    let sum: u32 = packet[..header].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    if let (6, Some(number), Some(field)) = (packet[9], acknowledge, packet.get_mut(header + 8..header + 12)) {
        field.copy_from_slice(&number.to_be_bytes());
    }
}

/// The number after all that a TCP segment to the guest holds.
fn next_number(frame: &[u8]) -> Option<u32> {
    let (segment, protocol) = (frame.get(HEADERS..)?, *frame.get(23)?);
    if frame.get(12..14)? != [8, 0] || protocol != 6 {
        return None;
    }
    let number = u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?);
    let payload = segment.len().checked_sub(usize::from(*segment.get(12)? >> 4) * 4)?;
    // SYN and FIN count as one.
    let flags = *segment.get(13)?;
    Some(number.wrapping_add(payload as u32).wrapping_add((flags & 1 | flags >> 1 & 1).into()))
}

/// An IPv4 packet with `protocol`'s payload, before it is made sound.
fn packet(protocol: u8, payload: &[&[u8]]) -> Vec<u8> {
    let mut frame = vec![0; HEADERS];
    (frame[12], frame[14], frame[22], frame[23]) = (8, 0x45, 64, protocol);
    frame.extend(payload.concat());
    frame
}

/// A TCP segment of the one connection.
fn segment(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[4, 0, 0, 80]);
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[12..16].copy_from_slice(&[0x50, flags, 16, 0]);
    packet(6, &[&header, payload])
}

/// A frame of the script: any bytes, a segment of the connection, or a datagram to a port that is served.
fn frame(script: &mut Script<'_>, kind: u8, ours: &mut u32) -> Vec<u8> {
    match kind >> 6 {
        0 => {
            let length = script.u16();
            script.bytes(length.into()).to_vec()
        }
        1 | 2 => {
            let [flags, shift, length] = script.array();
            let payload = script.bytes(length.into());
            let sequence = ours.wrapping_add_signed((shift as i8).into());
            if shift == 0 {
                *ours = ours.wrapping_add(payload.len() as u32);
            }
            segment(sequence, flags & 0x3f | 0x10, payload)
        }
        _ => {
            let [port, length] = script.array();
            let payload = script.bytes(length.into());
            let port = [53u16, 67, 123, 5355][usize::from(port & 3)];
            let source = if port == 67 { 68u16 } else { 1024 };
            let length = (8 + payload.len()) as u16;
            let header = [source, port, length, 0].map(u16::to_be_bytes).concat();
            packet(17, &[&header, payload])
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    let mut net = network();
    // The number of the connection's next byte.
    let mut ours = 1000u32;
    let mut now = Instant::now();
    let mut theirs = None;
    let offloads = script.u8();
    net.set_guest_offload(offloads & 1 != 0, offloads & 2 != 0);
    for _ in 0..MOST_STEPS {
        if script.is_empty() {
            break;
        }
        let [kind, destination, pause] = script.array();
        let mut frame = if kind & 1 == 0 {
            frame(&mut script, kind, &mut ours)
        } else {
            // To be connected takes two numbers that fit.
            ours = ours.wrapping_add(1);
            segment(ours.wrapping_sub(1), 2, &[])
        };
        let destination = DESTINATIONS[usize::from(destination) % DESTINATIONS.len()];
        confine(&mut frame, destination, theirs.filter(|_| kind & 2 == 0));
        let checksum = (kind & 4 != 0).then(|| PartialChecksum { start: script.u16(), offset: script.u16() });
        let tcp_segment = (kind & 8 != 0).then(|| script.u16());
        now += Duration::from_millis(u64::from(pause) * u64::from(pause));
        net.transmit(&frame, Offload { checksum, tcp_segment, checksum_valid: kind & 16 == 0 }, now);
        net.poll(now);
        // A guest that takes nothing for a while.
        while kind & 32 == 0
            && let Some(frame) = net.receive()
        {
            assert!(frame.bytes.len() <= (64 << 10) + 14);
            theirs = next_number(&frame.bytes).or(theirs);
            net.recycle(frame);
        }
    }
    assert!(std::iter::from_fn(|| net.receive()).count() <= 1024);
});
