//! The network that EC2 gives an instance: the default VPC with its subnets, addresses that AWS keeps for itself,
//! names derived from addresses, and Regions.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Ec2Error;

/// The metadata service.
pub const IMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The Amazon DNS server at its link-local address; the other one is the VPC's [`Ipv4Cidr::dns`].
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The Amazon Time Sync Service.
pub const NTP_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 123);
/// The default VPC.
pub const DEFAULT_VPC: Ipv4Cidr = Ipv4Cidr { address: Ipv4Addr::new(172, 31, 0, 0), prefix: 16 };
/// Prefix length of a default VPC's subnets.
pub const DEFAULT_SUBNET_PREFIX: u8 = 20;
/// The account that local resources belong to.
pub const DEFAULT_ACCOUNT: &str = "123456789012";
/// MTU inside a VPC.
pub const MTU: u16 = 9001;

/// Where public addresses are taken from: the block for benchmarks (RFC 2544), which leads nowhere on the Internet.
const PUBLIC: u32 = 0xC612_0000;
/// Public addresses of one private address.
const PUBLIC_TURNS: u32 = 32;

/// The public address of the instance with this `private` address in a default subnet, another one at each of its `starts`. No two
/// instances with different private addresses ever share one. It is a name to tell, not an address that leads to the instance.
pub fn public_address(private: Ipv4Addr, starts: u32) -> Ipv4Addr {
    let host_bits = 32 - u32::from(DEFAULT_SUBNET_PREFIX);
    let host = u32::from(private) & ((1 << host_bits) - 1);
    Ipv4Addr::from(PUBLIC | (starts % PUBLIC_TURNS) << host_bits | host)
}

/// An IPv4 block: a network address and a prefix length of 16 to 28, the range that VPCs and subnets allow.
/// Serialises as text: `172.31.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Ipv4Cidr {
    /// The network address.
    pub address: Ipv4Addr,
    /// The prefix length.
    pub prefix: u8,
}

impl Ipv4Cidr {
    /// The netmask.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0))
    }

    /// The highest address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !u32::from(self.netmask()))
    }

    /// Whether `address` lies in the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & u32::from(self.netmask()) == u32::from(self.address)
    }

    /// The subnet's router: the network address plus one.
    pub fn router(self) -> Ipv4Addr {
        self.plus(1)
    }

    /// The Amazon DNS server, if this is a VPC's block: the network address plus two.
    pub fn dns(self) -> Ipv4Addr {
        self.plus(2)
    }

    /// Whether AWS keeps the address for itself: the first four and the last of a subnet.
    pub fn is_reserved(self, address: Ipv4Addr) -> bool {
        self.contains(address) && (u32::from(address) - u32::from(self.address) < 4 || address == self.broadcast())
    }

    /// The addresses that instances can have, ascending.
    pub fn usable(self) -> impl Iterator<Item = Ipv4Addr> {
        let (first, last) = (u32::from(self.plus(4)), u32::from(self.broadcast()));
        (first..last).map(Ipv4Addr::from)
    }

    fn plus(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address).saturating_add(offset))
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Ipv4Cidr> for String {
    fn from(cidr: Ipv4Cidr) -> Self {
        cidr.to_string()
    }
}

impl TryFrom<String> for Ipv4Cidr {
    type Error = Ec2Error;

    fn try_from(text: String) -> Result<Self, Ec2Error> {
        text.parse()
    }
}

impl std::str::FromStr for Ipv4Cidr {
    type Err = Ec2Error;

    fn from_str(text: &str) -> Result<Self, Ec2Error> {
        let bad = |why: &str| Ec2Error::invalid_value_for(text, "cidrBlock", why);
        let (address, prefix) = text.split_once('/').ok_or_else(|| bad("This is not a valid CIDR block."))?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad("This is not a valid CIDR block."))?;
        let prefix: u8 = prefix.parse().map_err(|_| bad("This is not a valid CIDR block."))?;
        if !(16..=28).contains(&prefix) {
            return Err(Ec2Error::new("InvalidVpc.Range", format!("The CIDR '{text}' is invalid.")));
        }
        let cidr = Self { address, prefix };
        let network = Ipv4Addr::from(u32::from(address) & u32::from(cidr.netmask()));
        Ok(Self { address: network, prefix })
    }
}

