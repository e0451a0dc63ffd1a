//! The region's resources, with EC2's field names and values.
//!
//! What EC2 does not have (where a file came from, what an image boots) stands under `Amiable`.

use serde::{Deserialize, Serialize};

use crate::boot::plan::BootPlan;
use crate::ec2::metadata_options::MetadataOptions;
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
    /// A digest of the disk's content: see [`ImportedImage::digest`](crate::storage::import::ImportedImage::digest).
    pub digest: String,
    /// The kernel, its command line, and whether the initial RAM disk is needed.
    pub boot: BootPlan,
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
    /// ISO 8601, of the last start.
    pub launch_time: String,
    /// In the default VPC; kept until terminated.
    pub private_ip_address: String,
    /// `ip-172-31-0-10.ec2.internal`
    pub private_dns_name: String,
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
    /// The instance's process, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Published ports.
    pub published: Vec<PortForward>,
    /// What became of the user-data, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Size of the user-data in bytes, if there is any.
    pub user_data_bytes: Option<usize>,
}

/// A process, told from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its start, in clock ticks since the machine's boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

impl Process {
    /// This process.
    pub fn this() -> Self {
        let pid = std::process::id();
        Process { pid, started: start_time(pid).unwrap_or(0) }
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may contain anything; the fields after it are numbers. The state is field 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18)?.parse().ok() }
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
    /// Size in bytes.
    pub size_in_bytes: u64,
    /// The image that it lies over.
    pub image_id: Option<String>,
    /// The instance that it is attached to.
    pub instance_id: Option<String>,
    /// ISO 8601.
    pub create_time: String,
}
