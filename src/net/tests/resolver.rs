//! DNS through the network: own names, forwarding over UDP and TCP, and what happens if nobody answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::NetConfig;
use crate::net::testing::*;
use crate::vmm::backend::{NetBackend, Offload};

const RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4];

fn answer(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80]);
    reply[7] = 1;
    reply.extend_from_slice(RECORD);
    reply
}

fn upstream() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// The DNS payload of the next answer.
fn await_answer(guest: &mut TestGuest) -> Vec<u8> {
    guest.seen = Some(Vec::new());
    guest.until("an answer", |guest| !guest.seen.as_ref().unwrap().is_empty());
    guest.seen.take().unwrap()[0].bytes[42..].to_vec()
}

#[test]
fn own_names_are_answered_on_both_addresses() {
    let mut guest = TestGuest::new(config());
    for server in [DNS, LINK_DNS] {
        let query = dns_query(5, "ip-10-0-0-5.ec2.internal", 1);
        let (from, _, reply) = guest.ask_udp((server, 53), &query).unwrap();
        assert_eq!(from, server);
        assert!(reply.ends_with(&[0, 4, 10, 0, 0, 5]));
    }
    assert!(guest.ask_udp((GATEWAY, 53), &dns_query(5, "a.b", 1)).is_none());
    // Without resolvers, everything else fails at once.
    let (_, _, reply) = guest.ask_udp((DNS, 53), &dns_query(5, "example.org", 1)).unwrap();
    assert_eq!(reply[3] & 15, 2);
}

#[test]
fn other_names_are_forwarded_and_strangers_not_believed() {
    let (server, address) = upstream();
    let mut guest = TestGuest::new(NetConfig { upstreams: vec![address], ..config() });
    let query = dns_query(0x1111, "www.example.org", 1);
    guest.exchange(&udp_frame((GUEST, 5000), (DNS, 53), &query));
    let mut bytes = [0; 512];
    let (length, from) = server.recv_from(&mut bytes).unwrap();
    assert_eq!(bytes[2..length], query[2..]);
    let good = answer(&bytes[..length]);
    // Another identifier, another question, a query, rubbish, another sender.
    let mut wrong_id = good.clone();
    wrong_id[0] ^= 1;
    let mut wrong_name = good.clone();
    wrong_name[13] = b'x';
    server.send_to(&wrong_id, from).unwrap();
    server.send_to(&wrong_name, from).unwrap();
    server.send_to(&bytes[..length], from).unwrap();
    server.send_to(b"rubbish", from).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&good, from).unwrap();
    server.send_to(&good, from).unwrap();
    let reply = await_answer(&mut guest);
    assert_eq!(reply[..2], [0x11, 0x11]);
    assert_eq!(reply[2..], good[2..]);
}

#[test]
fn the_next_resolver_is_asked_and_silence_ends() {
    let (dead, gone) = upstream();
    drop(dead);
    let (silent, quiet) = upstream();
    let (server, address) = upstream();
    let mut guest = TestGuest::new(NetConfig { upstreams: vec![gone, quiet, address], ..config() });
    let query = dns_query(0x2222, "www.example.org", 1);
    let start = Instant::now();
    guest.net.transmit(&udp_frame((GUEST, 5000), (DNS, 53), &query), Offload::default(), start);
    let mut bytes = [0; 512];
    // The refusal of the first is an event; the silence of the second needs the clock.
    guest.until("the refusal", |_| {
        silent.set_nonblocking(true).unwrap();
        silent.recv_from(&mut bytes).is_ok()
    });
    let later = start + Duration::from_secs(20);
    guest.net.poll(later);
    let (length, from) = server.recv_from(&mut bytes).unwrap();
    server.send_to(&answer(&bytes[..length]), from).unwrap();
    assert!(await_answer(&mut guest).ends_with(&[1, 2, 3, 4]));

    // All silent: SERVFAIL after three tries.
    let mut guest = TestGuest::new(NetConfig { upstreams: vec![quiet], ..config() });
    guest.net.transmit(&udp_frame((GUEST, 5000), (DNS, 53), &query), Offload::default(), start);
    for second in [20, 40] {
        guest.net.poll(start + Duration::from_secs(second));
        assert!(guest.net.receive().is_none());
    }
    guest.net.poll(start + Duration::from_secs(60));
    let reply = guest.net.receive().unwrap().bytes;
    assert_eq!((&reply[42..44], reply[45] & 15), (&[0x22, 0x22][..], 2));
}

#[test]
fn too_many_queries_fail_instead_of_piling_up() {
    let (_silent, quiet) = upstream();
    let mut guest = TestGuest::new(NetConfig { upstreams: vec![quiet], ..config() });
    let mut failures = 0;
    for id in 0..300 {
        let query = dns_query(id, "www.example.org", 1);
        failures += guest.exchange(&udp_frame((GUEST, 5000), (DNS, 53), &query)).len();
    }
    let limit = crate::net::limits::Limits::new(1 << 20).dns;
    assert!(failures >= 300 - limit, "{failures}");
}

#[test]
fn tcp_queries_are_answered_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).unwrap();
        let mut reply = answer(&query);
        reply.resize(20_000, 0);
        stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&reply).unwrap();
    });
    let mut guest = TestGuest::new(NetConfig { upstreams: vec![address], ..config() });
    let framed = |query: Vec<u8>| [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    let socket = guest.connect(SocketAddrV4::new(DNS, 53));
    // Two queries in one go: an own name, and one to forward.
    let mut both = framed(dns_query(1, "ip-10-0-0-5.ec2.internal", 1));
    let own = both.len() + 16;
    both.extend(framed(dns_query(2, "big.example.org", 1)));
    let got = guest.converse(socket, &both, own + 2 + 20_000);
    server.join().unwrap();
    assert_eq!(got[2..4], [0, 1]);
    assert!(got[..own].ends_with(&Ipv4Addr::new(10, 0, 0, 5).octets()));
    assert_eq!(got[own..own + 4], [0x4e, 0x20, 0, 2]);
    assert_eq!(got.len(), own + 20_002);
}
