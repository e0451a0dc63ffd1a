//! The network as the NIC sees it: takes the guest's frames apart, checks them, and hands each to its part.

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event};

use super::config::{NetConfig, NetError, PortForward};
use super::core::{Core, Route};
use super::dns::{self, Asker, Resolved, Resolver};
use super::forward::Forwards;
use super::fragments::Fragments;
use super::icmp::{Pings, Unreachable, unreachable};
use super::limits::Limits;
use super::slab::{Key, Kind};
use super::tcp::TcpFlows;
use super::udp::UdpFlows;
use super::wire::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ipv4, TTL, Udp};
use super::{arp, dhcp, ipv6, llmnr, ntp};
use crate::vmm::backend::{Frame, NetBackend, Offload};

/// Events taken from epoll at once, and rounds of that in one call of `poll`.
const EVENTS: usize = 64;
const ROUNDS: usize = 4;
/// The largest datagram and TCP read on the slow paths.
const SCRATCH: usize = 64 << 10;
const NTP_PORT: u16 = 123;

/// The longest time between looks while flows wait for the guest to take frames.
const BLOCKED: Duration = Duration::from_millis(20);
/// The fewest entries at which dead ones are looked for.
const LEAST_STALE: usize = 4096;
/// The network behind one NIC.
pub struct Network {
    core: Core,
    tcp: TcpFlows,
    udp: UdpFlows,
    pings: Pings,
    resolver: Resolver,
    forwards: Forwards,
    fragments: Fragments,
    /// At this many entries, the timers and the queue of blocked flows are cleared of the dead.
    stale: usize,
    scratch: Vec<u8>,
}

