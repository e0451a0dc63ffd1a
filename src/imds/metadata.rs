//! All facts of one instance that its metadata shows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::ec2::Ec2Error;
use crate::ec2::ids::{self, IdKind};
use crate::ec2::metadata_options::MetadataOptions;
use crate::ec2::network::{DEFAULT_ACCOUNT, DEFAULT_VPC, Ipv4Cidr, Region, default_subnet};

/// The facts of one instance. A plain value; what is `None` or empty is absent from the metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Twelve digits.
    pub account_id: String,
    /// `i-…`
    pub instance_id: String,
    /// `ami-…`
    pub image_id: String,
    /// `r-…`
    pub reservation_id: String,
    /// `t3.micro`
    pub instance_type: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// The number of the instance in its RunInstances call.
    pub launch_index: u32,
    /// When the instance was launched, in seconds since 1970.
    pub launch_time: i64,
    /// Where it runs.
    pub placement: Placement,
    /// Its interfaces, the primary one first.
    pub network_interfaces: Vec<NetworkInterface>,
    /// Its key pair.
    pub key_pair: Option<KeyPair>,
    /// Its tags; shown if the options say so.
    pub tags: BTreeMap<String, String>,
    /// What block device mapping says; see [`block_device_mapping`].
    pub block_device_mapping: Vec<BlockDevice>,
    /// The user data, byte for byte.
    #[serde(with = "crate::ec2::base64_bytes::option")]
    pub user_data: Option<Vec<u8>>,
    /// How the service behaves.
    pub options: MetadataOptions,
}

/// Region and Availability Zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// `us-east-1`
    pub region: String,
    /// `us-east-1a`
    pub availability_zone: String,
    /// `use1-az1`
    pub availability_zone_id: String,
    /// `aws`
    pub partition: String,
    /// `amazonaws.com`
    pub services_domain: String,
}

impl Placement {
    /// The placement in an Availability Zone.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a zone that AWS does not have.
    pub fn in_zone(zone: &str) -> Result<Self, Ec2Error> {
        let (region, index) = Region::of_zone(zone)?;
        Ok(Self {
            region: region.name.to_owned(),
            availability_zone: zone.to_owned(),
            availability_zone_id: region.zone_id(index),
            partition: region.partition().to_owned(),
            services_domain: region.services_domain().to_owned(),
        })
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// `eni-…`
    pub id: String,
    /// The guest's address of the interface.
    pub mac: [u8; 6],
    /// 0 for the primary interface.
    pub device_number: u32,
    /// Primary address first.
    pub private_ipv4s: Vec<Ipv4Addr>,
    /// `ip-10-0-0-37.ec2.internal`
    pub private_dns_name: String,
    /// The public address and its name.
    pub public: Option<PublicAddress>,
    /// Groups that filter its traffic.
    pub security_groups: Vec<SecurityGroup>,
    /// `subnet-…`
    pub subnet_id: String,
    /// The subnet's addresses.
    pub subnet_cidr: Ipv4Cidr,
    /// `vpc-…`
    pub vpc_id: String,
    /// The VPC's addresses.
    pub vpc_cidr: Ipv4Cidr,
}

/// A public address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAddress {
    /// The address.
    pub ipv4: Ipv4Addr,
    /// `ec2-203-0-113-25.compute-1.amazonaws.com`
    pub dns_name: String,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// `sg-…`
    pub id: String,
    /// `default`
    pub name: String,
}

/// The public half of a key pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// The key pair's name.
    pub name: String,
    /// The OpenSSH public key: `ssh-ed25519 AAAA… name`.
    pub public_key: String,
}

/// One line of the block device mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    /// `ami`, `root`, `ebs1`, `ephemeral0`, `swap`.
    pub virtual_name: String,
    /// `xvda`, or `/dev/xvda` for `root`.
    pub device_name: String,
}

/// The block device mapping of an instance with this root device and these other EBS volumes: names of devices, with
/// `/dev/` or without.
pub fn block_device_mapping(root: &str, volumes: &[&str]) -> Vec<BlockDevice> {
    let short = |name: &str| name.strip_prefix("/dev/").unwrap_or(name).to_owned();
    let entry = |virtual_name: String, device_name: String| BlockDevice { virtual_name, device_name };
    let mut mapping = vec![entry("ami".into(), short(root)), entry("root".into(), format!("/dev/{}", short(root)))];
    mapping.extend(volumes.iter().enumerate().map(|(index, name)| entry(format!("ebs{}", index + 1), short(name))));
    mapping
}

impl Metadata {
    /// An instance in the default VPC, for documentation, tests and benchmarks. Its ids are always the same.
    pub fn example() -> Self {
        let region = &Region::all().iter().find(|region| region.name == "us-east-1");
        let address = Ipv4Addr::new(172, 31, 0, 37);
        let public = Ipv4Addr::new(203, 0, 113, 25);
        let id = IdKind::NetworkInterface.derive("example");
        let interface = NetworkInterface {
            mac: ids::mac_address(&id),
            id,
            device_number: 0,
            private_ipv4s: vec![address],
            private_dns_name: region.map_or_else(String::new, |region| region.private_dns_name(address)),
            public: region.map(|region| PublicAddress { ipv4: public, dns_name: region.public_dns_name(public) }),
            security_groups: vec![SecurityGroup {
                id: IdKind::SecurityGroup.derive("example"),
                name: "default".into(),
            }],
            subnet_id: IdKind::Subnet.derive("example"),
            subnet_cidr: default_subnet(0),
            vpc_id: IdKind::Vpc.derive("example"),
            vpc_cidr: DEFAULT_VPC,
        };
        Self {
            account_id: DEFAULT_ACCOUNT.into(),
            instance_id: IdKind::Instance.derive("example"),
            image_id: IdKind::Image.derive("example"),
            reservation_id: IdKind::Reservation.derive("example"),
            instance_type: "t3.micro".into(),
            architecture: "x86_64".into(),
            launch_index: 0,
            launch_time: 1_795_213_512,
            placement: Placement {
                region: "us-east-1".into(),
                availability_zone: "us-east-1a".into(),
                availability_zone_id: "use1-az1".into(),
                partition: "aws".into(),
                services_domain: "amazonaws.com".into(),
            },
            network_interfaces: vec![interface],
            key_pair: Some(KeyPair {
                name: "mykey".into(),
                public_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampl mykey"
                    .into(),
            }),
            tags: BTreeMap::from([("Name".into(), "example".into())]),
            block_device_mapping: block_device_mapping("/dev/xvda", &[]),
            user_data: Some(b"#!/bin/sh\necho hello\n".to_vec()),
            options: MetadataOptions::default(),
        }
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
