//! What launches an instance, and what is said of one by itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::parse;
use crate::ec2::volume_types::{Provisioned, VolumeType};
use crate::region::VolumeRequest;
use crate::region::model::ShutdownBehavior;

/// What is asked of volumes.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ProvisionedArgs {
    /// The volume type: gp2, gp3, io1, io2, st1, sc1, standard. How fast that is counts in instances launched with --limits.
    #[arg(long, value_name = "TYPE", default_value = "gp3")]
    pub volume_type: VolumeType,
    /// I/O operations per second, for gp3, io1 and io2.
    #[arg(long, value_name = "NUMBER")]
    pub iops: Option<u32>,
    /// MiB/s, for gp3.
    #[arg(long, value_name = "MIB/S")]
    pub throughput: Option<u32>,
}

impl From<ProvisionedArgs> for Provisioned {
    fn from(args: ProvisionedArgs) -> Self {
        Provisioned { volume_type: args.volume_type, iops: args.iops, throughput: args.throughput }
    }
}

/// What an instance is launched with; `run` and `test` share it.
#[derive(Debug, Default, Args)]
pub struct LaunchArgs {
    /// The instance type.
    #[arg(short = 't', long, value_name = "TYPE", default_value = "t3.small", env = "AMIABLE_INSTANCE_TYPE")]
    pub instance_type: String,
    /// Publish a guest port on this machine: [ADDR:]HOST:GUEST[/udp]; may be repeated. ADDR is 127.0.0.1 if left out.
    #[arg(short, long, value_name = "[ADDR:]HOST:GUEST[/udp]", value_parser = parse::port_forward)]
    pub publish: Vec<parse::Publish>,
    /// A security group, by name or id; may be repeated, up to 5. The default group, which lets published ports be reached, if left
    /// out.
    #[arg(long, value_name = "NAME|ID")]
    pub security_group: Vec<String>,
    /// Grow the root volume to this size: 20G, 20480M.
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub root_size: Option<u64>,
    /// An empty volume beside the root volume, deleted with the instance: 10G, 10G:/dev/sdf; may be repeated.
    #[arg(long, value_name = "SIZE[:DEVICE]", value_parser = parse::volume)]
    pub volume: Vec<VolumeRequest>,
    /// Shared options.
    #[command(flatten)]
    pub provisioned: ProvisionedArgs,
    /// Make the volumes no faster than EC2's: the limits of their types and of the instance's, with their burst buckets.
    #[arg(long)]
    pub limits: bool,
    /// A tag, also shown in the metadata if --metadata-options InstanceMetadataTags=enabled; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::key_value)]
    pub tag: Vec<(String, String)>,
    /// The instance's Name tag.
    #[arg(long)]
    pub name: Option<String>,
    /// AWS's metadata options: HttpTokens=required,HttpPutResponseHopLimit=1,HttpEndpoint=disabled,InstanceMetadataTags=enabled.
    #[arg(long, value_name = "OPTIONS")]
    pub metadata_options: Option<String>,
    /// The key pair for the image's default user (amiable key ls); run makes and uses one called amiable if none is given.
    #[arg(long, value_name = "NAME", conflicts_with = "ssh_key")]
    pub key_name: Option<String>,
    /// An OpenSSH public key file instead of a key pair.
    #[arg(long, value_name = "FILE.pub")]
    pub ssh_key: Option<PathBuf>,
    /// Launch without a key pair.
    #[arg(long, conflicts_with_all = ["ssh_key", "key_name"])]
    pub no_key: bool,
    /// Start this kernel (bzImage or ELF with a PVH entry) instead of the image's.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Start with this initial RAM disk instead of the image's; with --kernel alone there is none.
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Add these words to the kernel command line; with --kernel they are the command line.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Use the image's initial RAM disk even where the kernel does not need it.
    #[arg(long)]
    pub keep_initrd: bool,
    /// Let the guest reach services on this machine's loopback at 169.254.169.250.
    #[arg(long)]
    pub host_loopback: bool,
    /// Give the instance no public address in its metadata.
    #[arg(long)]
    pub no_associate_public_ip_address: bool,
    /// Make what the checks of the user-data find errors instead of warnings.
    #[arg(long)]
    pub strict: bool,
    /// Give up after this time: 90s, 10m, 1h. Default: 10m with --wait user-data and for test (60m in the emulated host), else none.
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub timeout: Option<Duration>,
    /// At the end, print the stages with their times on stdout in this form.
    #[arg(long, value_name = "FORM")]
    pub timings: Option<Timings>,
}

