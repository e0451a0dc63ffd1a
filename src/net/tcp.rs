//! NAT for TCP: every connection of the guest's ends in a smoltcp socket here, and goes on as a connection of the host's.
//!
//! A SYN is answered only when the host's `connect` has ended: SYN|ACK, a reset or an ICMP error, as the real network
//! would have it. Each flow has a socket set of its own, chosen by the frame's addresses and ports, so that the work
//! per frame does not grow with the number of flows.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::{HardwareAddress, IpAddress};

use super::config::{NewFlow, Protocol};
use super::core::{Core, Route};
use super::flow::{Flow, FlowKey, HostPeer, LINGER, Peer};
use super::host;
use super::icmp::{Unreachable, unreachable, unreachable_flow};
use super::outbox::Port;
use super::session::Session;
use super::slab::{Key, Kind, Slab};
use super::wire::{self, Ipv4, be16};

/// Connections that end in this process.
const SESSIONS: usize = 256;
/// Each direction's buffer while there are few flows, and when there are many (they bound the memory a guest can take).
const BUFFER: usize = 256 << 10;
const SMALL_BUFFER: usize = 64 << 10;
const FEW: usize = 256;
const DNS_PORT: u16 = 53;
/// Our own ports towards the guest, for forwarded connections.
const EPHEMERAL: std::ops::Range<u16> = 32768..61000;
/// smoltcp asks to be polled at once now and then with nothing to do.
const SOON: Duration = Duration::from_millis(5);

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

pub(crate) struct TcpFlows {
    iface: Interface,
    seed: u64,
    index: HashMap<FlowKey, Key>,
    flows: Slab<Flow>,
    sessions: usize,
    /// No sockets: whatever is shown to it is refused.
    nobody: SocketSet<'static>,
    next_port: u16,
}

impl TcpFlows {
    /// Beyond `limit` flows, new ones are refused.
    pub fn new(core: &mut Core, seed: u64, limit: usize) -> TcpFlows {
        TcpFlows {
            iface: interface(core, seed),
            seed,
            index: HashMap::new(),
            flows: Slab::new(Kind::Tcp, limit),
            sessions: 0,
            nobody: SocketSet::new(Vec::new()),
            next_port: EPHEMERAL.start + (seed % 20_000) as u16,
        }
    }

    /// The guest's offloads changed. The interface keeps nothing about connections.
    pub fn rebuild(&mut self, core: &mut Core) {
        self.seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        self.iface = interface(core, self.seed);
    }

    /// A segment from the guest, its checksum verified.
    pub fn transmit(&mut self, core: &mut Core, packet: &Ipv4<'_>) {
        let segment = packet.payload;
        let (Some(source), Some(port), Some(&flags)) = (be16(segment, 0), be16(segment, 2), segment.get(13)) else {
            return;
        };
        if source == 0 || port == 0 {
            return;
        }
        let to = SocketAddrV4::new(packet.destination, port);
        let opens = flags & (SYN | ACK | RST | FIN) == SYN;
        let mut key = self.index.get(&(source, to)).copied();
        if let Some(old) = key
            && opens
            && self.flows.get(old).is_some_and(|flow| flow.state() == State::TimeWait)
        {
            self.remove(old);
            key = None;
        }
        match key {
            Some(key) => self.ingress(core, key, packet),
            None if opens => self.open(core, (source, to), packet),
            None => self.refuse(core, packet),
        }
    }

    fn ingress(&mut self, core: &mut Core, key: Key, packet: &Ipv4<'_>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let now = core.smoltcp_now();
        let mut port = Port { outbox: &mut core.out, packet: Some(packet.packet) };
        self.iface.poll_ingress_single(now, &mut port, &mut flow.set);
        self.service(core, key);
    }

    /// Answer with a reset.
    fn refuse(&mut self, core: &mut Core, packet: &Ipv4<'_>) {
        let now = core.smoltcp_now();
        let mut port = Port { outbox: &mut core.out, packet: Some(packet.packet) };
        self.iface.poll_ingress_single(now, &mut port, &mut self.nobody);
    }

