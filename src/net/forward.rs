//! Port forwards: listeners of the host that lead into the guest. The guest sees its gateway as the other end.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::config::{NetError, NewFlow, PortForward, Protocol};
use super::core::Core;
use super::held::Held;
use super::host;
use super::slab::{Key, Kind, Slab};
use super::tcp::TcpFlows;
use super::wire::TTL;

/// Connections that the kernel holds for one listener.
const BACKLOG: i32 = 128;
/// Connections or datagrams taken from one listener before others get their turn.
const BURST: usize = 32;
/// Peers of UDP forwards.
const PEERS: usize = 256;
/// Before a listener that has more, or can't be served, is looked at again.
const PAUSE: Duration = Duration::from_millis(2);
const IDLE: Duration = Duration::from_secs(120);
/// The gateway's UDP ports that stand for peers.
const FIRST_PORT: u16 = 40_000;

/// The forwards of one network.
pub(crate) struct Forwards {
    listeners: Vec<Listener>,
    /// UDP peers: a gateway's port for each.
    peers: Slab<Peer>,
    index: HashMap<(usize, SocketAddr), Key>,
    /// TCP connections that may not enter.
    held: Held,
}

struct Listener {
    forward: PortForward,
    fd: OwnedFd,
    /// It has more, or the host has no descriptor for it at the moment.
    armed: Option<Instant>,
}

struct Peer {
    listener: usize,
    address: SocketAddr,
    deadline: Instant,
    armed: Option<Instant>,
}

impl Forwards {
    /// Open every listener.
    pub fn new(wanted: &[PortForward], epoll: &OwnedFd) -> Result<Forwards, NetError> {
        let mut listeners = Vec::new();
        for (index, forward) in wanted.iter().enumerate() {
            let fd = match forward.protocol {
                Protocol::Tcp => host::tcp_listen(forward.host, BACKLOG),
                Protocol::Udp => host::udp_bind(forward.host),
            };
            let fd = fd.map_err(|error| refusal(forward, error))?;
            host::watch_arrivals(epoll, &fd, Key::fixed(Kind::Forward, index))
                .map_err(|error| refusal(forward, error))?;
            let host = host::local_address(&fd).unwrap_or(forward.host);
            listeners.push(Listener { forward: PortForward { host, ..*forward }, fd, armed: None });
        }
        Ok(Forwards { listeners, peers: Slab::new(Kind::Peer, PEERS), index: HashMap::new(), held: Held::default() })
    }

