//! The catalogue of instance types: what `DescribeInstanceTypes` says, and whether this host can run a type.
//!
//! The facts are in `catalogue.tsv`, one line a type, sorted by name; `generate.py` makes it and says where the data
//! come from. A look-up is a binary search over the text and parses one line.

mod describe;
mod filter;
mod parse;
mod runnable;
mod suggest;

pub use filter::{Architecture, Filter};
pub use runnable::{HostFacts, Warning, WarningKind, check_runnable, fitting};
pub use suggest::suggestions;

use super::Ec2Error;

/// The table, sorted by its first column.
static CATALOGUE: &str = include_str!("catalogue.tsv");

/// An instance type. Field names follow the API's `InstanceTypeInfo`.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceType {
    /// `t3.micro`
    pub name: &'static str,
    /// Properties that are there or not.
    pub flags: Flags,
    /// `nitro`, `xen`, or empty for bare metal.
    pub hypervisor: &'static str,
    /// `x86_64`, `arm64`, `i386`, `x86_64_mac`, `arm64_mac`.
    pub architectures: Vec<&'static str>,
    /// Who made the processor.
    pub manufacturer: &'static str,
    /// Sustained clock speed in GHz.
    pub clock_ghz: Option<f64>,
    /// `nested-virtualization`, `amd-sev-snp` and the like.
    pub processor_features: Vec<&'static str>,
    /// vCPUs: cores times threads per core.
    pub vcpus: u32,
    /// Cores.
    pub cores: u32,
    /// Threads per core: 1 or 2.
    pub threads_per_core: u32,
    /// Core counts that CPU options may choose; empty if they can't.
    pub valid_cores: Vec<u32>,
    /// Thread counts that CPU options may choose; empty if they can't.
    pub valid_threads_per_core: Vec<u32>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// EBS volumes: how many and how fast.
    pub ebs: Ebs,
    /// Disks that come with the instance.
    pub instance_store: Option<InstanceStore>,
    /// The network.
    pub network: Network,
    /// GPUs and other accelerators.
    pub accelerators: Vec<Accelerator>,
}

/// Properties that an instance type has or not, as the letters of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(&'static str);

impl Flags {
    fn has(self, letter: u8) -> bool {
        self.0.as_bytes().contains(&letter)
    }
}

/// EBS support.
#[derive(Clone, Debug, PartialEq)]
pub struct Ebs {
    /// `default`, `supported` or `unsupported`.
    pub optimized: &'static str,
    /// Whether volumes are NVMe: `required`, `supported` or `unsupported`.
    pub nvme: &'static str,
    /// Volumes that may be attached at most.
    pub max_attachments: u32,
    /// What it can do always and for a while, if the type is EBS-optimized.
    pub limits: Option<(EbsLimits, EbsLimits)>,
}

/// EBS throughput.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EbsLimits {
    /// Mbit/s.
    pub bandwidth_mbps: u32,
    /// MB/s.
    pub throughput_mbytes: f64,
    /// I/O operations per second.
    pub iops: u32,
}

/// Instance-store disks, all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStore {
    /// Number of disks.
    pub count: u32,
    /// Size of each in GB (10⁹ bytes).
    pub size_gb: u64,
    /// `ssd` or `hdd`.
    pub kind: &'static str,
    /// Whether they are NVMe: `required` or `unsupported`.
    pub nvme: &'static str,
    /// Whether they are encrypted: `required` or `unsupported`.
    pub encryption: &'static str,
}

/// Network performance and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// AWS's words: `Up to 5 Gigabit`.
    pub performance: &'static str,
    /// Network interfaces at most.
    pub max_interfaces: u32,
    /// IPv4 addresses per interface.
    pub ipv4_per_interface: u32,
    /// IPv6 addresses per interface.
    pub ipv6_per_interface: u32,
    /// `required`, `supported` or `unsupported`.
    pub ena: &'static str,
    /// EFA interfaces at most; 0 without EFA.
    pub max_efa_interfaces: u32,
    /// Network cards, at least one.
    pub cards: Vec<NetworkCard>,
}