    fn open(&mut self, core: &mut Core, key: FlowKey, packet: &Ipv4<'_>) {
        let to = key.1;
        let peer = match core.route(to) {
            Route::Local => self.local_peer(core, key),
            Route::Nowhere if to.ip().is_link_local() => None,
            Route::Nowhere => {
                return unreachable(core, core.config.gateway_ip, Unreachable::Host, packet.packet);
            }
            Route::Host(_) if !core.admits(&NewFlow::Out { protocol: Protocol::Tcp, to }) => return,
            Route::Host(_) if self.flows.is_full() => None,
            Route::Host(address) => match host::tcp_connect(address) {
                Ok((fd, connected)) => Some(Peer::Host(HostPeer::new(fd, !connected, false))),
                Err(Errno::CONNREFUSED | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => None,
                Err(error) => {
                    let why = Unreachable::from_errno(error);
                    return unreachable(core, core.config.gateway_ip, why, packet.packet);
                }
            },
        };
        let sequence = packet.payload.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        let Some(slot) = peer.and_then(|peer| self.insert(core, key, peer, sequence)) else {
            return self.refuse(core, packet);
        };
        let listening =
            self.flows.get_mut(slot).map(|flow| flow.socket().listen((IpAddress::Ipv4(*to.ip()), to.port())));
        if !matches!(listening, Some(Ok(()))) {
            self.remove(slot);
            return;
        }
        self.ingress(core, slot, packet);
    }

    fn local_peer(&self, core: &Core, (source, to): FlowKey) -> Option<Peer> {
        if self.sessions >= SESSIONS {
            return None;
        }
        if let Some((_, service)) = core.config.services.iter().find(|(address, _)| *address == to) {
            let session = service.open(SocketAddrV4::new(core.guest(), source));
            return Some(Peer::Local(Session::service(session, core.now)));
        }
        let dns = to.port() == DNS_PORT && core.config.dns.contains(to.ip());
        dns.then(|| Peer::Local(Session::dns(core.now)))
    }

    /// A new flow, watched and indexed.
    fn insert(&mut self, core: &Core, key: FlowKey, peer: Peer, sequence: u32) -> Option<Key> {
        let (receive, send) = match peer {
            Peer::Local(_) => (16 << 10, SMALL_BUFFER),
            Peer::Host(_) if self.flows.len() < FEW => (BUFFER, BUFFER),
            Peer::Host(_) => (SMALL_BUFFER, SMALL_BUFFER),
        };
        let local = matches!(peer, Peer::Local(_));
        let slot = self.flows.insert_with(|slot| {
            if let Peer::Host(host) = &peer {
                host::watch(&core.epoll, &host.fd, slot).ok()?;
            }
            Some(Flow::new(key, peer, receive, send, sequence))
        })?;
        self.sessions += usize::from(local);
        self.index.insert(key, slot);
        Some(slot)
    }

    fn remove(&mut self, key: Key) {
        if let Some(flow) = self.flows.remove(key) {
            self.index.remove(&flow.key);
            self.sessions -= usize::from(matches!(flow.peer, Peer::Local(_)));
            flow.finish();
        }
    }

    /// A connection that the host accepted for `guest_port`: connect to the guest from the gateway's address.
    pub fn forward(&mut self, core: &mut Core, fd: OwnedFd, guest_port: u16) {
        let gateway = core.config.gateway_ip;
        let free = (0..64).find_map(|_| {
            self.next_port = if self.next_port + 1 < EPHEMERAL.end { self.next_port + 1 } else { EPHEMERAL.start };
            let key = (guest_port, SocketAddrV4::new(gateway, self.next_port));
            (!self.index.contains_key(&key)).then_some(key)
        });
        let peer = Peer::Host(HostPeer::new(fd, false, true));
        let Some(slot) = free.and_then(|key| self.insert(core, key, peer, 0)) else { return };
        let Some(flow) = self.flows.get_mut(slot) else { return };
        let local = (IpAddress::Ipv4(gateway), flow.key.1.port());
        let remote = (IpAddress::Ipv4(core.config.guest_ip), guest_port);
        let socket: &mut Socket<'static> = flow.socket();
        if socket.connect(self.iface.context(), remote, local).is_err() {
            return self.remove(slot);
        }
        self.service(core, slot);
    }

    /// epoll says that a flow's socket changed.
    pub fn ready(&mut self, core: &mut Core, key: Key, events: EventFlags) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Peer::Host(peer) = &mut flow.peer else { return };
        let ended = events.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if peer.connecting {
            if !ended && !events.contains(EventFlags::OUT) {
                return;
            }
            match host::pending_error(&peer.fd) {
                None => {
                    peer.connecting = false;
                    flow.socket().pause_synack(false);
                }
                Some(Errno::CONNREFUSED | Errno::CONNRESET) => flow.socket().abort(),
                Some(error) => {
                    let ((source, to), sequence) = (flow.key, flow.sequence);
                    self.remove(key);
                    let why = Unreachable::from_errno(error);
                    return unreachable_flow(core, why, wire::TCP, source, to, sequence);
                }
            }
        }
        let Some(Flow { peer: Peer::Host(peer), .. }) = self.flows.get_mut(key) else { return };
        peer.readable |= ended || events.contains(EventFlags::IN);
        peer.writable |= ended || events.contains(EventFlags::OUT);
        peer.hung_up |= ended;
        self.service(core, key);
    }

