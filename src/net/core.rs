//! What every part of the network shares: the configuration, the way to the guest, epoll, time and the timer heap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::config::{NetConfig, NewFlow};
use super::outbox::Outbox;
use super::slab::Key;

/// DNS queries over TCP that wait to be picked up in one go.
const REQUESTS: usize = 256;

pub(crate) struct Core {
    pub config: NetConfig,
    pub out: Outbox,
    pub epoll: OwnedFd,
    /// The time of the current call.
    pub now: Instant,
    epoch: Instant,
    pub timers: Timers,
    /// Flows that wait for room in the outbox, each at most once.
    pub blocked: VecDeque<Key>,
    /// Whole DNS messages from TCP connections.
    requests: VecDeque<(Key, Vec<u8>)>,
}

impl Core {
    pub fn new(config: NetConfig, epoll: OwnedFd) -> Core {
        let now = Instant::now();
        let out = Outbox::new(config.guest_mac, config.gateway_mac, config.mtu);
        Core {
            config,
            out,
            epoll,
            now,
            epoch: now,
            timers: Timers::default(),
            blocked: VecDeque::new(),
            requests: VecDeque::new(),
        }
    }

    /// Advance the time; it never goes back.
    pub fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The time as smoltcp counts it.
    pub fn smoltcp_now(&self) -> smoltcp::time::Instant {
        let micros = self.now.saturating_duration_since(self.epoch).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// A time of smoltcp's as the host counts it.
    pub fn host_time(&self, at: smoltcp::time::Instant) -> Instant {
        self.epoch + std::time::Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0))
    }

    /// Hand a DNS message over for resolution.
    pub fn request(&mut self, from: Key, message: Vec<u8>) {
        if self.requests.len() < REQUESTS {
            self.requests.push_back((from, message));
        }
    }

    pub fn next_request(&mut self) -> Option<(Key, Vec<u8>)> {
        self.requests.pop_front()
    }

    /// Where on the host's side a destination of the guest's lies.
    pub fn route(&self, to: SocketAddrV4) -> Route {
        let ip = *to.ip();
        if let Some((alias, target)) = self.config.host_alias
            && alias == ip
        {
            return Route::Host(SocketAddr::new(target, to.port()));
        }
        if self.config.is_local(ip) {
            return Route::Local;
        }
        let [first, second, ..] = ip.octets();
        // "This network" reaches the host's loopback on Linux, as 127.0.0.0/8 does.
        let forbidden = matches!(first, 0 | 127 | 224..) || (first, second) == (169, 254) || self.config.in_subnet(ip);
        if forbidden || to.port() == 0 {
            Route::Nowhere
        } else {
            Route::Host(SocketAddr::new(IpAddr::V4(ip), to.port()))
        }
    }

    /// Whether a flow may begin.
    pub fn admits(&self, flow: &NewFlow) -> bool {
        self.config.gate.as_ref().is_none_or(|gate| gate.admits(flow))
    }

    /// The guest's address.
    pub fn guest(&self) -> Ipv4Addr {
        self.config.guest_ip
    }
}

/// An answer of [`Core::route`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Answered here.
    Local,
    /// Through a host socket to this address.
    Host(SocketAddr),
    /// Nobody may or can answer.
    Nowhere,
}

/// The timer heap. Each owner has at most one current entry (its `armed` time); an entry that was overtaken by an
/// earlier one stays until its time and is then ignored.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Key)>>,
}

impl Timers {
    /// See that `key` is woken at `at` or before; `armed` is when it will be woken already.
    pub fn arm(&mut self, key: Key, at: Instant, armed: &mut Option<Instant>) {
        if armed.is_none_or(|armed| at < armed) {
            *armed = Some(at);
            self.heap.push(Reverse((at, key)));
        }
    }

    /// The next entry that is due.
    pub fn expired(&mut self, now: Instant) -> Option<(Instant, Key)> {
        let Reverse((at, _)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Forget entries that nobody waits for any more.
    pub fn retain(&mut self, wanted: impl Fn(Instant, Key) -> bool) {
        self.heap.retain(|Reverse((at, key))| wanted(*at, *key));
    }

    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}
