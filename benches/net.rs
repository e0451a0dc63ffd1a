//! TCP through the user-mode network: a guest (smoltcp, in the same thread) against a server on the host's loopback.
//!
//! The figures contain the guest's own TCP, and the copies that a virtio queue would make.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amiable::ec2::security_group::{self, Cidr, Direction, Permission, SecurityGroup};
use amiable::host::firewall::Firewall;
use amiable::host::spec::{NetworkSpec, SecurityGroups};
use amiable::net::{Gate, NetConfig, Network, NewFlow, Protocol};
use amiable::vmm::backend::{Frame, NetBackend, Offload, PartialChecksum};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ALIAS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const BULK: usize = 16 << 20;

/// What the server is to do with the next bytes.
const SINK: u8 = b'S';
const SOURCE: u8 = b'G';
const ECHO: u8 = b'E';

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 << 10];
    let mut header = [0; 5];
    while stream.read_exact(&mut header).is_ok() {
        let mut left = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        while left > 0 {
            let size = left.min(buffer.len());
            left -= match header[0] {
                SINK => stream.read(&mut buffer[..size])?,
                SOURCE => stream.write(&buffer[..size])?,
                _ => {
                    stream.read_exact(&mut buffer[..size])?;
                    stream.write_all(&buffer[..size])?;
                    size
                }
            };
        }
        if header[0] == SINK {
            stream.write_all(&[1])?;
        }
    }
    Ok(())
}

struct Wire {
    to_guest: VecDeque<Frame>,
    from_guest: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    used: Vec<Frame>,
}

struct Rx<'a>(Frame, &'a mut Vec<Frame>);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.0.bytes);
        self.1.push(self.0);
        result
    }
}

struct Tx<'a>(&'a mut VecDeque<Vec<u8>>, &'a mut Vec<Vec<u8>>);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = self.1.pop().unwrap_or_default();
        frame.resize(length, 0);
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        let frame = self.to_guest.pop_front()?;
        Some((Rx(frame, &mut self.used), Tx(&mut self.from_guest, &mut self.spare)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        (self.from_guest.len() < 64).then_some(Tx(&mut self.from_guest, &mut self.spare))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = 9001 + 14;
        caps.checksum.tcp = Checksum::None;
        caps.segmentation.tcpv4 = std::num::NonZeroUsize::new(65_535 + 14);
        caps
    }
}

fn firewall(groups: Vec<SecurityGroup>) -> Arc<Firewall> {
    let spec = NetworkSpec {
        mac: GUEST_MAC,
        address: GUEST,
        prefix: 24,
        dns: GATEWAY,
        domain: String::new(),
        upstreams: Vec::new(),
        forwards: Vec::new(),
        host_loopback: None,
        groups: SecurityGroups { version: 0, groups },
        peers: Vec::new(),
    };
    Arc::new(Firewall::new(&spec, Arc::new(|_| ())))
}

struct Guest {
    net: Network,
    iface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: Wire,
    epoch: Instant,
    buffer: Vec<u8>,
}

impl Guest {
    fn new() -> Guest {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        std::thread::spawn(move || serve(listener.accept()?.0));
        let config = NetConfig {
            guest_mac: GUEST_MAC,
            guest_ip: GUEST,
            prefix: 24,
            gateway_mac: [2, 0, 0, 0, 0, 1],
            gateway_ip: GATEWAY,
            dns: Vec::new(),
            domain: "ec2.internal".into(),
            host_name: "guest".into(),
            mtu: 9001,
            lease_seconds: 3600,
            names: Vec::new(),
            upstreams: Vec::new(),
            forwards: Vec::new(),
            ntp: None,
            services: Vec::new(),
            host_alias: Some((ALIAS, IpAddr::V4(Ipv4Addr::LOCALHOST))),
            on_lease: None,
            gate: Some(firewall(vec![SecurityGroup::default_group()])),
        };
        let mut net = Network::new(config).expect("a network");
        net.set_guest_offload(true, true);
        let mut wire =
            Wire { to_guest: VecDeque::new(), from_guest: VecDeque::new(), spare: Vec::new(), used: Vec::new() };
        let own = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        let mut iface = Interface::new(own, &mut wire, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|list| list.push(IpCidr::new(IpAddress::Ipv4(GUEST), 24)).expect("room"));
        iface.routes_mut().add_default_ipv4_route(GATEWAY).expect("room");
        let ring = || tcp::SocketBuffer::new(vec![0; 1 << 20]);
        let mut socket = tcp::Socket::new(ring(), ring());
        socket.set_congestion_control(tcp::CongestionControl::None);
        socket.set_nagle_enabled(false);
        socket.connect(iface.context(), (ALIAS, port), 40_000).expect("a connection");
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Guest { net, iface, sockets, socket, wire, epoch: Instant::now(), buffer: vec![0; 256 << 10] }
    }