    /// The forwards with the ports that they really have.
    pub fn list(&self) -> impl Iterator<Item = PortForward> + '_ {
        self.listeners.iter().map(|listener| listener.forward)
    }

    /// A listener has something.
    pub fn ready(&mut self, core: &mut Core, tcp: &mut TcpFlows, key: Key, scratch: &mut [u8]) {
        let index = key.index();
        for _ in 0..BURST {
            let Some(listener) = self.listeners.get(index) else { return };
            let forward = listener.forward;
            let guest_port = forward.guest_port;
            let taken = match forward.protocol {
                Protocol::Tcp => host::accept(&listener.fd).map(|(fd, from)| match from {
                    Some(from) if !core.admits(&NewFlow::In { forward, from }) => {
                        self.held.hold(core, fd, forward, from);
                    }
                    _ => tcp.forward(core, fd, guest_port),
                }),
                Protocol::Udp => host::receive_from(&listener.fd, scratch).map(|(length, from)| {
                    let payload = scratch.get(..length).unwrap_or_default();
                    self.datagram(core, index, from, guest_port, payload);
                }),
            };
            match taken {
                Err(Errno::AGAIN) => return,
                // Errors of single connections or peers, and not of the listener.
                Ok(()) | Err(Errno::CONNABORTED | Errno::CONNREFUSED | Errno::PROTO | Errno::PERM) => {}
                Err(_) => break,
            }
        }
        if let Some(listener) = self.listeners.get_mut(index) {
            core.timers.arm(key, core.now + PAUSE, &mut listener.armed);
        }
    }

    /// The pause of a listener that has more is over.
    pub fn resume(&mut self, core: &mut Core, tcp: &mut TcpFlows, key: Key, scratch: &mut [u8]) {
        if let Some(listener) = self.listeners.get_mut(key.index()) {
            listener.armed = None;
            self.ready(core, tcp, key, scratch);
        }
    }

    fn datagram(
        &mut self,
        core: &mut Core,
        listener: usize,
        from: Option<SocketAddr>,
        guest_port: u16,
        payload: &[u8],
    ) {
        let Some(key) = from.and_then(|from| self.peer(core, listener, from)) else { return };
        let source = (core.config.gateway_ip, port_of(key));
        let to = (core.config.guest_ip, guest_port);
        if core.out.has_room() {
            core.out.push_udp(source, to, TTL, payload);
        }
    }

    fn peer(&mut self, core: &mut Core, listener: usize, address: SocketAddr) -> Option<Key> {
        let key = match self.index.get(&(listener, address)) {
            Some(&key) => key,
            None => {
                let forward = self.listeners.get(listener)?.forward;
                if !core.admits(&NewFlow::In { forward, from: address }) {
                    return None;
                }
                if self.peers.is_full()
                    && let Some(idlest) = self.peers.sample_min(|peer| peer.deadline)
                {
                    self.remove(idlest);
                }
                let deadline = core.now + IDLE;
                let key = self.peers.insert_with(|_| Some(Peer { listener, address, deadline, armed: None }))?;
                self.index.insert((listener, address), key);
                key
            }
        };
        let peer = self.peers.get_mut(key)?;
        peer.deadline = core.now + IDLE;
        core.timers.arm(key, peer.deadline, &mut peer.armed);
        Some(key)
    }

    fn remove(&mut self, key: Key) {
        if let Some(peer) = self.peers.remove(key) {
            self.index.remove(&(peer.listener, peer.address));
        }
    }

    /// A datagram from the guest to the gateway: an answer to a peer, if its port stands for one.
    pub fn transmit(&mut self, core: &mut Core, guest_port: u16, gateway_port: u16, payload: &[u8]) -> bool {
        let Some(at) = gateway_port.checked_sub(FIRST_PORT) else { return false };
        let Some(key) = self.peers.key_at(usize::from(at)) else { return false };
        let Some(peer) = self.peers.get_mut(key) else { return false };
        let Some(listener) = self.listeners.get(peer.listener) else { return false };
        if listener.forward.guest_port != guest_port {
            return false;
        }
        peer.deadline = core.now + IDLE;
        // A full socket buffer loses a datagram, as networks do.
        let _ = host::transmit_to(&listener.fd, payload, peer.address);
        true
    }

    /// The time for another look at connections that may not enter.
    pub fn retry(&mut self, core: &mut Core, tcp: &mut TcpFlows, at: Instant) {
        self.held.expire(core, tcp, at);
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// When the owner's current timer goes off; `None` if there is no such owner or timer.
    pub fn armed(&self, key: Key) -> Option<Instant> {
        match key.kind {
            Kind::Forward => self.listeners.get(key.index())?.armed,
            Kind::Held => self.held.armed(),
            _ => self.peers.get(key)?.armed,
        }
    }

    /// A peer's timer went off.
    pub fn expire(&mut self, core: &mut Core, key: Key, at: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.armed != Some(at) {
            return;
        }
        peer.armed = None;
        if peer.deadline > core.now {
            core.timers.arm(key, peer.deadline, &mut peer.armed);
        } else {
            self.remove(key);
        }
    }
}

/// The table is far smaller than the port range.
fn port_of(key: Key) -> u16 {
    FIRST_PORT.saturating_add(key.index() as u16)
}

fn refusal(forward: &PortForward, error: Errno) -> NetError {
    let reason = match error {
        Errno::ADDRINUSE => "another process listens there",
        Errno::ACCESS | Errno::PERM => "ports below 1024 need a privilege on this host",
        Errno::ADDRNOTAVAIL => "this host has no such address",
        Errno::MFILE | Errno::NFILE => "too many files are open",
        _ => "the host refused",
    };
    let PortForward { protocol, host, guest_port } = *forward;
    NetError::Listen { protocol, host, guest_port, reason, source: io::Error::from(error) }
}