    /// Move bytes, send what is due, and see when the flow wants to be looked at again.
    pub fn service(&mut self, core: &mut Core, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let now = core.smoltcp_now();
        if let Some(request) = flow.pump(core.now).request {
            core.request(key, request);
        }
        let mut port = Port { outbox: &mut core.out, packet: None };
        while self.iface.poll_egress(now, &mut port, &mut flow.set) == PollResult::SocketStateChanged {}
        if flow.is_over() {
            return self.remove(key);
        }
        if flow.is_connecting() && flow.state() == State::SynReceived {
            // The host's own time limit governs.
            return;
        }
        let mut due = self.iface.poll_at(now, &flow.set).map(|at| core.host_time(at));
        if due.is_some_and(|at| at <= core.now) {
            due = core.out.has_room().then(|| core.now + SOON);
            if due.is_none() && !flow.blocked {
                // It goes on when the guest takes frames.
                flow.blocked = true;
                core.blocked.push_back(key);
            }
        }
        if flow.state() == State::TimeWait {
            // Nothing can be lost on the way to the guest, so there is nothing to wait for but our last packet.
            let ended = *flow.ended.get_or_insert(core.now);
            due = Some(ended + LINGER);
        }
        if let Peer::Local(session) = &flow.peer {
            due = Some(due.map_or(session.deadline, |at| at.min(session.deadline)));
        }
        if let Some(at) = due {
            core.timers.arm(key, at, &mut flow.armed);
        }
    }

    /// The flow is no longer in the queue of blocked ones.
    pub fn unblock(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.blocked = false;
        }
    }

    /// A flow's timer went off.
    pub fn expire(&mut self, core: &mut Core, key: Key, at: Instant) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if flow.armed != Some(at) {
            return;
        }
        flow.armed = None;
        if flow.ended.is_some_and(|ended| core.now >= ended + LINGER) {
            return self.remove(key);
        }
        let now = core.now;
        let socket = flow.set.iter_mut().next().map(|(handle, _)| handle);
        if let (Peer::Local(session), Some(handle)) = (&mut flow.peer, socket)
            && session.deadline <= now
        {
            session.expired(flow.set.get_mut(handle), now);
        }
        self.service(core, key);
    }

    /// The answer to a DNS message of a connection's.
    pub fn resolved(&mut self, core: &mut Core, key: Key, message: &[u8]) {
        let Some(Flow { peer: Peer::Local(session), .. }) = self.flows.get_mut(key) else { return };
        if let Some(next) = session.resolved(message, core.now) {
            core.request(key, next);
        }
        self.service(core, key);
    }

    /// When the owner's current timer goes off; `None` if there is no such owner or timer.
    pub fn armed(&self, key: Key) -> Option<Instant> {
        self.flows.get(key)?.armed
    }

    pub fn is_blocked(&self, key: Key) -> bool {
        self.flows.get(key).is_some_and(|flow| flow.blocked)
    }

    /// The number of flows.
    pub fn len(&self) -> usize {
        self.flows.len()
    }
}

/// smoltcp's interface towards the guest: a router for every address.
fn interface(core: &mut Core, seed: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let now = core.smoltcp_now();
    let mut port = Port { outbox: &mut core.out, packet: None };
    let mut iface = Interface::new(config, &mut port, now);
    iface.set_any_ip(true);
    iface
}
