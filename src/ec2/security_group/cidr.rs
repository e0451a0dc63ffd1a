//! Address ranges of security group rules: any prefix, IPv4 or IPv6, canonical.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ec2::Ec2Error;

/// A block of addresses. Bits behind the prefix are zero, as AWS makes them: `100.68.0.18/18` is `100.68.0.0/18`. Serialises as
/// text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `0.0.0.0/0`
    pub const ANY_IPV4: Cidr = Cidr { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };
    /// `::/0`
    pub const ANY_IPV6: Cidr = Cidr { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 };

    /// The block of one address.
    pub fn host(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether it is a block of IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether `address` lies in the block. An IPv4 address that is written as an IPv6 one (`::ffff:a.b.c.d`) is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl FromStr for Cidr {
    type Err = Ec2Error;

    fn from_str(text: &str) -> Result<Self, Ec2Error> {
        let malformed = || Ec2Error::invalid_parameter_value(format!("CIDR block {text} is malformed"));
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        // No sign: `parse` would take one.
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| digits && *prefix <= most).ok_or_else(malformed)?;
        Ok(Cidr { address: masked(address, prefix), prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = Ec2Error;

    fn try_from(text: String) -> Result<Self, Ec2Error> {
        text.parse()
    }
}
