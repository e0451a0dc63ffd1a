//! What a security group rule lets through: protocol, ports or ICMP type and code, and the far side.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Cidr;
use crate::ec2::Ec2Error;

/// An IP protocol, in EC2's spelling: `tcp`, `udp`, `icmp`, `icmpv6`, `-1` for all, else its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Protocol {
    /// All of them.
    All,
    /// 6
    Tcp,
    /// 17
    Udp,
    /// 1
    Icmp,
    /// Another number.
    Other(u8),
}

const ICMPV6: u8 = 58;

impl FromStr for Protocol {
    type Err = Ec2Error;

    /// `all` is the AWS CLI's.
    fn from_str(text: &str) -> Result<Self, Ec2Error> {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match text.to_ascii_lowercase().as_str() {
            "-1" | "all" => Ok(Protocol::All),
            "tcp" | "6" => Ok(Protocol::Tcp),
            "udp" | "17" => Ok(Protocol::Udp),
            "icmp" | "1" => Ok(Protocol::Icmp),
            "icmpv6" => Ok(Protocol::Other(ICMPV6)),
            other => number(other).map(Protocol::Other).ok_or_else(|| {
                let text = format!("Invalid value '{text}' for IP protocol. Unknown protocol.");
                Ec2Error::invalid_parameter_value(text)
            }),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::All => f.write_str("-1"),
            Protocol::Tcp => f.write_str("tcp"),
            Protocol::Udp => f.write_str("udp"),
            Protocol::Icmp => f.write_str("icmp"),
            Protocol::Other(ICMPV6) => f.write_str("icmpv6"),
            Protocol::Other(number) => write!(f, "{number}"),
        }
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> Self {
        protocol.to_string()
    }
}

impl TryFrom<String> for Protocol {
    type Error = Ec2Error;

    fn try_from(text: String) -> Result<Self, Ec2Error> {
        text.parse()
    }
}

/// The far side of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// A block of IPv4 addresses.
    CidrIpv4(Cidr),
    /// A block of IPv6 addresses.
    CidrIpv6(Cidr),
    /// The private addresses of a group's instances.
    ReferencedGroupId(String),
}

impl From<Cidr> for Peer {
    fn from(cidr: Cidr) -> Self {
        if cidr.is_ipv4() { Peer::CidrIpv4(cidr) } else { Peer::CidrIpv6(cidr) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::CidrIpv4(cidr) | Peer::CidrIpv6(cidr) => write!(f, "{cidr}"),
            Peer::ReferencedGroupId(id) => f.write_str(id),
        }
    }
}

/// The first packet of a flow, as far as rules look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// TCP to this port.
    Tcp(u16),
    /// UDP to this port.
    Udp(u16),
    /// An ICMP message of this type and code.
    Icmp(u8, u8),
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Traffic::Tcp(port) => write!(f, "TCP port {port}"),
            Traffic::Udp(port) => write!(f, "UDP port {port}"),
            Traffic::Icmp(kind, code) => write!(f, "ICMP type {kind} code {code}"),
        }
    }
}

/// What one rule lets through. Rules only allow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Permission {
    /// The protocol.
    pub ip_protocol: Protocol,
    /// TCP and UDP: the first port. ICMP: the type, -1 for all. Else -1.
    pub from_port: i32,
    /// TCP and UDP: the last port. ICMP: the code, -1 for all. Else -1.
    pub to_port: i32,
    /// Whom it lets through.
    #[serde(flatten)]
    pub peer: Peer,
}

impl Permission {
    /// A permission, checked as AuthorizeSecurityGroupIngress does. For protocols without ports `ports` does not matter.
    ///
    /// # Errors
    /// `InvalidParameterValue` for ports that are missing or out of range.
    pub fn new(ip_protocol: Protocol, ports: Option<(i32, i32)>, peer: Peer) -> Result<Self, Ec2Error> {
        let bad = |text: String| Err(Ec2Error::invalid_parameter_value(text));
        let (from_port, to_port) = match (ip_protocol, ports) {
            (Protocol::All | Protocol::Other(_), _) => (-1, -1),
            (Protocol::Tcp | Protocol::Udp, None) => {
                return bad("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.".into());
            }
            (Protocol::Tcp | Protocol::Udp, Some((from, to))) => {
                if let Some(port) = [from, to].into_iter().find(|port| !(0..=65_535).contains(port)) {
                    return bad(format!("TCP/UDP port ({port}) out of range"));
                }
                if from > to {
                    return bad(format!("Invalid TCP/UDP port range ({from}:{to})"));
                }
                (from, to)
            }
            (Protocol::Icmp, None) => {
                return bad("Invalid value 'Must specify both from and to ports with ICMP.' for portRange.".into());
            }
            (Protocol::Icmp, Some((kind, code))) => {
                if !(-1..=255).contains(&kind) {
                    return bad(format!("ICMP type ({kind}) out of range"));
                }
                if !(-1..=255).contains(&code) || (kind == -1 && code != -1) {
                    return bad(format!("ICMP code ({code}) out of range"));
                }
                (kind, code)
            }
        };
        Ok(Permission { ip_protocol, from_port, to_port, peer })
    }

    /// Everything from or to these.
    pub fn all(peer: Peer) -> Self {
        Permission { ip_protocol: Protocol::All, from_port: -1, to_port: -1, peer }
    }

    /// Whether it lets the first packet of a flow through, which comes from or goes to `peer`. One whose far side is a group lets
    /// nothing through: no packet passes between instances here.
    pub fn admits(&self, traffic: Traffic, peer: IpAddr) -> bool {
        let in_range = |port: u16| (self.from_port..=self.to_port).contains(&i32::from(port));
        let is = |wanted: i32, value: u8| wanted == -1 || wanted == i32::from(value);
        let fits = match (self.ip_protocol, traffic) {
            (Protocol::All, _) => true,
            (Protocol::Tcp, Traffic::Tcp(port)) | (Protocol::Udp, Traffic::Udp(port)) => in_range(port),
            (Protocol::Icmp, Traffic::Icmp(kind, code)) => is(self.from_port, kind) && is(self.to_port, code),
            _ => false,
        };
        fits && match &self.peer {
            Peer::CidrIpv4(cidr) | Peer::CidrIpv6(cidr) => cidr.contains(peer),
            Peer::ReferencedGroupId(_) => false,
        }
    }
}

impl fmt::Display for Permission {
    /// As EC2's errors name a rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Permission { ip_protocol, from_port, to_port, peer } = self;
        let name = match ip_protocol {
            Protocol::All => "ALL".to_owned(),
            other => other.to_string().to_uppercase(),
        };
        write!(f, "peer: {peer}, {name}")?;
        match ip_protocol {
            Protocol::Tcp | Protocol::Udp => write!(f, ", from port: {from_port}, to port: {to_port}")?,
            Protocol::Icmp => write!(f, ", type: {from_port}, code: {to_port}")?,
            Protocol::All | Protocol::Other(_) => {}
        }
        f.write_str(", ALLOW")
    }
}
