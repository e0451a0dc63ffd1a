//! ICMP (RFC 792): echo for the addresses served here, echo to the outside through unprivileged ICMP sockets, and the
//! errors that tell a guest at once what will not work.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::config::NewFlow;
use super::core::{Core, Route};
use super::host;
use super::slab::{Key, Kind, Slab};
use super::wire::{self, ICMP, Ipv4, Ipv4Header, TTL, be16, internet_checksum};

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const HEADER: usize = 8;
/// How long an echo socket lives without a request.
const PING_IDLE: Duration = Duration::from_secs(30);
/// The largest error message's quote: RFC 1812 wants errors within 576 bytes.
const QUOTE: usize = 548;

/// Why a destination is unreachable (RFC 792, RFC 1122).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Net = 0,
    Host = 1,
    Protocol = 2,
    Port = 3,
    /// RFC 1812: administratively prohibited.
    Prohibited = 13,
}

impl Unreachable {
    /// What the host's error means on the network.
    pub fn from_errno(error: Errno) -> Unreachable {
        match error {
            Errno::NETUNREACH | Errno::NETDOWN => Unreachable::Net,
            Errno::CONNREFUSED => Unreachable::Port,
            Errno::ACCESS | Errno::PERM => Unreachable::Prohibited,
            _ => Unreachable::Host,
        }
    }
}

/// Tell the guest that `packet` of its went nowhere. `from` says so.
pub(crate) fn unreachable(core: &mut Core, from: Ipv4Addr, why: Unreachable, packet: &[u8]) {
    let mut head = [0; HEADER];
    head[0] = UNREACHABLE;
    head[1] = why as u8;
    let quote = packet.get(..QUOTE).unwrap_or(packet);
    let guest = core.guest();
    push(core, from, guest, head, quote);
}

/// The same for a flow whose packets are gone: the quote is made from its addresses.
pub(crate) fn unreachable_flow(
    core: &mut Core,
    why: Unreachable,
    protocol: u8,
    source: u16,
    to: SocketAddrV4,
    seq: u32,
) {
    let header = Ipv4Header {
        source: core.guest(),
        destination: *to.ip(),
        protocol,
        ttl: TTL,
        ident: 0,
        fragment: wire::DONT_FRAGMENT,
    };
    let mut quote = [0; 28];
    quote[..20].copy_from_slice(&header.bytes(8));
    quote[20..22].copy_from_slice(&source.to_be_bytes());
    quote[22..24].copy_from_slice(&to.port().to_be_bytes());
    // The sequence number for TCP; the length and no checksum for UDP.
    let last = if protocol == wire::TCP { seq } else { 8 << 16 };
    quote[24..28].copy_from_slice(&last.to_be_bytes());
    let from = if why == Unreachable::Port { *to.ip() } else { core.config.gateway_ip };
    unreachable(core, from, why, &quote);
}

fn push(core: &mut Core, from: Ipv4Addr, to: Ipv4Addr, mut head: [u8; HEADER], body: &[u8]) {
    head[2..4].fill(0);
    let sum = wire::add(wire::sum(&head), wire::sum(body));
    head[2..4].copy_from_slice(&(!sum).to_be_bytes());
    core.out.push_ipv4(from, to, ICMP, TTL, &head, body);
}

/// The sockets of echo requests to the outside.
pub(crate) struct Pings {
    table: Slab<Ping>,
}

struct Ping {
    fd: OwnedFd,
    ident: [u8; 2],
    to: Ipv4Addr,
    deadline: Instant,
    armed: Option<Instant>,
}

impl Pings {
    /// Beyond `limit` sockets, one that was idle for long makes room.
    pub fn new(limit: usize) -> Pings {
        Pings { table: Slab::new(Kind::Ping, limit) }
    }

