//! What the network behind one NIC is made of: plain values and services, fixed for its life.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use thiserror::Error;

/// The network behind one NIC. Nothing in it is looked up later.
#[derive(Clone)]
pub struct NetConfig {
    /// The guest's hardware address. Frames from any other are dropped.
    pub guest_mac: [u8; 6],
    /// The address that DHCP gives to the guest. Packets from any other are dropped.
    pub guest_ip: Ipv4Addr,
    /// The subnet's prefix length, 8 to 30.
    pub prefix: u8,
    /// The router's hardware address, also that of every other address served here.
    pub gateway_mac: [u8; 6],
    /// The router's address (subnet base + 1 on EC2). It is the DHCP server's too.
    pub gateway_ip: Ipv4Addr,
    /// Addresses on which names are resolved. DHCP announces the first.
    pub dns: Vec<Ipv4Addr>,
    /// DHCP option 15, and the domain of `ip-a-b-c-d` names.
    pub domain: String,
    /// DHCP option 12.
    pub host_name: String,
    /// The largest IP packet, in bytes: 576 to 9216. 9001 in a VPC.
    pub mtu: u16,
    /// The lease time in seconds. 3600 on EC2.
    pub lease_seconds: u32,
    /// More names to resolve, forward and reverse.
    pub names: Vec<(String, Ipv4Addr)>,
    /// Resolvers that answer everything else, in the order of preference.
    pub upstreams: Vec<SocketAddr>,
    /// Ports of the host that lead into the guest.
    pub forwards: Vec<PortForward>,
    /// The address of the time server.
    pub ntp: Option<Ipv4Addr>,
    /// Services that this process offers to the guest.
    pub services: Vec<(SocketAddrV4, Arc<dyn StreamService>)>,
    /// An address by which the guest reaches an address of the host, its loopback as a rule. Otherwise the guest can't
    /// reach the host's loopback.
    pub host_alias: Option<(Ipv4Addr, IpAddr)>,
    /// Called, on the NIC's thread, each time that the guest's lease is acknowledged. It must not wait.
    pub on_lease: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Asked about each new flow through a host socket; without it all may pass. What is answered here, at the addresses of the
    /// gateway, the resolver, the time server and the services, is never asked about.
    pub gate: Option<Arc<dyn Gate>>,
}

/// A flow that is about to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewFlow {
    /// From the guest to the outside.
    Out {
        /// Which protocol.
        protocol: Protocol,
        /// Where to.
        to: SocketAddrV4,
    },
    /// An echo request of the guest's (ICMP type 8, code 0).
    Echo {
        /// To whom.
        to: Ipv4Addr,
    },
    /// From the host through a forward.
    In {
        /// Which; its host address is the one that was taken.
        forward: PortForward,
        /// Who.
        from: SocketAddr,
    },
}

/// Decides about flows. What follows on a flow that was let through is not asked about, either way; what belongs to one that was not
/// is dropped without an answer.
pub trait Gate: Send + Sync {
    /// Whether the flow may begin. Called on the NIC's thread, and again for each attempt of the guest's or a peer's: it must not
    /// wait.
    fn admits(&self, flow: &NewFlow) -> bool;
}

impl NetConfig {
    /// The network mask.
    pub(crate) fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0)
    }

    /// Whether the address belongs to the guest's subnet.
    pub(crate) fn in_subnet(&self, ip: Ipv4Addr) -> bool {
        u32::from(ip) & self.mask() == u32::from(self.guest_ip) & self.mask()
    }

    /// The subnet's broadcast address.
    pub(crate) fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.guest_ip) | !self.mask())
    }

    /// Whether the address is answered here and not by a host socket.
    pub(crate) fn is_local(&self, ip: Ipv4Addr) -> bool {
        ip == self.gateway_ip
            || self.dns.contains(&ip)
            || self.ntp == Some(ip)
            || self.services.iter().any(|(address, _)| *address.ip() == ip)
    }

    /// Check what the rest of the room relies on.
    pub(crate) fn check(&self) -> Result<(), NetError> {
        let wrong = |what: &'static str| Err(NetError::Config(what));
        if !(8..=30).contains(&self.prefix) {
            return wrong("the subnet's prefix must be from /8 to /30");
        }
        if !(576..=9216).contains(&self.mtu) {
            return wrong("the MTU must be from 576 to 9216 bytes");
        }
        if !self.in_subnet(self.gateway_ip) || self.gateway_ip == self.guest_ip {
            return wrong("the gateway must be another address of the guest's subnet");
        }
        if self.guest_mac[0] & 1 != 0 || self.gateway_mac[0] & 1 != 0 || self.guest_mac == self.gateway_mac {
            return wrong("the guest and its gateway need different unicast hardware addresses");
        }
        if self.is_local(self.guest_ip) {
            return wrong("a service can't have the guest's own address");
        }
        if self.host_name.len() > 255 || self.domain.len() > 255 {
            return wrong("host name and domain must fit into 255 bytes");
        }
        Ok(())
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortForward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// Where the host listens; port 0 lets the host choose (see [`super::Network::forwards`]).
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
}

/// A service inside this process that the guest reaches over TCP.
pub trait StreamService: Send + Sync {
    /// A guest's connection from `peer`. The session lives until either side closes, or 60 s pass without a byte.
    fn open(&self, peer: SocketAddrV4) -> Box<dyn StreamSession>;
}

/// One connection to a [`StreamService`].
pub trait StreamSession: Send {
    /// Take bytes from the guest and append the answer, if one is due, to `reply`. Called again only after the guest's
    /// side has taken most of what was answered before. It must not wait.
    fn receive(&mut self, bytes: &[u8], reply: &mut Vec<u8>) -> SessionState;
}

/// What a [`StreamSession`] wants to happen next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionState {
    /// Close after the answer.
    pub close: bool,
    /// The IP time to live of the packets that carry the answer; 64 if none is given. 0 counts as 1.
    pub hop_limit: Option<u8>,
}

/// Why a network can't be made.
#[derive(Debug, Error)]
pub enum NetError {
    /// The configuration contradicts itself.
    #[error("the network's configuration is wrong: {0}")]
    Config(&'static str),
    /// A port of the host can't be had.
    #[error("cannot listen on {} port {host} for the guest's port {guest_port}: {reason}", protocol_name(*.protocol))]
    Listen {
        /// The protocol.
        protocol: Protocol,
        /// The host's address.
        host: SocketAddr,
        /// Where it would lead.
        guest_port: u16,
        /// What is in the way, in words.
        reason: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The host refused a descriptor or random numbers.
    #[error("the host refused {what}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}
