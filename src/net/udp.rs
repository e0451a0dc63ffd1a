//! NAT for UDP: one connected host socket for each (guest port, destination), as EC2's NAT gateways and stateful
//! security groups have it. The kernel filters strangers and reports refusals.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::config::{NewFlow, Protocol};
use super::core::Core;
use super::host;
use super::icmp::{Unreachable, unreachable, unreachable_flow};
use super::slab::{Key, Kind, Slab};
use super::wire::{self, TTL};

/// Until a reply came, and after: what a connection tracker uses.
const UNREPLIED: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(120);
/// A name server answers once.
const DNS_IDLE: Duration = Duration::from_secs(10);
const DNS_PORT: u16 = 53;
/// Datagrams taken from one socket before others get their turn.
const BURST: usize = 32;

type FlowKey = (u16, SocketAddrV4);

pub(crate) struct UdpFlows {
    index: HashMap<FlowKey, Key>,
    flows: Slab<Flow>,
}

struct Flow {
    key: FlowKey,
    fd: OwnedFd,
    replied: bool,
    blocked: bool,
    deadline: Instant,
    armed: Option<Instant>,
}

impl UdpFlows {
    /// Beyond `limit` flows, one that was idle for long makes room.
    pub fn new(limit: usize) -> UdpFlows {
        UdpFlows { index: HashMap::new(), flows: Slab::new(Kind::Udp, limit) }
    }

    /// A datagram from the guest's `port` to `to`, which lies at `host` on the host's side. `packet` is quoted in errors.
    pub fn transmit(
        &mut self,
        core: &mut Core,
        port: u16,
        to: SocketAddrV4,
        host: SocketAddr,
        payload: &[u8],
        packet: &[u8],
    ) {
        let key = match self.index.get(&(port, to)) {
            Some(&key) => Ok(key),
            None if !core.admits(&NewFlow::Out { protocol: Protocol::Udp, to }) => return,
            None => self.open(core, (port, to), host),
        };
        let key = match key {
            Ok(key) => key,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return,
            Err(error) => {
                let why = Unreachable::from_errno(error);
                return unreachable(core, core.config.gateway_ip, why, packet);
            }
        };
        let Some(flow) = self.flows.get_mut(key) else { return };
        let idle = match (flow.replied, to.port()) {
            (_, DNS_PORT) => DNS_IDLE,
            (false, _) => UNREPLIED,
            (true, _) => IDLE,
        };
        flow.deadline = core.now + idle;
        core.timers.arm(key, flow.deadline, &mut flow.armed);
        let mut sent = host::transmit(&flow.fd, payload);
        if let Err(Errno::CONNREFUSED) = sent {
            // That is what a former datagram met; this one has not been sent.
            unreachable_flow(core, Unreachable::Port, wire::UDP, port, to, 0);
            sent = host::transmit(&flow.fd, payload);
        }
        if let Err(error) = sent
            && !matches!(error, Errno::AGAIN | Errno::NOBUFS | Errno::CONNREFUSED)
        {
            unreachable(core, core.config.gateway_ip, Unreachable::from_errno(error), packet);
        }
    }

    fn open(&mut self, core: &mut Core, key: FlowKey, host: SocketAddr) -> Result<Key, Errno> {
        if self.flows.is_full()
            && let Some(idlest) = self.flows.sample_min(|flow| flow.deadline)
        {
            self.remove(idlest);
        }
        let fd = host::udp_connect(host)?;
        let mut failed = Errno::NOBUFS;
        let slot = self
            .flows
            .insert_with(|slot| match host::watch_arrivals(&core.epoll, &fd, slot) {
                Ok(()) => Some(Flow { key, fd, replied: false, blocked: false, deadline: core.now, armed: None }),
                Err(error) => {
                    failed = error;
                    None
                }
            })
            .ok_or(failed)?;
        self.index.insert(key, slot);
        Ok(slot)
    }

    fn remove(&mut self, key: Key) {
        if let Some(flow) = self.flows.remove(key) {
            self.index.remove(&flow.key);
        }
    }

    /// A socket has datagrams or an error, or the outbox has room again.
    pub fn service(&mut self, core: &mut Core, key: Key, scratch: &mut [u8]) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (port, from) = flow.key;
        for _ in 0..BURST {
            if !core.out.has_room() {
                break;
            }
            match host::receive(&flow.fd, scratch) {
                Ok(length) => {
                    flow.replied = true;
                    if from.port() != DNS_PORT {
                        flow.deadline = core.now + IDLE;
                    }
                    let to = (core.config.guest_ip, port);
                    core.out.push_udp((*from.ip(), from.port()), to, TTL, scratch.get(..length).unwrap_or_default());
                }
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    let why = Unreachable::from_errno(error);
                    unreachable_flow(core, why, wire::UDP, port, from, 0);
                }
            }
        }
        if !flow.blocked {
            flow.blocked = true;
            core.blocked.push_back(key);
        }
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
        if flow.deadline > core.now {
            core.timers.arm(key, flow.deadline, &mut flow.armed);
        } else {
            self.remove(key);
        }
    }
}