    /// An ICMP packet of the guest's.
    pub fn transmit(&mut self, core: &mut Core, packet: &Ipv4<'_>) {
        let message = packet.payload;
        // Only requests are of interest: errors about our packets mean nothing to a split connection.
        if message.len() < HEADER || message.first() != Some(&ECHO_REQUEST) || internet_checksum(message) != 0 {
            return;
        }
        let to = packet.destination;
        // Port 7 stands in for "any port" here.
        match core.route(SocketAddrV4::new(to, 7)) {
            Route::Local => reply(core, to, message),
            Route::Nowhere => unreachable(core, core.config.gateway_ip, Unreachable::Host, packet.packet),
            Route::Host(_) if !self.is_known(message, to) && !core.admits(&NewFlow::Echo { to }) => {}
            Route::Host(SocketAddr::V4(address)) => {
                if let Err(error) = self.forward(core, to, SocketAddr::V4(address), message) {
                    let why = Unreachable::from_errno(error);
                    unreachable(core, core.config.gateway_ip, why, packet.packet);
                }
            }
            Route::Host(SocketAddr::V6(_)) => reply(core, to, message),
        }
    }

    fn forward(&mut self, core: &mut Core, to: Ipv4Addr, address: SocketAddr, message: &[u8]) -> Result<(), Errno> {
        let ident: [u8; 2] = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::INVAL)?;
        let key = match self.find(ident, to) {
            Some(key) => key,
            None => self.open(core, ident, to, address)?,
        };
        let Some(ping) = self.table.get_mut(key) else { return Ok(()) };
        ping.deadline = core.now + PING_IDLE;
        core.timers.arm(key, ping.deadline, &mut ping.armed);
        match host::transmit(&ping.fd, message) {
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The table is small, and pings are rare.
    fn find(&self, ident: [u8; 2], to: Ipv4Addr) -> Option<Key> {
        self.table.find(|ping| ping.ident == ident && ping.to == to)
    }

    fn is_known(&self, message: &[u8], to: Ipv4Addr) -> bool {
        message.get(4..6).and_then(|ident| ident.try_into().ok()).is_some_and(|ident| self.find(ident, to).is_some())
    }

    fn open(&mut self, core: &mut Core, ident: [u8; 2], to: Ipv4Addr, address: SocketAddr) -> Result<Key, Errno> {
        if self.table.is_full()
            && let Some(oldest) = self.table.sample_min(|ping| ping.deadline)
        {
            self.table.remove(oldest);
        }
        let fd = host::ping_connect(address)?;
        let mut failed = Errno::NOBUFS;
        self.table
            .insert_with(|key| match host::watch_arrivals(&core.epoll, &fd, key) {
                Ok(()) => Some(Ping { fd, ident, to, deadline: core.now, armed: None }),
                Err(error) => {
                    failed = error;
                    None
                }
            })
            .ok_or(failed)
    }

    /// A socket has replies.
    pub fn ready(&mut self, core: &mut Core, key: Key, scratch: &mut [u8]) {
        let Some(ping) = self.table.get(key) else { return };
        while let Ok(length) = host::receive(&ping.fd, scratch) {
            let Some(message) = scratch.get_mut(..length) else { return };
            if length < HEADER || message.first() != Some(&ECHO_REPLY) || !core.out.has_room() {
                continue;
            }
            // The kernel gave the request an identifier of its own.
            let mut head = [0; HEADER];
            head.copy_from_slice(&message[..HEADER]);
            head[4..6].copy_from_slice(&ping.ident);
            let guest = core.guest();
            push(core, ping.to, guest, head, &message[HEADER..]);
        }
    }

    /// When the owner's current timer goes off; `None` if there is no such owner or timer.
    pub fn armed(&self, key: Key) -> Option<Instant> {
        self.table.get(key)?.armed
    }

    /// A socket's timer went off.
    pub fn expire(&mut self, core: &mut Core, key: Key, at: Instant) {
        let Some(ping) = self.table.get_mut(key) else { return };
        if ping.armed != Some(at) {
            return;
        }
        ping.armed = None;
        if ping.deadline > core.now {
            core.timers.arm(key, ping.deadline, &mut ping.armed);
        } else {
            self.table.remove(key);
        }
    }
}

/// Answer an echo request to an address served here.
fn reply(core: &mut Core, from: Ipv4Addr, request: &[u8]) {
    let (Some(start), Some(sequence)) = (request.get(4..HEADER), be16(request, 6)) else { return };
    let mut head = [0; HEADER];
    head[0] = ECHO_REPLY;
    head[4..8].copy_from_slice(start);
    let guest = core.guest();
    push(core, from, guest, head, request.get(HEADER..).unwrap_or_default());
    log::trace!("echo {sequence} answered for {from}");
}
