//! The region's resources, with EC2's field names and values.
//!
//! What EC2 does not have (where a file came from, what an image boots) stands under `Amiable`.

use serde::{Deserialize, Serialize};

use crate::boot::plan::BootPlan;
use crate::ec2::metadata_options::MetadataOptions;
use crate::ec2::security_group::GroupIdentifier;
use crate::ec2::volume_types::VolumeType;
use crate::host::spec::PortForward;
use crate::host::verdict::Verdict;

/// A key and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag {
    /// The key.
    pub key: String,
    /// The value; may be empty.
    pub value: String,
}

/// An AMI.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// `ami-…`
    pub image_id: String,
    /// Unique in the region.
    pub name: String,
    /// `x86_64`
    pub architecture: String,
    /// `available`
    pub state: String,
    /// ISO 8601.
    pub creation_date: String,
    /// `/dev/xvda` or `/dev/sda1`.
    pub root_device_name: String,
    /// `ebs`
    pub root_device_type: String,
    /// `hvm`
    pub virtualization_type: String,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// What EC2 does not have.
    pub amiable: ImageFacts,
}

/// Where an image came from and what it boots.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageFacts {
    /// Size of the disk in bytes.
    pub size_in_bytes: u64,
    /// The file or address that it was imported from.
    pub source: String,
    /// The format that was detected at import; what is kept is raw.
    pub source_format: String,
    /// What its disk is made of: nothing but its own raw file, or what a snapshot is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Layers>,
    /// The volumes beside the root volume that instances of it get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ImageVolume>,
    /// A digest of the disk's content: see [`ImportedImage::digest`](crate::storage::import::ImportedImage::digest).
    pub digest: String,
    /// The kernel, its command line, and whether the initial RAM disk is needed.
    pub boot: BootPlan,
}

/// A volume of an AMI beside the root volume: a line of its block device mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageVolume {
    /// `/dev/sdf`
    pub device_name: String,
    /// The snapshot that it was made from.
    pub snapshot_id: String,
    /// Size in bytes.
    pub size_in_bytes: u64,
    /// Whether the volumes made of it go with their instances.
    pub delete_on_termination: bool,
    /// What it is made of.
    pub layers: Layers,
}

/// An instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Instance {
    /// `i-…`
    pub instance_id: String,
    /// The AMI it was launched from.
    pub image_id: String,
    /// `t3.small`
    pub instance_type: String,
    /// Where it is in its life.
    pub state: State,
    /// Why it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<StateReason>,
    /// What changed its state last: `User initiated (2026-11-20 22:17:46 GMT)`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state_transition_reason: String,
    /// The name of its key pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// ISO 8601, of the last start.
    pub launch_time: String,
    /// In the default VPC; kept until terminated.
    pub private_ip_address: String,
    /// `ip-172-31-0-10.ec2.internal`
    pub private_dns_name: String,
    /// From a start to the next stop, another one each time; see [`network::public_address`](crate::ec2::network::public_address).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_ip_address: Option<String>,
    /// The public address's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_dns_name: Option<String>,
    /// `eni-…`
    pub network_interface_id: String,
    /// The network interface's address, in lower case with colons.
    pub mac_address: String,
    /// `r-…`
    pub reservation_id: String,
    /// In which number of its reservation it was launched.
    pub ami_launch_index: u32,
    /// The root volume.
    pub root_volume_id: String,
    /// The name of the root device.
    pub root_device_name: String,
    /// `x86_64`
    pub architecture: String,
    /// The groups that filter its traffic. Records of older versions name none: the default group.
    #[serde(default)]
    pub security_groups: Vec<GroupIdentifier>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// How the metadata service answers.
    pub metadata_options: MetadataOptions,
    /// What EC2 does not have.
    pub amiable: InstanceFacts,
}

impl Instance {
    /// The value of the Name tag.
    pub fn name(&self) -> Option<&str> {
        self.tags.iter().find(|t| t.key == "Name").map(|t| t.value.as_str())
    }
}

/// How an instance runs here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InstanceFacts {
    /// Published ports; while it runs, with the numbers that were taken.
    pub published: Vec<PortForward>,
    /// Whether it runs in the emulated host.
    #[serde(default)]
    pub emulated: bool,
    /// Whether it has run: until then a failure ends it for good.
    #[serde(default)]
    pub has_run: bool,
    /// How often it was started again.
    #[serde(default)]
    pub starts: u32,
    /// What a power-off by the guest means.
    #[serde(default)]
    pub shutdown_behavior: ShutdownBehavior,
    /// Whether it can't be terminated.
    #[serde(default)]
    pub termination_protection: bool,
    /// Delete it when the command that launched it goes away.
    #[serde(default)]
    pub bound_to_command: bool,
    /// What became of the user-data, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// When it was terminated, ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Size of the user-data in bytes, if there is any.
    pub user_data_bytes: Option<usize>,
}

