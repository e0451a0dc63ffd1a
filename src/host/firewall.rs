//! An instance's security groups at work: the network's [`Gate`]. What they keep out is told once, with the command that lets it
//! in.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError, RwLock};

use super::event::Event;
use super::instance::Tell;
use super::spec::{NetworkSpec, SecurityGroups};
use crate::ec2::security_group::{Cidr, Direction, Permission, Traffic};
use crate::net::{Gate, NewFlow, Protocol};

/// The most notices under one set of rules: a guest chooses where it connects to.
const MOST_NOTICES: usize = 64;

/// Stands for a peer whose address is not known: a rule for all addresses lets it in, and no narrower one.
pub const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The filter of one instance.
pub struct Firewall {
    rules: RwLock<Rules>,
    /// By the address that a forward listens on: who its peers are taken for.
    stand_ins: Vec<(SocketAddr, IpAddr)>,
    told: Mutex<HashSet<(Direction, Traffic)>>,
    tell: Tell,
}

struct Rules {
    version: u64,
    ingress: Vec<Permission>,
    egress: Vec<Permission>,
    /// The groups' names, and the first one's id.
    names: String,
    group_id: String,
}

impl Rules {
    fn new(set: &SecurityGroups) -> Self {
        let all = |direction| set.groups.iter().flat_map(|group| group.permissions(direction)).cloned().collect();
        let names: Vec<&str> = set.groups.iter().map(|group| group.group_name.as_str()).collect();
        Rules {
            version: set.version,
            ingress: all(Direction::Ingress),
            egress: all(Direction::Egress),
            names: names.join(", "),
            group_id: set.groups.first().map_or_else(String::new, |group| group.group_id.clone()),
        }
    }
}

impl Firewall {
    /// The filter that an instance is started with.
    pub fn new(network: &NetworkSpec, tell: Tell) -> Self {
        let stand_ins = network.forwards.iter().map(|forward| forward.host).zip(network.peers.iter().copied());
        Firewall {
            rules: RwLock::new(Rules::new(&network.groups)),
            stand_ins: stand_ins.collect(),
            told: Mutex::default(),
            tell,
        }
    }

    /// Filter by these from now on. What came late, after newer ones, is passed over; answers whether it was not.
    pub fn set(&self, set: &SecurityGroups) -> bool {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        if set.version < rules.version {
            return false;
        }
        *rules = Rules::new(set);
        drop(rules);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        true
    }

    fn peer(&self, forward: SocketAddr, from: IpAddr) -> IpAddr {
        let known = self.stand_ins.iter().find(|(host, _)| *host == forward);
        known.map_or(from, |(_, stand_in)| *stand_in).to_canonical()
    }

    /// Say that a flow was dropped, if it was not said before.
    fn notice(&self, rules: &Rules, direction: Direction, traffic: Traffic, peer: IpAddr) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST_NOTICES || !told.insert((direction, traffic)) {
            return;
        }
        drop(told);
        let (names, next) = (&rules.names, allow(&rules.group_id, direction, traffic, peer));
        let what = match direction {
            Direction::Ingress if peer == UNKNOWN => format!("what came for the guest's {traffic} was dropped"),
            Direction::Ingress => format!("what came from {peer} for the guest's {traffic} was dropped"),
            Direction::Egress => format!("what the guest sent to {peer}, {traffic}, was dropped"),
        };
        (self.tell)(Event::Warning {
            text: format!(
                "{what}: no {} rule of its security groups ({names}) allows it; try: {next}",
                word(direction)
            ),
        });
    }
}

impl Gate for Firewall {
    fn admits(&self, flow: &NewFlow) -> bool {
        let (direction, traffic, peer) = match *flow {
            NewFlow::Out { protocol, to } => (Direction::Egress, of(protocol, to.port()), IpAddr::V4(*to.ip())),
            NewFlow::Echo { to } => (Direction::Egress, Traffic::Icmp(8, 0), IpAddr::V4(to)),
            NewFlow::In { forward, from } => {
                let peer = self.peer(forward.host, from.ip());
                (Direction::Ingress, of(forward.protocol, forward.guest_port), peer)
            }
        };
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let permissions = match direction {
            Direction::Ingress => &rules.ingress,
            Direction::Egress => &rules.egress,
        };
        let admitted = permissions.iter().any(|permission| permission.admits(traffic, peer));
        if !admitted {
            self.notice(&rules, direction, traffic, peer);
        }
        admitted
    }
}

fn of(protocol: Protocol, port: u16) -> Traffic {
    match protocol {
        Protocol::Tcp => Traffic::Tcp(port),
        Protocol::Udp => Traffic::Udp(port),
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// The command that lets a flow through.
pub fn allow(group: &str, direction: Direction, traffic: Traffic, peer: IpAddr) -> String {
    let (protocol, port) = match traffic {
        Traffic::Tcp(port) => ("tcp", port.to_string()),
        Traffic::Udp(port) => ("udp", port.to_string()),
        Traffic::Icmp(kind, code) => ("icmp", format!("{kind}-{code}")),
    };
    let cidr = if peer == UNKNOWN { Cidr::ANY_IPV4 } else { Cidr::host(peer) };
    let egress = if direction == Direction::Egress { " --egress" } else { "" };
    format!("amiable security-group authorize {group}{egress} --protocol {protocol} --port {port} --cidr {cidr}")
}

/// As whom the peers of a forward are seen where something between hides them: what listens on loopback has peers there, and of others
/// nothing is known.
pub fn stand_in(listens_on: SocketAddr) -> IpAddr {
    if listens_on.ip().is_loopback() { listens_on.ip() } else { UNKNOWN }
}

#[cfg(test)]
#[path = "firewall_tests.rs"]
mod tests;
