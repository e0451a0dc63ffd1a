//! The filter: what it keeps out, what it is not asked about, and what goes on when it closes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smoltcp::socket::tcp::State;
use smoltcp::socket::udp;

use crate::net::testing::*;
use crate::net::{Gate, NetConfig, NewFlow, PortForward, Protocol, wire};

/// Open or not, and a memory of what it was asked.
#[derive(Default)]
struct Door {
    open: AtomicBool,
    asked: Mutex<Vec<NewFlow>>,
}

impl Door {
    fn set(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    fn asked(&self) -> Vec<NewFlow> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Gate for Door {
    fn admits(&self, flow: &NewFlow) -> bool {
        self.asked.lock().unwrap().push(*flow);
        self.open.load(Ordering::Relaxed)
    }
}

fn guest(forwards: Vec<PortForward>) -> (TestGuest, Arc<Door>) {
    let door = Arc::new(Door::default());
    let mut guest = TestGuest::new(NetConfig { gate: Some(door.clone()), forwards, ..config() });
    guest.seen = Some(Vec::new());
    (guest, door)
}

fn forward(protocol: Protocol, guest_port: u16) -> Vec<PortForward> {
    vec![PortForward { protocol, host: "127.0.0.1:0".parse().unwrap(), guest_port }]
}

#[test]
fn a_connection_that_may_not_leave_is_dropped_without_an_answer() {
    let (mut guest, door) = guest(Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = SocketAddrV4::new(ALIAS, listener.local_addr().unwrap().port());
    let socket = guest.connect(to);
    guest.until("the question", |_| !door.asked.lock().unwrap().is_empty());
    assert_eq!(door.asked(), [NewFlow::Out { protocol: Protocol::Tcp, to }]);
    assert_eq!((guest.state(socket), guest.net.tcp_flows()), (State::SynSent, 0));
    let is_ipv4 = |frame: &crate::vmm::backend::Frame| frame.bytes[12..14] == [8, 0];
    assert!(!guest.seen.as_ref().unwrap().iter().any(is_ipv4), "no reset, no error");
    // The guest's own next attempt passes.
    door.set(true);
    guest.until("the connection", |guest| guest.state(socket) == State::Established);
}

#[test]
fn a_connection_goes_on_when_the_gate_closes() {
    let (mut guest, door) = guest(Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = SocketAddrV4::new(ALIAS, listener.local_addr().unwrap().port());
    door.set(true);
    let socket = guest.connect(to);
    let (mut host, _) = {
        guest.until("the connection", |guest| guest.state(socket) == State::Established);
        listener.accept().unwrap()
    };
    door.set(false);
    let asked = door.asked().len();
    assert_eq!(asked, 1, "once for a flow");
    host.write_all(b"still here").unwrap();
    assert_eq!(guest.converse(socket, b"me too", 10), b"still here");
    let mut bytes = [0; 6];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"me too");
    assert!(door.asked().is_empty());
    let other = guest.connect(to);
    guest.until("the question", |_| !door.asked.lock().unwrap().is_empty());
    assert_eq!(guest.state(other), State::SynSent);
}

#[test]
fn datagrams_are_asked_about_once_for_a_flow() {
    let (mut guest, door) = guest(Vec::new());
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    host.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let to = (ALIAS, host.local_addr().unwrap().port());
    let frame = |source| udp_frame((GUEST, source), to, b"hello");
    assert!(guest.exchange(&frame(5000)).is_empty(), "no error comes back");
    assert_eq!(guest.net.udp_flows(), 0);
    door.set(true);
    guest.exchange(&frame(5000));
    assert_eq!((guest.net.udp_flows(), door.asked().len()), (1, 2));
    let mut bytes = [0; 16];
    let (_, from) = host.recv_from(&mut bytes).unwrap();
    door.set(false);
    // Both ways of the flow that is there.
    guest.exchange(&frame(5000));
    host.recv_from(&mut bytes).unwrap();
    host.send_to(b"answer", from).unwrap();
    guest.until("the answer", |guest| guest.seen.as_ref().unwrap().iter().any(|f| f.bytes.ends_with(b"answer")));
    assert!(door.asked().is_empty());
    // And no other one.
    assert!(guest.exchange(&frame(5001)).is_empty());
    assert_eq!(guest.net.udp_flows(), 1);
}

#[test]
fn an_echo_request_that_may_not_leave_is_dropped() {
    let (mut guest, door) = guest(Vec::new());
    let mut echo = vec![8, 0, 0, 0, 1, 2, 0, 1];
    let sum = wire::internet_checksum(&echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    assert!(guest.exchange(&ip_frame(GUEST, ALIAS, wire::ICMP, &echo)).is_empty());
    assert_eq!(door.asked(), [NewFlow::Echo { to: ALIAS }]);
    // The gateway's own answer is not.
    assert_eq!(guest.exchange(&ip_frame(GUEST, GATEWAY, wire::ICMP, &echo)).len(), 1);
    assert!(door.asked().is_empty());
}

#[test]
fn services_of_the_network_are_never_asked_about() {
    let (mut guest, door) = guest(Vec::new());
    let imds = guest.connect(SocketAddrV4::new(IMDS, 80));
    assert_eq!(guest.converse(imds, b"metadata", 8), b"METADATA");
    let dns_over_tcp = guest.connect(SocketAddrV4::new(LINK_DNS, 53));
    guest.until("DNS over TCP", |guest| guest.state(dns_over_tcp) == State::Established);
    for resolver in [DNS, LINK_DNS] {
        assert!(guest.ask_udp((resolver, 53), &dns_query(1, "db.example.org", 1)).is_some());
    }
    let mut query = [0; 48];
    query[0] = 0x23;
    assert!(guest.ask_udp((NTP, 123), &query).is_some());
    let mut discover = vec![0; 240];
    discover[..4].copy_from_slice(&[1, 1, 6, 0]);
    discover[28..34].copy_from_slice(&GUEST_MAC);
    discover[236..240].copy_from_slice(&[99, 130, 83, 99]);
    discover.extend([53, 1, 1, 255]);
    let anywhere = (Ipv4Addr::UNSPECIFIED, 68);
    assert_eq!(guest.exchange(&udp_frame(anywhere, (Ipv4Addr::BROADCAST, 67), &discover)).len(), 1);
    assert!(door.asked().is_empty());
}

#[test]
fn a_client_that_may_not_enter_waits_and_enters_when_it_may() {
    let (mut guest, door) = guest(forward(Protocol::Tcp, 22));
    let listener = guest.listen(22);
    let host = guest.net.forwards()[0].host;
    let mut client = TcpStream::connect(host).unwrap();
    client.write_all(b"hello").unwrap();
    guest.until("it is held", |guest| guest.net.held() == 1);
    let from = client.local_addr().unwrap();
    let expected = PortForward { protocol: Protocol::Tcp, host, guest_port: 22 };
    assert_eq!(door.asked()[0], NewFlow::In { forward: expected, from });
    assert_eq!((guest.net.tcp_flows(), guest.state(listener)), (0, State::Listen));
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock, "neither data nor an end");
    door.set(true);
    guest.until("the connection", |guest| guest.state(listener) == State::Established);
    assert_eq!(guest.converse(listener, b"", 5), b"hello");
    assert_eq!(guest.net.held(), 0);
    // Once inside, it stays.
    door.set(false);
    client.set_nonblocking(false).unwrap();
    client.write_all(b"again").unwrap();
    assert_eq!(guest.converse(listener, b"yes", 5), b"again");
    let mut answer = [0; 3];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"yes");
}

#[test]
fn a_client_that_gave_up_does_not_enter() {
    let (mut guest, door) = guest(forward(Protocol::Tcp, 22));
    let listener = guest.listen(22);
    let mut client = TcpStream::connect(guest.net.forwards()[0].host).unwrap();
    client.write_all(b"hello").unwrap();
    guest.until("it is held", |guest| guest.net.held() == 1);
    drop(client);
    door.set(true);
    guest.until("it is let go", |guest| guest.net.held() == 0);
    assert_eq!((guest.net.tcp_flows(), guest.state(listener)), (0, State::Listen));
}

#[test]
fn few_are_held_and_the_oldest_is_reset_for_the_newest() {
    let (mut guest, _door) = guest(forward(Protocol::Tcp, 22));
    let host = guest.net.forwards()[0].host;
    let mut clients = Vec::new();
    for _ in 0..65 {
        clients.push(TcpStream::connect(host).unwrap());
    }
    let first = clients[0].try_clone().unwrap();
    first.set_nonblocking(true).unwrap();
    let kind = |mut stream: &TcpStream| stream.read(&mut [0; 1]).map_err(|error| error.kind());
    guest.until("the first one's end", |_| kind(&first) == Err(ErrorKind::ConnectionReset));
    assert_eq!(guest.net.held(), 64);
    clients[64].set_nonblocking(true).unwrap();
    assert_eq!(kind(&clients[64]), Err(ErrorKind::WouldBlock));
}

#[test]
fn datagrams_from_the_host_are_let_in_by_their_sender() {
    let (mut guest, door) = guest(forward(Protocol::Udp, 4000));
    let handle = guest.udp(4000);
    let host: SocketAddr = guest.net.forwards()[0].host;
    let client = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (allowed, denied) = (client(), client());
    let got =
        |guest: &mut TestGuest| guest.sockets.get_mut::<udp::Socket<'_>>(handle).recv().ok().map(|r| r.0.to_vec());
    door.set(true);
    allowed.send_to(b"first", host).unwrap();
    guest.until("the first datagram", |guest| got(guest).as_deref() == Some(b"first"));
    door.set(false);
    denied.send_to(b"denied", host).unwrap();
    allowed.send_to(b"second", host).unwrap();
    let mut all = Vec::new();
    guest.until("the second datagram", |guest| {
        all.extend(got(guest));
        all.last().is_some_and(|last| last == b"second")
    });
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(door.asked().len(), 2);
}