/// `amiable run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The image: its name, id, or the start of its id.
    pub image: String,
    /// User-data, as it is, up to 16,384 bytes: a file, or - for standard input.
    #[arg(short = 'u', long, value_name = "FILE", value_parser = parse::file_argument)]
    pub user_data: Option<PathBuf>,
    /// Shared options.
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// Launch this many instances; more than one need --detach.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub count: u32,
    /// Leave the instance running in the background, and print its id.
    #[arg(short, long, conflicts_with_all = ["rm", "interactive"])]
    pub detach: bool,
    /// End when this is reached (with --detach: return).
    #[arg(long, value_name = "WHAT")]
    pub wait: Option<Wait>,
    /// Delete the instance at the end.
    #[arg(long)]
    pub rm: bool,
    /// Use this private address of the default subnet, 172.31.0.0/20.
    #[arg(long, value_name = "ADDRESS")]
    pub private_ip: Option<std::net::Ipv4Addr>,
    /// What it means that the guest powers itself off. Default: stop.
    #[arg(long, value_name = "BEHAVIOR")]
    pub shutdown_behavior: Option<Shutdown>,
    /// Connect this terminal to the guest's serial console (Ctrl-] ends).
    #[arg(short, long)]
    pub interactive: bool,
    /// Show stages only, not the guest's console.
    #[arg(short, long)]
    pub quiet: bool,
    /// Never make the guest's writes durable: faster, and lost if this machine crashes.
    #[arg(long)]
    pub throw_away: bool,
}

/// `amiable test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// User-data, as it is: a file, or - for standard input.
    #[arg(value_parser = parse::file_argument)]
    pub user_data: PathBuf,
    /// The image: its name, id, or the start of its id.
    #[arg(short, long, value_name = "IMAGE", env = "AMIABLE_IMAGE", default_value = "debian-12")]
    pub image: String,
    /// Shared options.
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// Show the guest's console while it runs.
    #[arg(short, long)]
    pub verbose: bool,
    /// Keep the instance for a look.
    #[arg(long)]
    pub keep: bool,
}

/// `amiable rerun`.
#[derive(Debug, Args)]
pub struct RerunArgs {
    /// Id, the start of an id, or name.
    pub instance: String,
    /// Other user-data: a file, or - for standard input.
    #[arg(short = 'u', long, value_name = "FILE", value_parser = parse::file_argument)]
    pub user_data: Option<PathBuf>,
    /// Leave the instance running in the background, and print its id.
    #[arg(short, long, conflicts_with = "rm")]
    pub detach: bool,
    /// End when this is reached (with --detach: return).
    #[arg(long, value_name = "WHAT")]
    pub wait: Option<Wait>,
    /// Delete the instance at the end.
    #[arg(long)]
    pub rm: bool,
    /// Show stages only, not the guest's console.
    #[arg(short, long)]
    pub quiet: bool,
    /// Make what the checks of the user-data find errors instead of warnings.
    #[arg(long)]
    pub strict: bool,
    /// Give up after this time.
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub timeout: Option<Duration>,
    /// At the end, print the stages with their times on stdout in this form.
    #[arg(long, value_name = "FORM")]
    pub timings: Option<Timings>,
}

/// `amiable lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// User-data files, or - for standard input.
    #[arg(required = true, value_parser = parse::file_argument)]
    pub user_data: Vec<PathBuf>,
    /// Fail on warnings too.
    #[arg(long)]
    pub strict: bool,
    /// Findings as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What `--wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// The end of the user-data; its status becomes the exit status.
    UserData,
    /// The guest's power-off.
    PowerOff,
}

/// Instance-initiated shutdown behaviours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shutdown {
    /// The instance is stopped.
    Stop,
    /// The instance is terminated.
    Terminate,
}

impl From<Shutdown> for ShutdownBehavior {
    fn from(shutdown: Shutdown) -> Self {
        match shutdown {
            Shutdown::Stop => ShutdownBehavior::Stop,
            Shutdown::Terminate => ShutdownBehavior::Terminate,
        }
    }
}

/// Forms of `--timings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Timings {
    /// One JSON object.
    Json,
    /// Lines.
    Text,
}

/// Where a published port listens if no address is given.
pub const PUBLISH_ADDRESS: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// `amiable modify`.
#[derive(Debug, Args)]
pub struct ModifyArgs {
    /// Id, the start of an id, or name.
    pub instance: String,
    /// The instance type.
    #[arg(short = 't', long, value_name = "TYPE")]
    pub instance_type: Option<String>,
    /// The user-data: a file, or - for standard input. It runs again only under a new instance id: amiable rerun.
    #[arg(short = 'u', long, value_name = "FILE", value_parser = parse::file_argument)]
    pub user_data: Option<PathBuf>,
    /// Take the user-data away.
    #[arg(long, conflicts_with = "user_data")]
    pub no_user_data: bool,
    /// What it means that the guest powers itself off.
    #[arg(long, value_name = "BEHAVIOR")]
    pub shutdown_behavior: Option<Shutdown>,
    /// Whether the instance can't be terminated.
    #[arg(long, value_name = "true|false")]
    pub termination_protection: Option<bool>,
    /// How the metadata service answers, at once: HttpTokens=required,HttpPutResponseHopLimit=2; what is not named stays.
    #[arg(long, value_name = "OPTIONS")]
    pub metadata_options: Option<String>,
    /// The security groups that it is to be in, by name or id; may be repeated, up to 5. They hold at once.
    #[arg(long, value_name = "NAME|ID")]
    pub security_group: Vec<String>,
}

/// What `amiable wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitState {
    /// The guest runs.
    Running,
    /// The instance is stopped.
    Stopped,
    /// The instance is terminated.
    Terminated,
    /// The user-data is through; ends with its status.
    UserData,
}
