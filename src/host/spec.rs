//! Everything that an instance's process needs to know, as one value.
//!
//! The region makes it from its records; after that nothing is looked up. It crosses into the emulated host as JSON with
//! its paths replaced by what they are called there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::boot::plan::BootPlan;
use crate::ec2::security_group::SecurityGroup;
use crate::ec2::volume_types::{Performance, Provisioned};
use crate::imds::Metadata;
use crate::storage::{Chain, VolumePaths};

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// Cores.
    pub cores: u32,
    /// Threads per core.
    pub threads_per_core: u32,
    /// SMBIOS UUID and serial number.
    pub uuid: String,
    /// The root volume.
    pub root: VolumeSpec,
    /// The other volumes.
    #[serde(default)]
    pub volumes: Vec<VolumeSpec>,
    /// The instance-store disks of its type.
    #[serde(default)]
    pub instance_store: Vec<StoreDisk>,
    /// What is booted.
    pub boot: BootSpec,
    /// The network interface and what is behind it.
    pub network: NetworkSpec,
    /// What the metadata service tells.
    pub metadata: Metadata,
    /// Whether the volumes have limits.
    #[serde(default)]
    pub limits: Option<LimitsSpec>,
    /// A directory with the keys that sign the identity document; made there when they are first needed.
    pub identity_keys: PathBuf,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// `vol-…`
    pub volume_id: String,
    /// The name in the block device mapping: `/dev/xvda`, `/dev/sdf`.
    pub device_name: String,
    /// The PCI slot.
    pub slot: u8,
    /// What it lies over.
    pub chain: Chain,
    /// Its own layer.
    pub top: VolumePaths,
    /// Whether flushes may do nothing.
    pub throw_away: bool,
    /// What is asked of it; it counts where the instance has [limits](InstanceSpec::limits).
    #[serde(default)]
    pub provisioned: Provisioned,
}

/// That an instance's volumes are as fast as EC2's, and no faster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitsSpec {
    /// All of them together, if that is known of the instance's type.
    pub instance: Option<Performance>,
}

/// An instance-store disk: empty when the instance starts, gone when it stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreDisk {
    /// `AWS` and 17 hexadecimal digits.
    pub serial: String,
    /// The PCI slot.
    pub slot: u8,
    /// Its file, which is made when the instance starts; or a block device.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
}

/// The root volume's slot: in front of the NIC's, as on Nitro.
pub const ROOT_SLOT: u8 = 4;
/// The first NIC's slot: `ens5`.
pub const NIC_SLOT: u8 = 5;
/// Where volumes beside the root volume go. Slot 2 has the entropy device.
pub const VOLUME_SLOTS: std::ops::RangeInclusive<u8> = 6..=31;

/// The slots of so many instance-store disks: the last ones, so that the guest counts them after its volumes, as on Nitro.
pub fn store_slots(disks: u32) -> std::ops::RangeInclusive<u8> {
    let most = VOLUME_SLOTS.end() - VOLUME_SLOTS.start();
    let disks = u8::try_from(disks).unwrap_or(most).min(most);
    VOLUME_SLOTS.end() + 1 - disks..=*VOLUME_SLOTS.end()
}

/// What is booted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BootSpec {
    /// What the image boots, found when it was imported. Valid for the first start only: a guest may install another
    /// kernel, so later starts look at the volume.
    pub plan: Option<BootPlan>,
    /// The plan's files where the cache is out of reach: inside the emulated host.
    pub ready: Option<ReadyFiles>,
    /// Where unpacked kernels are kept.
    pub cache: PathBuf,
    /// A kernel instead of the image's.
    pub kernel: Option<PathBuf>,
    /// An initial RAM disk instead of the image's.
    pub initrd: Option<PathBuf>,
    /// Words for the end of the command line.
    pub append: Option<String>,
    /// Use the image's initial RAM disk even if it is not needed.
    pub keep_initrd: bool,
}

/// A plan's files, unpacked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadyFiles {
    /// The kernel: ELF or bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk, if the plan has one.
    pub initrd: Option<PathBuf>,
}

/// The network interface and what is behind it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The interface's address.
    pub mac: [u8; 6],
    /// Its private IP address.
    pub address: Ipv4Addr,
    /// The subnet's prefix length.
    pub prefix: u8,
    /// The VPC's DNS server, base + 2.
    pub dns: Ipv4Addr,
    /// The domain of private names.
    pub domain: String,
    /// Where names that are not the VPC's are looked up.
    pub upstreams: Vec<SocketAddr>,
    /// Published ports.
    pub forwards: Vec<PortForward>,
    /// What the guest reaches at [`HOST_ALIAS`], if anything.
    pub host_loopback: Option<IpAddr>,
    /// What filters it.
    #[serde(default)]
    pub groups: SecurityGroups,
    /// Who peers of the published ports are taken for, in the order of those, where their addresses can't be seen: in the emulated
    /// host. Empty elsewhere.
    #[serde(default)]
    pub peers: Vec<IpAddr>,
}

/// The security groups of an instance, with all that they say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroups {
    /// Of two, the one with the higher number is the newer.
    pub version: u64,
    /// One to five.
    pub groups: Vec<SecurityGroup>,
}

/// The address at which a guest reaches this machine's loopback, if that is allowed.
pub const HOST_ALIAS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 250);

/// A port of this machine that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortForward {
    /// Where this machine listens.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}