    fn step(&mut self) {
        let now = Instant::now();
        let guest_now = smoltcp::time::Instant::from_micros((now - self.epoch).as_micros() as i64);
        self.iface.poll(guest_now, &mut self.wire, &mut self.sockets);
        let partial = Some(PartialChecksum { start: 34, offset: 16 });
        let mut idle = self.wire.from_guest.is_empty() && !self.sockets.get::<tcp::Socket<'_>>(self.socket).can_recv();
        for frame in self.wire.from_guest.drain(..) {
            self.net.transmit(&frame, Offload { checksum: partial, ..Offload::default() }, now);
            self.wire.spare.push(frame);
        }
        for frame in self.wire.used.drain(..) {
            self.net.recycle(frame);
        }
        let wait = self.net.poll(now);
        while let Some(frame) = self.net.receive() {
            idle = false;
            self.wire.to_guest.push_back(frame);
        }
        if idle {
            let wait = wait.unwrap_or(Duration::from_millis(1)).min(Duration::from_millis(1));
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
            // SAFETY: the network keeps its epoll instance open as long as it lives.
            let fd = unsafe { BorrowedFd::borrow_raw(self.net.event_fd()) };
            poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)).expect("poll");
        }
    }

    /// Send a header and `send` bytes, and take `expect` bytes.
    fn run(&mut self, operation: u8, length: usize, mut send: usize, mut expect: usize) {
        let mut header = [&[operation][..], &(length as u32).to_le_bytes()].concat();
        loop {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
            if socket.can_send() && !header.is_empty() {
                let sent = socket.send_slice(&header).expect("open");
                header.drain(..sent);
            }
            while header.is_empty() && send > 0 && socket.can_send() {
                let size = send.min(self.buffer.len());
                send -= socket.send_slice(&self.buffer[..size]).expect("open");
            }
            while socket.can_recv() {
                expect -= socket.recv_slice(&mut self.buffer).expect("open");
            }
            if header.is_empty() && send == 0 && expect == 0 {
                break;
            }
            self.step();
        }
    }
}

/// A datagram of 32 bytes from the guest's `source` port, its checksum vouched for by the offload.
fn datagram(source: u16, port: u16) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0, 0, 1][..], &GUEST_MAC, &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(GUEST.octets());
    frame.extend(ALIAS.octets());
    let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    for word in [source, port, 40, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend([7; 32]);
    frame
}

/// What the security groups' part of that is: in the default group, and where the last of as many rules as there can be fits.
fn filter(c: &mut Criterion) {
    let full = |number: u8| {
        let mut group = SecurityGroup::new("full", "full").expect("a group");
        group.rules.clear();
        let rules = (1..=60).map(|n: i32| {
            let peer: Cidr = format!("10.{number}.{n}.0/24").parse().expect("a block");
            Permission::new(security_group::Protocol::Udp, Some((n, n)), peer.into()).expect("a rule")
        });
        group.authorize(Direction::Egress, rules.collect(), None).expect("room");
        group
    };
    let flow = |to: &str| NewFlow::Out { protocol: Protocol::Udp, to: to.parse().expect("an address") };
    let mut group = c.benchmark_group("net/gate");
    for (name, groups, flow) in [
        ("default_group", vec![SecurityGroup::default_group()], flow("192.0.2.1:53")),
        ("five_full_groups", (0..5).map(full).collect(), flow("10.4.60.1:60")),
    ] {
        let firewall = firewall(groups);
        assert!(firewall.admits(&flow));
        group.bench_function(name, |b| b.iter(|| firewall.admits(std::hint::black_box(&flow))));
    }
    group.finish();
}

/// What a flow costs that is new, and what a datagram of one that is there.
fn flows(c: &mut Criterion) {
    let mut guest = Guest::new();
    let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("its number").port();
    let frames: Vec<Vec<u8>> = (1024..60_000).map(|source| datagram(source, port)).collect();
    let good = Offload { checksum_valid: true, ..Offload::default() };
    guest.net.transmit(&frames[0], good, Instant::now());
    assert_eq!(guest.net.udp_flows(), 1, "a datagram makes a flow");
    let mut group = c.benchmark_group("net/udp");
    group.throughput(Throughput::Elements(1));
    let mut next = 0;
    group.bench_function("datagram_new_flow", |b| {
        b.iter(|| {
            next = (next + 1) % frames.len();
            guest.net.transmit(&frames[next], good, Instant::now());
        });
    });
    group.bench_function("datagram_same_flow", |b| b.iter(|| guest.net.transmit(&frames[0], good, Instant::now())));
    group.finish();
}

fn benches(c: &mut Criterion) {
    let mut guest = Guest::new();
    let mut group = c.benchmark_group("net/tcp");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(BULK as u64));
    group.bench_function("guest_to_host_16M", |b| b.iter(|| guest.run(SINK, BULK, BULK, 1)));
    group.bench_function("host_to_guest_16M", |b| b.iter(|| guest.run(SOURCE, BULK, 0, BULK)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("round_trip_64", |b| b.iter(|| guest.run(ECHO, 64, 64, 64)));
    group.finish();
}

criterion_group!(net, benches, flows, filter);
criterion_main!(net);