/// One network card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NetworkCard {
    /// Gbit/s that it can do always.
    pub baseline_gbps: f64,
    /// Gbit/s that it can do for a while.
    pub peak_gbps: f64,
    /// Interfaces on it at most.
    pub max_interfaces: u32,
    /// AWS's words.
    pub performance: &'static str,
}

/// GPUs, FPGAs, inference, Neuron or media accelerators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// `gpu`, `fpga`, `inference`, `neuron` or `media`.
    pub kind: &'static str,
    /// How many; 0 where an instance gets a part of a GPU.
    pub count: u32,
    /// `A10G`
    pub name: &'static str,
    /// `NVIDIA`; may be empty.
    pub manufacturer: &'static str,
    /// Memory of each in MiB.
    pub memory_mib: u64,
}

impl InstanceType {
    /// Whether AWS counts it to the current generation.
    pub fn is_current_generation(&self) -> bool {
        self.flags.has(b'c')
    }

    /// Whether it is a bare-metal type.
    pub fn is_bare_metal(&self) -> bool {
        self.flags.has(b'm')
    }

    /// Whether it earns and spends CPU credits.
    pub fn is_burstable(&self) -> bool {
        self.flags.has(b'b')
    }

    /// Whether it can hibernate.
    pub fn can_hibernate(&self) -> bool {
        self.flags.has(b'h')
    }

    /// Whether it boots with UEFI or legacy BIOS, in the API's words.
    pub fn boot_modes(&self) -> Vec<&'static str> {
        self.words(&[(b'L', "legacy-bios"), (b'U', "uefi")])
    }

    /// What stands before the dot.
    pub fn family(&self) -> &'static str {
        self.name.split('.').next().unwrap_or(self.name)
    }

    /// What stands behind the dot.
    pub fn size(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(_, size)| size)
    }

    /// Whether it runs programs of this architecture.
    pub fn supports(&self, architecture: &str) -> bool {
        self.architectures.contains(&architecture)
    }

    fn words(&self, table: &[(u8, &'static str)]) -> Vec<&'static str> {
        table.iter().filter(|(letter, _)| self.flags.has(*letter)).map(|(_, word)| *word).collect()
    }
}

/// The instance type of this name.
pub fn find(name: &str) -> Option<InstanceType> {
    parse::line(find_line(CATALOGUE, name)?)
}

/// The instance type of this name, or EC2's error with the nearest names.
///
/// # Errors
/// `InvalidParameterValue`, as RunInstances answers.
pub fn require(name: &str) -> Result<InstanceType, Ec2Error> {
    find(name).ok_or_else(|| {
        let mut error = Ec2Error::invalid_instance_type(name);
        let near = suggestions(name);
        if !near.is_empty() {
            error.message.push_str(&format!(" Did you mean {}?", near.join(", ")));
        }
        error
    })
}

/// All instance types, by name.
pub fn all() -> impl Iterator<Item = InstanceType> {
    CATALOGUE.lines().filter_map(parse::line)
}

/// All names, ascending.
pub fn names() -> impl Iterator<Item = &'static str> {
    CATALOGUE.lines().filter_map(|line| line.split('\t').next())
}

/// The line whose first column is `name`: a binary search for line starts.
fn find_line<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    let (mut low, mut high) = (0, table.len());
    while low < high {
        // Both ends are line starts (or the end of the text), so is the start of the line around the middle.
        let middle = low + (high - low) / 2;
        let start = table.get(..middle)?.rfind('\n').map_or(0, |newline| newline + 1).max(low);
        let rest = table.get(start..)?;
        let line = rest.split('\n').next()?;
        match name.cmp(line.split('\t').next()?) {
            std::cmp::Ordering::Equal => return Some(line),
            std::cmp::Ordering::Less => high = start,
            std::cmp::Ordering::Greater => low = start + line.len() + 1,
        }
    }
    None
}

#[cfg(test)]
#[path = "instance_types_tests.rs"]
mod tests;
