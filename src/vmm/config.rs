//! What a machine is made of.

use std::fs::File;
use std::sync::Arc;

use super::backend::{BlockBackend, ConsoleSink, NetBackend};
use super::groundwork::Groundwork;

/// Everything that [`super::machine::Machine`] needs. Plain values and back ends; nothing is looked up later.
pub struct MachineConfig {
    /// Guest RAM in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// vCPUs and how the guest sees them grouped.
    pub topology: CpuTopology,
    /// The guest kernel.
    pub kernel: Kernel,
    /// The initial RAM disk.
    pub initrd: Option<Initrd>,
    /// The kernel command line, without a final NUL.
    pub cmdline: String,
    /// What firmware tables say about the machine.
    pub smbios: SmbiosIdentity,
    /// Receives the output of ttyS0.
    pub console: Box<dyn ConsoleSink>,
    /// NVMe controllers, in slot order as given. The first is the root volume: it and instance-store disks stay as long as
    /// the machine; the others can be detached while it runs.
    pub volumes: Vec<VolumeConfig>,
    /// Network interfaces.
    pub nics: Vec<NicConfig>,
    /// What was begun before all this was known. It is used if it fits.
    pub groundwork: Option<Groundwork>,
}

/// One socket with `cores` cores of `threads_per_core` threads each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTopology {
    /// Cores, at least 1.
    pub cores: u32,
    /// Threads per core, 1 or 2.
    pub threads_per_core: u32,
}

impl CpuTopology {
    /// The number of vCPUs.
    pub fn vcpus(self) -> u32 {
        self.cores * self.threads_per_core
    }
}

/// A guest kernel.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// An unpacked ELF kernel with a PVH entry note. Its holes are not read.
    Elf(Arc<File>),
    /// A bzImage, entered by the 64-bit boot protocol; it unpacks itself in the guest.
    BzImage(Arc<Vec<u8>>),
}

/// An initial RAM disk.
#[derive(Clone, Debug)]
pub enum Initrd {
    /// Its bytes.
    Bytes(Arc<Vec<u8>>),
    /// A file that holds just it.
    File(Arc<File>),
}

/// SMBIOS strings (types 0 to 3), as on Nitro.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosIdentity {
    /// Type 1 UUID and serial number: the canonical text form, lower case. The guest sees exactly this text.
    pub uuid: String,
    /// Type 1 product name: the instance type.
    pub product_name: String,
    /// Type 2 asset tag: the instance id.
    pub board_asset_tag: String,
}

/// One NVMe controller with one namespace.
pub struct VolumeConfig {
    /// PCI slot on bus 0, 1 to 31.
    pub slot: u8,
    /// What Identify says about the volume.
    pub identity: VolumeIdentity,
    /// The volume's blocks.
    pub backend: Arc<dyn BlockBackend>,
}

/// What kind of EC2 disk a controller claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeIdentity {
    /// An EBS volume.
    Ebs {
        /// `vol-` and 17 hexadecimal digits.
        volume_id: String,
        /// The name of the block device mapping without `/dev/`: `xvda`, `sda1`; with it for volumes attached later.
        device_name: String,
    },
    /// An instance-store disk.
    InstanceStore {
        /// `AWS` and 17 hexadecimal digits.
        serial: String,
    },
}

/// One virtio network interface.
pub struct NicConfig {
    /// PCI slot on bus 0, 1 to 31. Slot 5 becomes `ens5`.
    pub slot: u8,
    /// The interface's address.
    pub mac: [u8; 6],
    /// The largest IP packet, in bytes: 68 to 9216.
    pub mtu: u16,
    /// The network behind it.
    pub backend: Box<dyn NetBackend>,
}
