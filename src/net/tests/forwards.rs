//! Port forwards: the host's clients reach the guest.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use smoltcp::socket::tcp::State;
use smoltcp::socket::udp;

use crate::net::testing::*;
use crate::net::{NetConfig, NetError, Network, PortForward, Protocol};

fn forward(protocol: Protocol, guest_port: u16) -> NetConfig {
    let host = "127.0.0.1:0".parse().unwrap();
    NetConfig { forwards: vec![PortForward { protocol, host, guest_port }], ..config() }
}

fn address(guest: &TestGuest) -> SocketAddr {
    let host = guest.net.forwards()[0].host;
    assert_ne!(host.port(), 0);
    host
}

#[test]
fn a_client_of_the_host_talks_to_the_guests_server() {
    let mut guest = TestGuest::new(forward(Protocol::Tcp, 22));
    let listener = guest.listen(22);
    let host = address(&guest);
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(b"thanks").unwrap();
        greeting
    });
    guest.until("the connection", |guest| guest.state(listener) == State::Established);
    assert_eq!(guest.tcp(listener).remote_endpoint().unwrap().addr, GATEWAY.into());
    assert_eq!(guest.converse(listener, b"ssh!", 6), b"thanks");
    guest.tcp(listener).close();
    assert_eq!(&client.join().unwrap(), b"ssh!");
    guest.until("the end", |guest| guest.net.tcp_flows() == 0);
}

#[test]
fn a_closed_port_of_the_guest_resets_the_client() {
    let mut guest = TestGuest::new(forward(Protocol::Tcp, 22));
    let mut stream = TcpStream::connect(address(&guest)).unwrap();
    guest.until("the flow", |guest| guest.net.tcp_flows() == 1);
    guest.until("its end", |guest| guest.net.tcp_flows() == 0);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn udp_peers_are_told_apart() {
    let mut guest = TestGuest::new(forward(Protocol::Udp, 4000));
    let handle = guest.udp(4000);
    let host = address(&guest);
    let clients: Vec<_> = (0..2)
        .map(|i| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            client.send_to(&[i], host).unwrap();
            client
        })
        .collect();
    let mut got = 0;
    guest.until("both", |guest| {
        let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
        while let Ok((data, from)) = socket.recv() {
            let answer = [data[0], data[0] + 10];
            socket.send_slice(&answer, from.endpoint).unwrap();
            got += 1;
        }
        got == 2
    });
    guest.settle();
    for (i, client) in clients.iter().enumerate() {
        let mut bytes = [0; 8];
        let (length, from) = client.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..length], from), (&[i as u8, i as u8 + 10][..], host));
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = taken.local_addr().unwrap();
    let forwards = vec![PortForward { protocol: Protocol::Tcp, host, guest_port: 80 }];
    let error = Network::new(NetConfig { forwards, ..config() }).err().unwrap();
    assert!(matches!(error, NetError::Listen { guest_port: 80, .. }));
    let expected = format!("cannot listen on TCP port {host} for the guest's port 80: another process listens there");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn contradictions_are_refused() {
    let wrong = [
        NetConfig { prefix: 31, ..config() },
        NetConfig { prefix: 200, ..config() },
        NetConfig { mtu: 100, ..config() },
        NetConfig { gateway_ip: IMDS, ..config() },
        NetConfig { gateway_ip: GUEST, ..config() },
        NetConfig { gateway_mac: GUEST_MAC, ..config() },
        NetConfig { guest_mac: [1, 0, 0, 0, 0, 0], ..config() },
        NetConfig { dns: vec![GUEST], ..config() },
        NetConfig { domain: "x".repeat(256), ..config() },
    ];
    for config in wrong {
        assert!(matches!(Network::new(config), Err(NetError::Config(_))));
    }
}