/// What a power-off by the guest means: `InstanceInitiatedShutdownBehavior`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownBehavior {
    /// The instance is stopped.
    #[default]
    Stop,
    /// The instance is terminated.
    Terminate,
}

/// An instance's state: EC2's code and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// 0 pending, 16 running, 32 shutting-down, 48 terminated, 64 stopping, 80 stopped.
    pub code: u8,
    /// The name of that.
    pub name: StateName,
}

/// Names of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateName {
    /// Being prepared.
    Pending,
    /// Its process runs.
    Running,
    /// Being terminated.
    ShuttingDown,
    /// Gone; the record stays.
    Terminated,
    /// On its way to stopped.
    Stopping,
    /// Off; volumes and address are kept.
    Stopped,
}

impl From<StateName> for State {
    fn from(name: StateName) -> Self {
        let code = match name {
            StateName::Pending => 0,
            StateName::Running => 16,
            StateName::ShuttingDown => 32,
            StateName::Terminated => 48,
            StateName::Stopping => 64,
            StateName::Stopped => 80,
        };
        State { code, name }
    }
}

impl StateName {
    /// EC2's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            StateName::Pending => "pending",
            StateName::Running => "running",
            StateName::ShuttingDown => "shutting-down",
            StateName::Terminated => "terminated",
            StateName::Stopping => "stopping",
            StateName::Stopped => "stopped",
        }
    }
}

/// Why an instance is in its state, in EC2's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StateReason {
    /// `Client.InstanceInitiatedShutdown`
    pub code: String,
    /// `Client.InstanceInitiatedShutdown: Instance initiated shutdown`
    pub message: String,
}

impl StateReason {
    /// The reason with this code and text.
    pub fn new(code: &str, text: &str) -> Self {
        StateReason { code: code.to_owned(), message: format!("{code}: {text}") }
    }
}

/// A volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// `vol-…`
    pub volume_id: String,
    /// Size in GiB, rounded up.
    #[serde(default)]
    pub size: u64,
    /// `available`, `in-use`
    #[serde(default)]
    pub state: VolumeState,
    /// The snapshot it was made from, or empty.
    #[serde(default)]
    pub snapshot_id: String,
    /// `us-east-1a`
    #[serde(default)]
    pub availability_zone: String,
    /// `gp3`
    #[serde(default)]
    pub volume_type: VolumeType,
    /// I/O operations per second, where they are provisioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// MiB/s, where they are provisioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u32>,
    /// ISO 8601.
    pub create_time: String,
    /// To what it is attached: one or none.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// What EC2 does not have.
    #[serde(default)]
    pub amiable: VolumeFacts,
    /// How stores of version 1 said it.
    #[serde(default, rename = "SizeInBytes", skip_serializing)]
    pub(super) size_in_bytes_1: u64,
    #[serde(default, rename = "ImageId", skip_serializing)]
    pub(super) image_id_1: Option<String>,
}

/// A volume's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Attached to nothing.
    Available,
    /// Attached to an instance.
    #[default]
    InUse,
}

/// A volume's attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attachment {
    /// `i-…`
    pub instance_id: String,
    /// `/dev/sdf`
    pub device: String,
    /// `attaching`, `attached`, `detaching`
    pub state: AttachmentState,
    /// ISO 8601.
    pub attach_time: String,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
}

/// An attachment's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentState {
    /// Wanted; the instance may have it by now.
    Attaching,
    /// There.
    Attached,
    /// To be let go of; the instance may have done so by now.
    Detaching,
}

/// A volume's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeFacts {
    /// Size in bytes.
    pub size_in_bytes: u64,
    /// What it lies over.
    pub layers: Layers,
    /// Its own layer.
    pub top: String,
    /// The layer that a snapshot under way puts above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextLayer>,
    /// The PCI slot, while it is attached.
    pub slot: u8,
}

/// A snapshot under way: see [`crate::storage::live`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NextLayer {
    /// The layer.
    pub layer: String,
    /// The snapshots that the present layer becomes, with all below it.
    pub snapshot_id: String,
}

/// An image and frozen layers over it, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Layers {
    /// The image whose raw disk is at the bottom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The frozen layers from the bottom up.
    #[serde(default)]
    pub frozen: Vec<String>,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Snapshot {
    /// `snap-…`
    pub snapshot_id: String,
    /// The volume that it is of.
    pub volume_id: String,
    /// Size in GiB, rounded up.
    pub volume_size: u64,
    /// `pending` until the volume goes on in a new layer, then `completed`.
    pub state: SnapshotState,
    /// ISO 8601.
    pub start_time: String,
    /// For people.
    pub description: String,
    /// Tags.
    pub tags: Vec<Tag>,
    /// What EC2 does not have.
    pub amiable: SnapshotFacts,
}

/// A snapshot's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// Under way.
    Pending,
    /// There.
    Completed,
}

/// A snapshot's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SnapshotFacts {
    /// Size in bytes.
    pub size_in_bytes: u64,
    /// All of it.
    pub layers: Layers,
}