impl Network {
    /// Make the network and open its listeners.
    ///
    /// # Errors
    /// The configuration contradicts itself, or the host refuses a port or a descriptor.
    pub fn new(config: NetConfig) -> Result<Network, NetError> {
        config.check()?;
        let refused = |what| move |error: rustix::io::Errno| NetError::Host { what, source: error.into() };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(refused("an epoll instance"))?;
        let forwards = Forwards::new(&config.forwards, &epoll)?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| NetError::Host { what: "random numbers", source: std::io::Error::other(error) })?;
        let mut core = Core::new(config, epoll);
        let limits = Limits::of_this_process();
        let tcp = TcpFlows::new(&mut core, u64::from_ne_bytes(seed), limits.tcp);
        Ok(Network {
            core,
            tcp,
            udp: UdpFlows::new(limits.udp),
            pings: Pings::new(limits.pings),
            resolver: Resolver::new(limits.dns),
            forwards,
            fragments: Fragments::default(),
            stale: LEAST_STALE,
            scratch: vec![0; SCRATCH],
        })
    }

    /// The port forwards, with the ports that the host chose where it was asked to.
    pub fn forwards(&self) -> Vec<PortForward> {
        self.forwards.list().collect()
    }

    /// TCP connections at the moment.
    pub fn tcp_flows(&self) -> usize {
        self.tcp.len()
    }

    /// Frames that were dropped because the guest took none for long.
    pub fn dropped_frames(&self) -> u64 {
        self.core.out.dropped
    }

    /// UDP flows at the moment.
    pub fn udp_flows(&self) -> usize {
        self.udp.len()
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.forwards.held()
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> (usize, usize) {
        (self.core.timers.len(), self.core.blocked.len())
    }

    #[cfg(test)]
    pub(crate) fn epoll(&self) -> &std::os::fd::OwnedFd {
        &self.core.epoll
    }

    fn frame(&mut self, frame: &[u8], offload: Offload) {
        let Some(frame) = Ethernet::parse(frame) else { return };
        let config = &self.core.config;
        let for_us = frame.destination == config.gateway_mac || frame.destination[0] & 1 != 0;
        // A NIC sends from its own address only, as EC2's source check has it.
        if frame.source != config.guest_mac || !for_us {
            return;
        }
        match frame.ethertype {
            ETHERTYPE_IPV4 => {
                if let Some(packet) = Ipv4::parse(frame.payload) {
                    self.ipv4(packet, offload.checksum.is_some() || offload.checksum_valid);
                }
            }
            ETHERTYPE_ARP => {
                if let Some(reply) = arp::answer(config, frame.payload) {
                    self.core.out.push_frame(None, ETHERTYPE_ARP, &reply);
                }
            }
            ETHERTYPE_IPV6 => {
                if let Some(reply) = ipv6::answer(config.gateway_mac, frame.payload) {
                    self.core.out.push_frame(None, ETHERTYPE_IPV6, &reply);
                }
            }
            _ => {}
        }
    }

    /// `trusted`: the transport checksum needs no look.
    fn ipv4(&mut self, packet: Ipv4<'_>, trusted: bool) {
        if packet.is_fragment() {
            if packet.source == self.core.guest()
                && let Some(whole) = self.fragments.add(&packet, self.core.now)
            {
                let packet = Ipv4 { payload: &whole.payload, packet: &whole.quote, ..packet };
                self.transport(packet, false);
            }
            return;
        }
        self.transport(packet, trusted);
    }

    fn transport(&mut self, packet: Ipv4<'_>, trusted: bool) {
        let spoofed = packet.source != self.core.guest();
        match packet.protocol {
            wire::UDP => {
                let Some(datagram) = Udp::parse(packet.payload) else { return };
                if !trusted && datagram.checksum != 0 {
                    let length = wire::UDP_HEADER + datagram.payload.len();
                    let covered = Ipv4 { payload: packet.payload.get(..length).unwrap_or_default(), ..packet };
                    if !covered.transport_checksum_fits() {
                        return;
                    }
                }
                if (datagram.source, datagram.destination) == (dhcp::CLIENT_PORT, dhcp::SERVER_PORT) {
                    return self.dhcp(packet.destination, datagram.payload);
                }
                if !spoofed {
                    self.datagram(&packet, &datagram);
                }
            }
            _ if spoofed => {}
            wire::TCP => {
                let unicast = !packet.destination.is_multicast() && !packet.destination.is_broadcast();
                if unicast && (trusted || packet.transport_checksum_fits()) {
                    self.tcp.transmit(&mut self.core, &packet);
                }
            }
            wire::ICMP => self.pings.transmit(&mut self.core, &packet),
            _ => {
                if !packet.destination.is_multicast() && !packet.destination.is_broadcast() {
                    let gateway = self.core.config.gateway_ip;
                    unreachable(&mut self.core, gateway, Unreachable::Protocol, packet.packet);
                }
            }
        }
    }

    fn dhcp(&mut self, destination: Ipv4Addr, message: &[u8]) {
        let config = &self.core.config;
        if destination != Ipv4Addr::BROADCAST && destination != config.gateway_ip {
            return;
        }
        if let Some(reply) = dhcp::answer(config, message) {
            let source = (config.gateway_ip, dhcp::SERVER_PORT);
            if reply.leased
                && let Some(tell) = &config.on_lease
            {
                tell();
            }
            self.core.out.push_udp(source, (reply.to, dhcp::CLIENT_PORT), TTL, &reply.message);
        }
    }

    fn datagram(&mut self, packet: &Ipv4<'_>, datagram: &Udp<'_>) {
        let to = packet.destination;
        let config = &self.core.config;
        if to == llmnr::GROUP && datagram.destination == llmnr::PORT {
            if let Some(reply) = llmnr::answer(datagram.payload) {
                let source = (config.gateway_ip, llmnr::PORT);
                let guest = (config.guest_ip, datagram.source);
                self.core.out.push_udp(source, guest, llmnr::HOP_LIMIT, &reply);
            }
            return;
        }
        if to.is_multicast() || to.is_broadcast() || to == config.broadcast() || datagram.source == 0 {
            return;
        }
        let destination = SocketAddrV4::new(to, datagram.destination);
        match self.core.route(destination) {
            Route::Host(host) => {
                let (payload, quote) = (datagram.payload, packet.packet);
                self.udp.transmit(&mut self.core, datagram.source, destination, host, payload, quote);
            }
            Route::Nowhere => {
                let gateway = config.gateway_ip;
                unreachable(&mut self.core, gateway, Unreachable::Host, packet.packet);
            }
            Route::Local => {
                if !self.local_datagram(to, datagram) {
                    unreachable(&mut self.core, to, Unreachable::Port, packet.packet);
                }
            }
        }
    }

    /// Whether somebody here took the datagram.
    fn local_datagram(&mut self, to: Ipv4Addr, datagram: &Udp<'_>) -> bool {
        let config = &self.core.config;
        if datagram.destination == dns::PORT && config.dns.contains(&to) {
            let asker = Asker::Udp(to, datagram.source);
            let resolved = self.resolver.query(&mut self.core, asker, datagram.payload);
            self.resolved(resolved);
            return true;
        }
        if datagram.destination == NTP_PORT && config.ntp == Some(to) {
            if let Some(reply) = ntp::answer(datagram.payload, to, SystemTime::now()) {
                let guest = (config.guest_ip, datagram.source);
                self.core.out.push_udp((to, NTP_PORT), guest, TTL, &reply);
            }
            return true;
        }
        let payload = datagram.payload;
        to == config.gateway_ip
            && self.forwards.transmit(&mut self.core, datagram.source, datagram.destination, payload)
    }

    fn resolved(&mut self, resolved: Resolved) {
        if let Some((key, message)) = resolved {
            self.tcp.resolved(&mut self.core, key, &message);
        }
    }

    /// Resolve what TCP connections asked for.
    fn requests(&mut self) {
        while let Some((key, message)) = self.core.next_request() {
            let resolved = self.resolver.query(&mut self.core, Asker::Tcp(key), &message);
            self.resolved(resolved);
        }
    }

    fn ready(&mut self, event: Event) {
        let Some(key) = Key::from_u64(event.data.u64()) else { return };
        let (core, scratch) = (&mut self.core, &mut self.scratch[..]);
        match key.kind {
            Kind::Tcp => self.tcp.ready(core, key, event.flags),
            Kind::Udp => self.udp.service(core, key, scratch),
            Kind::Ping => self.pings.ready(core, key, scratch),
            Kind::Forward => self.forwards.ready(core, &mut self.tcp, key, scratch),
            Kind::Dns => {
                let resolved = self.resolver.ready(core, key, event.flags, scratch);
                self.resolved(resolved);
            }
            Kind::Peer | Kind::Held => {}
        }
    }

    fn expire(&mut self, at: Instant, key: Key) {
        let (core, scratch) = (&mut self.core, &mut self.scratch[..]);
        match key.kind {
            Kind::Tcp => self.tcp.expire(core, key, at),
            Kind::Udp => self.udp.expire(core, key, at),
            Kind::Ping => self.pings.expire(core, key, at),
            Kind::Peer => self.forwards.expire(core, key, at),
            Kind::Dns => {
                let resolved = self.resolver.expire(core, key, at);
                self.resolved(resolved);
            }
            Kind::Forward => self.forwards.resume(core, &mut self.tcp, key, scratch),
            Kind::Held => self.forwards.retry(core, &mut self.tcp, at),
        }
    }

    /// Drop what belongs to flows that are gone, once half of all may be of that kind: a guest that makes and forgets
    /// flows quickly must not fill our memory.
    fn sweep(&mut self) {
        if self.core.timers.len().max(self.core.blocked.len()) < self.stale {
            return;
        }
        let (tcp, udp, pings) = (&self.tcp, &self.udp, &self.pings);
        let (resolver, forwards) = (&self.resolver, &self.forwards);
        let armed = |key: Key| match key.kind {
            Kind::Tcp => tcp.armed(key),
            Kind::Udp => udp.armed(key),
            Kind::Ping => pings.armed(key),
            Kind::Dns => resolver.armed(key),
            Kind::Forward | Kind::Peer | Kind::Held => forwards.armed(key),
        };
        self.core.timers.retain(|at, key| armed(key) == Some(at));
        self.core.blocked.retain(|&key| tcp.is_blocked(key) || udp.is_blocked(key));
        self.stale = (2 * self.core.timers.len().max(self.core.blocked.len())).max(LEAST_STALE);
    }

    /// Let flows go on that waited for room, each at most once.
    fn unblock(&mut self) {
        for _ in 0..self.core.blocked.len() {
            if !self.core.out.has_room() {
                break;
            }
            let Some(key) = self.core.blocked.pop_front() else { break };
            match key.kind {
                Kind::Tcp => {
                    self.tcp.unblock(key);
                    self.tcp.service(&mut self.core, key);
                }
                Kind::Udp => {
                    self.udp.unblock(key);
                    self.udp.service(&mut self.core, key, &mut self.scratch);
                }
                _ => {}
            }
        }
    }
}

