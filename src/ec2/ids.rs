//! Resource ids: a prefix and 17 lower-case hexadecimal digits (8 for resources from before 2016).
//!
//! What is derived from an id (MAC address, SMBIOS UUID) is stable: the same id always gives the same value.

use sha2::{Digest, Sha256};

use super::Ec2Error;

/// The kinds of resources that have ids of this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdKind {
    /// `i-`
    Instance,
    /// `ami-`
    Image,
    /// `vol-`
    Volume,
    /// `eni-`
    NetworkInterface,
    /// `r-`
    Reservation,
    /// `snap-`
    Snapshot,
    /// `sg-`
    SecurityGroup,
    /// `sgr-`
    SecurityGroupRule,
    /// `subnet-`
    Subnet,
    /// `vpc-`
    Vpc,
    /// `key-`
    KeyPair,
}

/// Hexadecimal digits of an id.
const DIGITS: usize = 17;
/// Hexadecimal digits of an id from before 2016.
const OLD_DIGITS: usize = 8;

impl IdKind {
    /// What ids of this kind start with, with the hyphen.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Instance => "i-",
            Self::Image => "ami-",
            Self::Volume => "vol-",
            Self::NetworkInterface => "eni-",
            Self::Reservation => "r-",
            Self::Snapshot => "snap-",
            Self::SecurityGroup => "sg-",
            Self::SecurityGroupRule => "sgr-",
            Self::Subnet => "subnet-",
            Self::Vpc => "vpc-",
            Self::KeyPair => "key-",
        }
    }

    /// The code that EC2 answers to an id that is not of the right form.
    pub fn malformed_code(self) -> &'static str {
        match self {
            Self::Instance => "InvalidInstanceID.Malformed",
            Self::Image => "InvalidAMIID.Malformed",
            Self::Volume => "InvalidVolumeID.Malformed",
            Self::NetworkInterface => "InvalidNetworkInterfaceId.Malformed",
            Self::Reservation => "InvalidReservationID.Malformed",
            Self::Snapshot => "InvalidSnapshotID.Malformed",
            Self::SecurityGroup => "InvalidGroupId.Malformed",
            Self::SecurityGroupRule => "InvalidSecurityGroupRuleId.Malformed",
            Self::Subnet => "InvalidSubnetId.Malformed",
            Self::Vpc => "InvalidVpcId.Malformed",
            Self::KeyPair => "InvalidKeyPairId.Malformed",
        }
    }

    /// A new random id.
    ///
    /// # Panics
    /// If the operating system has no randomness to give, which on Linux ends after early boot.
    pub fn generate(self) -> String {
        let mut random = [0u8; 9];
        getrandom::fill(&mut random).expect("the operating system's random number generator works");
        self.with_bytes(random)
    }

    /// The id of this kind that belongs to `name`: the same one each time. For resources of the default world.
    pub fn derive(self, name: &str) -> String {
        let hash = digest(&format!("id {} {name}", self.prefix()));
        let mut bytes = [0u8; 9];
        bytes.copy_from_slice(&hash[..9]);
        self.with_bytes(bytes)
    }

    fn with_bytes(self, mut bytes: [u8; 9]) -> String {
        // The ids of resources made after 2016 start with a zero.
        bytes[0] &= 0x0f;
        format!("{}{}", self.prefix(), &hex::encode(bytes)[..DIGITS])
    }

    /// Whether `text` has the form of an id of this kind.
    pub fn matches(self, text: &str) -> bool {
        text.strip_prefix(self.prefix()).is_some_and(|digits| {
            (digits.len() == DIGITS || digits.len() == OLD_DIGITS)
                && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// Check the form of an id that somebody typed.
    ///
    /// # Errors
    /// EC2's `….Malformed` code for this kind.
    pub fn validate(self, text: &str) -> Result<(), Ec2Error> {
        if self.matches(text) {
            return Ok(());
        }
        let expecting = if text.starts_with(self.prefix()) {
            String::new()
        } else {
            format!(" (expecting \"{}...\")", self.prefix())
        };
        Err(Ec2Error::new(self.malformed_code(), format!("Invalid id: \"{text}\"{expecting}")))
    }
}

/// An instance's SMBIOS UUID: starts with `ec2`, lower case. Firmware shows it as product UUID and product serial.
pub fn instance_uuid(instance_id: &str) -> String {
    let hash = hex::encode(digest(&format!("uuid {instance_id}")));
    format!("ec2{}-{}-{}-{}-{}", &hash[3..8], &hash[8..12], &hash[12..16], &hash[16..20], &hash[20..32])
}

/// A network interface's MAC address: locally administered, `02:…` or `06:…` as EC2's.
pub fn mac_address(network_interface_id: &str) -> [u8; 6] {
    let hash = digest(&format!("mac {network_interface_id}"));
    let first = if hash[0] & 1 == 0 { 0x02 } else { 0x06 };
    [first, hash[1], hash[2], hash[3], hash[4], hash[5]]
}

/// A MAC address as metadata and Linux spell it: `02:ab:…`, lower case.
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// An instance-store disk's NVMe serial number: `AWS` and 17 hexadecimal digits.
pub fn instance_store_serial(instance_id: &str, index: u32) -> String {
    format!(
        "AWS{}",
        hex::encode_upper(digest(&format!("disk {index} {instance_id}"))).get(..DIGITS).unwrap_or_default()
    )
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(format!("amiable {text}")).into()
}

#[cfg(test)]
#[path = "ids_tests.rs"]
mod tests;
