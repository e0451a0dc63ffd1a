//! TCP: NAT to host sockets and sessions.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::thread;

use smoltcp::socket::tcp::State;

use crate::net::testing::*;
use crate::net::wire;

/// A server on the host's loopback that handles one connection; its address as the guest sees it.
fn server<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddrV4, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (SocketAddrV4::new(ALIAS, port), thread::spawn(move || serve(listener.accept().unwrap().0)))
}

fn echo(mut stream: TcpStream) {
    let mut reader = stream.try_clone().unwrap();
    std::io::copy(&mut reader, &mut stream).unwrap();
}

/// Bytes that repeat nowhere soon.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn echo_through_a_host_socket_and_close() {
    for offload in [true, false] {
        let mut guest = TestGuest::with_offload(config(), offload);
        let (address, host) = server(echo);
        let socket = guest.connect(address);
        assert_eq!(guest.converse(socket, b"hello", 5), b"hello");
        guest.tcp(socket).close();
        guest.until("the close", |guest| guest.state(socket) == State::TimeWait);
        host.join().unwrap();
        guest.until("the flow to be forgotten", |guest| guest.net.tcp_flows() == 0);
    }
}

#[test]
fn ten_megabytes_each_way_arrive_unchanged() {
    let data = noise(10 << 20);
    for offload in [true, false] {
        let mut guest = TestGuest::with_offload(config(), offload);
        let (address, host) = server(echo);
        let socket = guest.connect(address);
        let got = guest.converse(socket, &data, data.len());
        assert!(got == data, "the bytes differ");
        guest.tcp(socket).close();
        guest.until("the close", |guest| !guest.tcp(socket).may_recv());
        host.join().unwrap();
    }
}

#[test]
fn a_small_mtu_and_software_checksums_work_too() {
    let mut guest = TestGuest::with_offload(crate::net::NetConfig { mtu: 576, ..config() }, false);
    guest.seen = Some(Vec::new());
    let data = noise(100_000);
    let (address, _host) = server(echo);
    let socket = guest.connect(address);
    assert!(guest.converse(socket, &data, data.len()) == data);
    for frame in guest.seen.unwrap() {
        assert!(frame.bytes.len() <= 576 + 14);
        if frame.bytes[12..14] == [8, 0] {
            let packet = wire::Ipv4::parse(&frame.bytes[14..]).unwrap();
            assert!(packet.transport_checksum_fits());
        }
    }
}

#[test]
fn large_frames_carry_what_the_guest_has_to_finish() {
    let mut guest = TestGuest::new(config());
    guest.seen = Some(Vec::new());
    let (address, host) = server(|mut stream| stream.write_all(&[7; 1 << 20]).unwrap());
    let socket = guest.connect(address);
    assert_eq!(guest.converse(socket, b"", 1 << 20).len(), 1 << 20);
    host.join().unwrap();
    let seen = guest.seen.unwrap();
    let large: Vec<_> = seen.iter().filter(|frame| frame.bytes.len() > 20_000).collect();
    assert!(!large.is_empty());
    for frame in large {
        assert_eq!(frame.offload.tcp_segment, Some(8961));
        let partial = frame.offload.checksum.unwrap();
        assert_eq!((partial.start, partial.offset), (34, 16));
        // What the guest's NIC would do gives a checksum that fits.
        let mut bytes = frame.bytes.clone();
        let sum = wire::internet_checksum(&bytes[34..]);
        bytes[50..52].copy_from_slice(&sum.to_be_bytes());
        assert!(wire::Ipv4::parse(&bytes[14..]).unwrap().transport_checksum_fits());
    }
}

#[test]
fn a_refused_connection_is_refused_at_once() {
    let mut guest = TestGuest::new(config());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let nowhere = [
        SocketAddrV4::new(ALIAS, port),
        SocketAddrV4::new(GATEWAY, 22),
        SocketAddrV4::new(IMDS, 8775),
        SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80),
        SocketAddrV4::new(DNS, 80),
    ];
    for address in nowhere {
        let socket = guest.connect(address);
        guest.until("the reset", |guest| guest.state(socket) == State::Closed);
    }
    assert_eq!(guest.net.tcp_flows(), 0);
}

#[test]
fn the_hosts_loopback_is_out_of_reach_and_the_guest_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = TestGuest::new(config());
    guest.seen = Some(Vec::new());
    for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 1, 2, 3), Ipv4Addr::new(0, 0, 0, 7), Ipv4Addr::new(10, 0, 0, 99)]
    {
        let segment =
            [&40_000u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0]].concat();
        let mut segment = [segment, vec![0; 4]].concat();
        let sum = wire::transport_checksum(GUEST, ip, wire::TCP, &segment, &[]);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let frame = ip_frame(GUEST, ip, wire::TCP, &segment);
        let answer = guest.exchange(&frame);
        assert_eq!(answer.len(), 1, "{ip}");
        let packet = wire::Ipv4::parse(&answer[0].bytes[14..]).unwrap();
        assert_eq!((packet.protocol, &packet.payload[..2]), (wire::ICMP, &[3, 1][..]));
        assert_eq!(wire::internet_checksum(packet.payload), 0);
        assert_eq!(&packet.payload[8..28], &frame[14..34]);
    }
    assert!(listener.accept().is_err());
}

