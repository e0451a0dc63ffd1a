//! A guest for tests: smoltcp's own stack as the guest's kernel, wired to a [`Network`] without a NIC between.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::*;
use crate::vmm::backend::{Frame, NetBackend, Offload, PartialChecksum};

pub(crate) const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const LINK_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
pub(crate) const NTP: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 123);
pub(crate) const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub(crate) const ALIAS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Longer than anything here takes, even on a crowded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration as EC2 would have it, with the host's loopback behind [`ALIAS`].
pub(crate) fn config() -> NetConfig {
    NetConfig {
        guest_mac: GUEST_MAC,
        guest_ip: GUEST,
        prefix: 24,
        gateway_mac: GATEWAY_MAC,
        gateway_ip: GATEWAY,
        dns: vec![DNS, LINK_DNS],
        domain: "ec2.internal".into(),
        host_name: "ip-10-0-0-5".into(),
        mtu: 9001,
        lease_seconds: 3600,
        names: vec![("db.example.org".into(), Ipv4Addr::new(10, 9, 9, 9))],
        upstreams: Vec::new(),
        forwards: Vec::new(),
        ntp: Some(NTP),
        services: vec![(SocketAddrV4::new(IMDS, 80), Arc::new(Shout))],
        host_alias: Some((ALIAS, IpAddr::V4(Ipv4Addr::LOCALHOST))),
        on_lease: None,
        gate: None,
    }
}

/// Answers each line in capitals; `ttl` sets a hop limit, `bye` closes.
struct Shout;

impl StreamService for Shout {
    fn open(&self, _: SocketAddrV4) -> Box<dyn StreamSession> {
        Box::new(Shout)
    }
}

impl StreamSession for Shout {
    fn receive(&mut self, bytes: &[u8], reply: &mut Vec<u8>) -> SessionState {
        reply.extend(bytes.to_ascii_uppercase());
        SessionState { close: bytes.starts_with(b"bye"), hop_limit: bytes.starts_with(b"ttl").then_some(2) }
    }
}

/// The wire between guest and network.
#[derive(Default)]
pub(crate) struct Wire {
    to_guest: VecDeque<Frame>,
    from_guest: VecDeque<Vec<u8>>,
    offload: bool,
    mtu: usize,
}

/// A guest and its network.
pub(crate) struct TestGuest {
    pub net: Network,
    pub iface: Interface,
    pub sockets: SocketSet<'static>,
    pub wire: Wire,
    epoch: Instant,
    port: u16,
    /// Every frame that the guest received, if wanted.
    pub seen: Option<Vec<Frame>>,
}

impl TestGuest {
    pub fn new(config: NetConfig) -> TestGuest {
        TestGuest::with_offload(config, true)
    }

    pub fn with_offload(config: NetConfig, offload: bool) -> TestGuest {
        let mut wire = Wire { offload, mtu: usize::from(config.mtu), ..Wire::default() };
        let mut net = Network::new(config).unwrap();
        net.set_guest_offload(offload, offload);
        let own = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        let mut iface = Interface::new(own, &mut wire, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|list| list.push(IpCidr::new(IpAddress::Ipv4(GUEST), 24)).unwrap());
        iface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        let sockets = SocketSet::new(Vec::new());
        TestGuest { net, iface, sockets, wire, epoch: Instant::now(), port: 40_000, seen: None }
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(self.epoch.elapsed().as_micros() as i64)
    }