/// The default subnet of the `index`-th Availability Zone (`a` is 0): the index-th /20 of the default VPC.
pub fn default_subnet(index: u8) -> Ipv4Cidr {
    Ipv4Cidr { address: Ipv4Addr::new(172, 31, (index & 0x0f) << 4, 0), prefix: DEFAULT_SUBNET_PREFIX }
}

/// A Region's facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// `us-east-1`
    pub name: &'static str,
    /// What its Availability Zone ids start with: `use1`.
    pub zone_id_prefix: &'static str,
    /// The letters of its Availability Zones.
    pub zone_letters: &'static str,
}

impl Region {
    /// The Region of this name.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a name that AWS does not have: guests derive mirror names from it.
    pub fn find(name: &str) -> Result<&'static Self, Ec2Error> {
        super::network_regions::REGIONS
            .iter()
            .find(|region| region.name == name)
            .ok_or_else(|| Ec2Error::invalid_parameter_value(format!("Invalid region name {name}")))
    }

    /// All Regions, by name.
    pub fn all() -> &'static [Self] {
        super::network_regions::REGIONS
    }

    /// Split an Availability Zone name into its Region and its index there.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a zone that the Region does not have.
    pub fn of_zone(zone: &str) -> Result<(&'static Self, u8), Ec2Error> {
        let bad = || Ec2Error::invalid_parameter_value(format!("Invalid availability zone: [{zone}]"));
        let letter = zone.chars().next_back().ok_or_else(bad)?;
        let region = zone.strip_suffix(letter).and_then(|name| Self::find(name).ok()).ok_or_else(bad)?;
        let index = region.zone_letters.find(letter).ok_or_else(bad)?;
        Ok((region, u8::try_from(index).map_err(|_| bad())?))
    }

    /// The name of the `index`-th Availability Zone.
    pub fn zone(&self, index: u8) -> Option<String> {
        self.zone_letters.chars().nth(index.into()).map(|letter| format!("{}{letter}", self.name))
    }

    /// The id of the `index`-th Availability Zone: `use1-az1`.
    pub fn zone_id(&self, index: u8) -> String {
        format!("{}-az{}", self.zone_id_prefix, u32::from(index) + 1)
    }

    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub fn partition(&self) -> &'static str {
        if self.name.starts_with("cn-") {
            "aws-cn"
        } else if self.name.starts_with("us-gov-") {
            "aws-us-gov"
        } else {
            "aws"
        }
    }

    /// The domain of AWS services: `amazonaws.com`.
    pub fn services_domain(&self) -> &'static str {
        if self.partition() == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" }
    }

    /// The domain of private names, also what DHCP gives as domain name.
    pub fn private_domain(&self) -> String {
        if self.name == "us-east-1" { "ec2.internal".to_owned() } else { format!("{}.compute.internal", self.name) }
    }

    /// The private name of an address: `ip-10-0-0-37.ec2.internal`.
    pub fn private_dns_name(&self, address: Ipv4Addr) -> String {
        format!("{}.{}", private_host_name(address), self.private_domain())
    }

    /// The public name of an address: `ec2-203-0-113-25.compute-1.amazonaws.com`.
    pub fn public_dns_name(&self, address: Ipv4Addr) -> String {
        let zone = if self.name == "us-east-1" { "compute-1".to_owned() } else { format!("{}.compute", self.name) };
        format!("ec2-{}.{zone}.{}", dashed(address), self.services_domain())
    }
}

/// The short private host name of an address: `ip-10-0-0-37`.
pub fn private_host_name(address: Ipv4Addr) -> String {
    format!("ip-{}", dashed(address))
}

/// The address in a private host name, with or without a domain.
pub fn parse_private_host_name(name: &str) -> Option<Ipv4Addr> {
    let mut parts = name.split('.').next()?.strip_prefix("ip-")?.split('-');
    let mut octets = [0u8; 4];
    for octet in &mut octets {
        let part = parts.next()?;
        *octet = part.parse().ok().filter(|value: &u8| value.to_string() == part)?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