#[test]
fn half_closed_connections_keep_their_other_half() {
    // The guest ends first.
    let mut guest = TestGuest::new(config());
    let (address, host) = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let socket = guest.connect(address);
    let data = noise(300_000);
    let mut sent = 0;
    guest.until("all to be sent", |guest| {
        let socket = guest.tcp(socket);
        if socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        }
        sent == data.len()
    });
    guest.tcp(socket).close();
    assert!(guest.converse(socket, b"", usize::MAX) == data);
    host.join().unwrap();

    // The host ends first.
    let (address, host) = server(|mut stream| {
        stream.write_all(b"first").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let socket = guest.connect(address);
    assert_eq!(guest.converse(socket, b"", usize::MAX), b"first");
    guest.tcp(socket).send_slice(b"later").unwrap();
    guest.tcp(socket).close();
    guest.until("the end", |guest| guest.state(socket) == State::Closed);
    assert_eq!(host.join().unwrap(), b"later");
    guest.until("the flows to be forgotten", |guest| guest.net.tcp_flows() == 0);
}

#[test]
fn resets_pass_both_ways() {
    let mut guest = TestGuest::new(config());
    let (address, host) = server(|mut stream| stream.read(&mut [0; 16]).map_err(|error| error.kind()));
    let socket = guest.connect(address);
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
    guest.tcp(socket).abort();
    guest.until("the flow to end", |guest| guest.net.tcp_flows() == 0);
    assert_eq!(host.join().unwrap(), Err(std::io::ErrorKind::ConnectionReset));

    // Data that the host never reads make its close a reset.
    let (address, host) = server(|mut stream| stream.read_exact(&mut [0; 1]).unwrap());
    let socket = guest.connect(address);
    guest.converse(socket, &[1; 1000], 0);
    guest.until("the reset", |guest| guest.state(socket) == State::Closed);
    host.join().unwrap();
    guest.until("the flow to end", |guest| guest.net.tcp_flows() == 0);
}

#[test]
fn a_slow_reader_stops_the_sender_and_nothing_is_lost() {
    let mut guest = TestGuest::new(config());
    let data = noise(4 << 20);
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let (address, host) = server(move |mut stream| {
        gone.recv().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let socket = guest.connect(address);
    let (mut sent, mut idle) = (0, 0);
    guest.until("the sender to stop", |guest| {
        let socket = guest.tcp(socket);
        let n = if socket.can_send() { socket.send_slice(&data[sent..]).unwrap() } else { 0 };
        sent += n;
        idle = if n == 0 { idle + 1 } else { 0 };
        idle == 20 || sent == data.len()
    });
    go.send(()).unwrap();
    guest.until("the rest", |guest| {
        let socket = guest.tcp(socket);
        sent += if socket.can_send() { socket.send_slice(&data[sent..]).unwrap() } else { 0 };
        sent == data.len()
    });
    guest.tcp(socket).close();
    guest.until("the end", |guest| !guest.tcp(socket).may_recv());
    assert!(host.join().unwrap() == data);
}

#[test]
fn two_hundred_flows_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = SocketAddrV4::new(ALIAS, listener.local_addr().unwrap().port());
    let host = thread::spawn(move || {
        let streams: Vec<_> = (0..200).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in streams {
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        }
    });
    let mut guest = TestGuest::new(config());
    let sockets: Vec<_> = (0..200).map(|_| guest.connect(address)).collect();
    guest.until("200 connections", |guest| {
        sockets.iter().all(|socket| guest.sockets.get::<smoltcp::socket::tcp::Socket<'_>>(*socket).may_send())
    });
    assert_eq!(guest.net.tcp_flows(), 200);
    for (i, socket) in sockets.iter().enumerate() {
        guest.tcp(*socket).send_slice(&(i as u32).to_be_bytes()).unwrap();
    }
    for (i, socket) in sockets.iter().enumerate() {
        assert_eq!(guest.converse(*socket, b"", 4), (i as u32).to_be_bytes());
    }
    host.join().unwrap();
}

#[test]
fn a_service_answers_with_its_hop_limit() {
    let mut guest = TestGuest::new(config());
    guest.seen = Some(Vec::new());
    let socket = guest.connect(SocketAddrV4::new(IMDS, 80));
    assert_eq!(guest.converse(socket, b"plain", 5), b"PLAIN");
    assert_eq!(guest.converse(socket, b"ttl please", 10), b"TTL PLEASE");
    assert_eq!(guest.converse(socket, b"bye", usize::MAX), b"BYE");
    guest.tcp(socket).close();
    guest.until("the flow to be forgotten", |guest| guest.net.tcp_flows() == 0);
    let ttl_of = |text: &[u8]| {
        let frame = guest.seen.as_ref().unwrap().iter().find(|frame| frame.bytes.ends_with(text)).unwrap();
        frame.bytes[22]
    };
    assert_eq!(ttl_of(b"PLAIN"), 64);
    assert_eq!(ttl_of(b"TTL PLEASE"), 2);
    assert_eq!(ttl_of(b"BYE"), 64);
}