impl NetBackend for Network {
    fn set_guest_offload(&mut self, checksum: bool, tcp_segment: bool) {
        self.core.out.partial_checksum = checksum;
        self.core.out.tcp_segment = checksum && tcp_segment;
        self.tcp.rebuild(&mut self.core);
    }

    fn transmit(&mut self, frame: &[u8], offload: Offload, now: Instant) {
        self.core.set_now(now);
        self.frame(frame, offload);
        self.requests();
        self.sweep();
    }

    fn receive(&mut self) -> Option<Frame> {
        if self.core.out.is_empty() {
            self.unblock();
        }
        self.core.out.pop()
    }

    fn recycle(&mut self, frame: Frame) {
        self.core.out.recycle(frame);
    }

    fn poll(&mut self, now: Instant) -> Option<Duration> {
        self.core.set_now(now);
        let mut more = false;
        for _ in 0..ROUNDS {
            let mut space = [MaybeUninit::<Event>::uninit(); EVENTS];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // The only error here is a signal's, and then the next call sees what is there.
            let Ok((events, _)) = epoll::wait(&self.core.epoll, &mut space, Some(&now)) else { break };
            more = events.len() == EVENTS;
            for event in events {
                self.ready(*event);
            }
            if !more {
                break;
            }
        }
        while let Some((at, key)) = self.core.timers.expired(now) {
            self.expire(at, key);
        }
        self.requests();
        self.unblock();
        if more || (!self.core.blocked.is_empty() && self.core.out.has_room()) {
            return Some(Duration::ZERO);
        }
        let next = self.core.timers.next().map(|at| at.saturating_duration_since(now));
        if self.core.blocked.is_empty() {
            return next;
        }
        // They go on in `receive`, and may set timers there that this answer can't know.
        Some(next.map_or(BLOCKED, |next| next.min(BLOCKED)))
    }

    fn event_fd(&self) -> RawFd {
        self.core.epoll.as_raw_fd()
    }
}