    /// Let everybody do what can be done now. Gives the time until a timer is due.
    pub fn step(&mut self) -> Option<Duration> {
        let now = self.now();
        self.iface.poll(now, &mut self.wire, &mut self.sockets);
        let host_now = Instant::now();
        let busy = !self.wire.from_guest.is_empty();
        for frame in self.wire.from_guest.drain(..) {
            let offload = if self.wire.offload {
                Offload { checksum: Some(PartialChecksum { start: 34, offset: 16 }), ..Offload::default() }
            } else {
                Offload::default()
            };
            self.net.transmit(&frame, offload, host_now);
        }
        let wait = self.net.poll(host_now);
        let mut got = false;
        while let Some(frame) = self.net.receive() {
            got = true;
            if let Some(seen) = &mut self.seen {
                seen.push(Frame { bytes: frame.bytes.clone(), offload: frame.offload });
            }
            self.wire.to_guest.push_back(frame);
        }
        if got || busy {
            return Some(Duration::ZERO);
        }
        let guest_wait = self.iface.poll_delay(self.now(), &self.sockets).map(Duration::from);
        match (wait, guest_wait) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Step until `done`, waiting on the network's descriptor and timers.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut TestGuest) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wait = self.step();
            if done(self) {
                return;
            }
            assert!(Instant::now() < deadline, "gave up waiting for {what}");
            // Capped for what happens in other threads of a test.
            let wait = wait.unwrap_or(PATIENCE).min(Duration::from_millis(20));
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
            poll(&mut [PollFd::new(self.net.epoll(), PollFlags::IN)], Some(&timeout)).unwrap();
        }
    }

    /// Step until nobody has anything to do at once.
    pub fn settle(&mut self) {
        while self.step().is_some_and(|wait| wait.is_zero()) {}
    }

    /// Send a raw frame and collect what comes back at once.
    pub fn exchange(&mut self, frame: &[u8]) -> Vec<Frame> {
        self.net.transmit(frame, Offload::default(), Instant::now());
        std::iter::from_fn(|| self.net.receive()).collect()
    }

    /// The one UDP payload that answers a datagram, with the reply's source and time to live.
    pub fn ask_udp(&mut self, to: (Ipv4Addr, u16), payload: &[u8]) -> Option<(Ipv4Addr, u8, Vec<u8>)> {
        let frames = self.exchange(&udp_frame((GUEST, 5000), to, payload));
        assert!(frames.len() <= 1, "one answer at most");
        let frame = frames.into_iter().next()?;
        let packet = wire::Ipv4::parse(&frame.bytes[14..]).unwrap();
        if packet.protocol != wire::UDP {
            return None;
        }
        assert!(packet.transport_checksum_fits());
        let datagram = wire::Udp::parse(packet.payload).unwrap();
        assert_eq!((packet.destination, datagram.destination, datagram.source), (GUEST, 5000, to.1));
        Some((packet.source, frame.bytes[22], datagram.payload.to_vec()))
    }

    /// A new TCP socket, connecting.
    pub fn connect(&mut self, to: impl Into<SocketAddr>) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        self.port += 1;
        let to: SocketAddr = to.into();
        socket.connect(self.iface.context(), to, self.port).unwrap();
        self.sockets.add(socket)
    }

    pub fn listen(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub fn udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 64 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn state(&mut self, handle: SocketHandle) -> tcp::State {
        self.tcp(handle).state()
    }

    /// Send all of `bytes` and read until `expected` bytes came or the other side ended.
    pub fn converse(&mut self, handle: SocketHandle, bytes: &[u8], expected: usize) -> Vec<u8> {
        let (mut sent, mut got) = (0, Vec::new());
        self.until("a conversation", |guest| {
            let socket = guest.tcp(handle);
            if socket.can_send() && sent < bytes.len() {
                sent += socket.send_slice(&bytes[sent..]).unwrap();
            }
            while socket.can_recv() {
                socket.recv(|data| (data.len(), got.extend_from_slice(data))).unwrap();
            }
            let ended = socket.state() != tcp::State::SynSent && !socket.may_recv();
            sent == bytes.len() && (got.len() >= expected || ended)
        });
        got
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        Some((Rx(self.to_guest.pop_front()?), Tx(self)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        (self.from_guest.len() < 64).then_some(Tx(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = self.mtu + 14;
        if self.offload {
            caps.checksum.tcp = Checksum::None;
            caps.checksum.udp = Checksum::None;
            caps.segmentation.tcpv4 = std::num::NonZeroUsize::new(65_535 + 14);
        }
        caps
    }
}

pub(crate) struct Rx(Frame);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0.bytes)
    }
}

pub(crate) struct Tx<'a>(&'a mut Wire);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.from_guest.push_back(frame);
        result
    }
}

/// An Ethernet frame from the guest to the gateway.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &GUEST_MAC[..], &ethertype.to_be_bytes()[..], payload].concat()
}

/// An IPv4 packet in a frame.
pub(crate) fn ip_frame(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = wire::Ipv4Header { source, destination, protocol, ttl: 64, ident: 7, fragment: 0 };
    ethernet(wire::ETHERTYPE_IPV4, &[&header.bytes(payload.len())[..], payload].concat())
}

/// A UDP datagram in a frame.
pub(crate) fn udp_frame(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let header = wire::udp_header(source, destination, payload).unwrap();
    ip_frame(source.0, destination.0, wire::UDP, &[&header[..], payload].concat())
}

/// A DNS query with one question.
pub(crate) fn dns_query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut query = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}
