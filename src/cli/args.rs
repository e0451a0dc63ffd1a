//! The command line, as clap sees it. Names are AWS's where the idea is the same.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::parse;
use crate::region::VolumeRequest;
use crate::region::model::ShutdownBehavior;

const AFTER_HELP: &str = "\
Exit status: 0 success; with --wait user-data (and test) the user-data's own status; 124 time-out; 130 interrupted;
252 usage; 253 environment; 254 the region said no (the EC2 error code is printed); 255 anything else.

Files: under AMIABLE_HOME if set, else under the XDG data, state and cache directories.";

/// Launch EC2 instances on your own Linux machine: real AMIs on KVM, with user-data and metadata, unprivileged.
#[derive(Debug, Parser)]
#[command(name = "amiable", version, after_help = AFTER_HELP, propagate_version = true, infer_subcommands = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Run machines in an emulated host (QEMU TCG with nested SVM): slow, but needs no KVM.
    #[arg(long, global = true, env = "AMIABLE_EMULATE", value_parser = clap::builder::FalseyValueParser::new())]
    pub emulate: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Launch instances: in the foreground, or with --detach in the background.
    Run(RunArgs),
    /// Run user-data on a throw-away instance and end with its status.
    Test(TestArgs),
    /// Run `test` on user-data now, and again whenever the file is saved.
    Watch(TestArgs),
    /// Launch an instance with what another was launched with, under a new instance id.
    Rerun(RerunArgs),
    /// Check user-data without launching anything.
    Lint(LintArgs),
    /// Images (AMIs): import, pull, list, describe, remove.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Instance types: list and describe.
    #[command(subcommand, name = "type")]
    Type(TypeCommand),
    /// List the instances of the region.
    #[command(visible_alias = "list")]
    Ls(OutputArgs),
    /// Describe an instance.
    Describe {
        /// Id, the start of an id, or name.
        instance: String,
        /// Shared options.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print what an instance wrote to its serial console.
    Console {
        /// Id, the start of an id, or name.
        instance: String,
        /// Go on printing until the instance ends.
        #[arg(short, long)]
        follow: bool,
        /// Connect this terminal to it (Ctrl-] leaves it).
        #[arg(short, long, conflicts_with = "follow")]
        attach: bool,
    },
    /// Print the requests that an instance made to its metadata service.
    ImdsLog {
        /// Id, the start of an id, or name.
        instance: String,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Stop instances: by the power button, and after a minute by the plug.
    Stop {
        /// Ids, starts of ids, or names.
        #[arg(required = true)]
        instances: Vec<String>,
        /// Pull the plug at once.
        #[arg(long)]
        force: bool,
        /// Return at once, before they are stopped.
        #[arg(long)]
        no_wait: bool,
    },
    /// Start stopped instances in the background.
    Start {
        /// Ids, starts of ids, or names.
        #[arg(required = true)]
        instances: Vec<String>,
    },
    /// Reboot instances: by the power button, and after a minute by a reset.
    Reboot {
        /// Ids, starts of ids, or names.
        #[arg(required = true)]
        instances: Vec<String>,
    },
    /// Wait until instances are in a state.
    Wait {
        /// What to wait for.
        state: WaitState,
        /// Ids, starts of ids, or names.
        #[arg(required = true)]
        instances: Vec<String>,
        /// Give up after this time.
        #[arg(long, value_name = "TIME", value_parser = parse::duration)]
        timeout: Option<Duration>,
    },
    /// Change an instance's attributes: type and user-data while it is stopped.
    Modify(ModifyArgs),
    /// Delete instances with their volumes and records.
    #[command(visible_alias = "rm")]
    Terminate {
        /// Ids, starts of ids, or names.
        #[arg(required = true)]
        instances: Vec<String>,
    },
    /// Log in to an instance, or run a command there, with its key and its host keys known beforehand.
    Ssh {
        /// Id, the start of an id, or name; with USER@ before it if it is not the key's user.
        #[arg(value_name = "[USER@]INSTANCE")]
        target: String,
        /// A private key file instead of the instance's key pair.
        #[arg(short, long, value_name = "FILE")]
        identity: Option<PathBuf>,
        /// A command instead of a shell.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run a command in an instance without a terminal, and end with its status.
    Exec {
        /// Id, the start of an id, or name.
        #[arg(value_name = "[USER@]INSTANCE")]
        target: String,
        /// A private key file instead of the instance's key pair.
        #[arg(short, long, value_name = "FILE")]
        identity: Option<PathBuf>,
        /// The command.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Copy files to or from an instance.
    Cp {
        /// A path, or INSTANCE:PATH.
        from: String,
        /// A path, or INSTANCE:PATH.
        to: String,
        /// A private key file instead of the instance's key pair.
        #[arg(short, long, value_name = "FILE")]
        identity: Option<PathBuf>,
        /// Directories with all that is in them.
        #[arg(short, long)]
        recursive: bool,
    },
    /// Volumes: create, list, describe, attach, detach, resize, remove.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Snapshots of volumes: create, list, remove.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Delete files that nothing refers to, and say how much that freed.
    Prune,
    /// Key pairs: create, import, list, remove.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print what the user-data wrote (cloud-init-output.log), also of a running guest.
    Logs {
        /// Id, the start of an id, or name.
        instance: String,
    },
    /// Say what is missing on this machine and how to mend it.
    Doctor,
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages.
    Man {
        /// Into this directory.
        directory: PathBuf,
    },
    /// The emulated host that stays up between commands.
    #[command(subcommand)]
    Emulate(EmulateCommand),
    /// The process that keeps a shared emulated host.
    #[command(hide = true)]
    EmulateKeeper {
        /// What to keep, JSON.
        settings: String,
    },
    /// Inside the emulated host: hold drives until standard input ends.
    #[command(hide = true, name = crate::host::emulated_volumes::HOLD)]
    Hold,
    /// One instance's process; inside the emulated host with a specification in a file, events on stdout.
    #[command(hide = true, name = crate::region::process::COMMAND)]
    InstanceProcess {
        /// The specification, JSON.
        specification: Option<PathBuf>,
    },
}

/// On the emulated host.
#[derive(Debug, Subcommand)]
pub enum EmulateCommand {
    /// Say whether it is up, since when, and what it takes.
    Status(OutputArgs),
    /// End all that runs in it, then the emulated host.
    Stop {
        /// How long machines may take to end in good order: 30s, 2m.
        #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "30s")]
        grace: Duration,
    },
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
    /// Grow the root volume to this size: 20G, 20480M.
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub root_size: Option<u64>,
    /// An empty volume beside the root volume, deleted with the instance: 10G, 10G:/dev/sdf; may be repeated.
    #[arg(long, value_name = "SIZE[:DEVICE]", value_parser = parse::volume)]
    pub volume: Vec<VolumeRequest>,
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

/// `amiable image …`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an AMI of a disk image: raw, qcow2 or VMDK.
    Import {
        /// The disk image.
        file: PathBuf,
        /// The AMI's name.
        #[arg(long)]
        name: String,
        /// The file's format, if it must not be detected.
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
        /// The name of the root device in block device mappings.
        #[arg(long, value_name = "NAME", default_value = "/dev/xvda")]
        root_device_name: String,
        /// Replace the AMI that has this name.
        #[arg(long)]
        replace: bool,
    },
    /// Download an official cloud image and import it.
    Pull {
        /// A name of the catalogue, or an http(s) address.
        source: Option<String>,
        /// The AMI's name; the catalogue's if left out.
        #[arg(long)]
        name: Option<String>,
        /// The expected SHA-256 or SHA-512 of the download, in hexadecimal.
        #[arg(long, value_name = "HEX")]
        checksum: Option<String>,
        /// List the catalogue.
        #[arg(long)]
        list: bool,
        /// Replace the AMI that has this name.
        #[arg(long)]
        replace: bool,
    },
    /// List the AMIs.
    #[command(visible_alias = "list")]
    Ls(OutputArgs),
    /// Describe an AMI, with what it boots.
    Describe {
        /// Name, id, or the start of an id.
        image: String,
        /// Shared options.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make an AMI of an instance's root volume: nothing is copied.
    Create {
        /// Id, the start of an id, or name of the instance.
        #[arg(long = "from", value_name = "INSTANCE")]
        from: String,
        /// The AMI's name.
        #[arg(long)]
        name: String,
        /// Do not stop a running instance for it: its disk is taken as a power failure would leave it.
        #[arg(long)]
        no_reboot: bool,
    },
    /// Give an AMI a second name and id.
    Copy {
        /// Name, id, or the start of an id.
        image: String,
        /// The copy's name.
        #[arg(long)]
        name: String,
    },
    /// Write an AMI's disk to a file, and print its SHA-256.
    Export {
        /// Name, id, or the start of an id.
        image: String,
        /// The new file.
        file: PathBuf,
        /// Its format.
        #[arg(long, value_name = "FORMAT", default_value = "raw")]
        format: ExportForm,
    },
    /// Delete AMIs.
    Rm {
        /// Names, ids, or starts of ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
}

/// `amiable key …`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key pair, and print where its private key is.
    Create {
        /// Its name.
        name: String,
    },
    /// Take over a public key.
    Import {
        /// Its name.
        name: String,
        /// An OpenSSH public key file.
        file: PathBuf,
    },
    /// List the key pairs.
    #[command(visible_alias = "list")]
    Ls(OutputArgs),
    /// Forget key pairs, with private keys that were made here.
    Rm {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Formats of `image export`. All but raw are written by qemu-img.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// As it is, with holes.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's, stream-optimised.
    Vmdk,
}

/// `amiable volume …`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume: empty, or from a snapshot.
    Create {
        /// Its size: 10G. The snapshot's if left out.
        #[arg(long, value_name = "SIZE", value_parser = parse::size, required_unless_present = "snapshot")]
        size: Option<u64>,
        /// Id, the start of an id, or name of a snapshot.
        #[arg(long)]
        snapshot: Option<String>,
        /// The volume's Name tag.
        #[arg(long)]
        name: Option<String>,
    },
    /// List the volumes.
    #[command(visible_alias = "list")]
    Ls(OutputArgs),
    /// Describe a volume.
    Describe {
        /// Id, the start of an id, or name.
        volume: String,
        /// Shared options.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Attach a volume to an instance, running or stopped, and print the device's name.
    Attach {
        /// Id, the start of an id, or name.
        volume: String,
        /// Id, the start of an id, or name of the instance.
        instance: String,
        /// The device's name at EC2: /dev/sdf; the next free one if left out. In the guest it is /dev/nvme*.
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
    },
    /// Detach a volume from its instance.
    Detach {
        /// Id, the start of an id, or name.
        volume: String,
        /// Take it away without the guest's consent, as pulling a cable does.
        #[arg(long)]
        force: bool,
    },
    /// Make a volume larger; a running guest sees it at once.
    Resize {
        /// Id, the start of an id, or name.
        volume: String,
        /// The new size: 20G.
        #[arg(value_parser = parse::size)]
        size: u64,
    },
    /// Delete volumes.
    Rm {
        /// Ids, starts of ids, or names.
        #[arg(required = true)]
        volumes: Vec<String>,
    },
}

/// `amiable snapshot …`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot of a volume, in use or not: nothing is copied, and the guest waits for milliseconds.
    Create {
        /// Id, the start of an id, or name of the volume.
        volume: String,
        /// The snapshot's Name tag.
        #[arg(long)]
        name: Option<String>,
        /// For people.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List the snapshots.
    #[command(visible_alias = "list")]
    Ls(OutputArgs),
    /// Delete snapshots. Volumes and AMIs that were made from them stay.
    Rm {
        /// Ids, starts of ids, or names.
        #[arg(required = true)]
        snapshots: Vec<String>,
    },
}

/// `amiable type …`.
#[derive(Debug, Subcommand)]
pub enum TypeCommand {
    /// List instance types.
    #[command(visible_alias = "list")]
    Ls {
        /// Only types with this many vCPUs.
        #[arg(long)]
        vcpus: Option<u32>,
        /// Only types with this much memory, in GiB: 4, 0.5.
        #[arg(long, value_name = "GIB")]
        memory: Option<f64>,
        /// Only types of this architecture: x86_64, arm64.
        #[arg(long)]
        arch: Option<String>,
        /// Only types whose name matches: t3.*, *.xlarge.
        #[arg(value_name = "PATTERN")]
        name: Option<String>,
        /// Only types that this machine can run.
        #[arg(long)]
        runnable: bool,
        /// Shared options.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Describe an instance type.
    Describe {
        /// Its name.
        name: String,
        /// Shared options.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// How lists and descriptions are printed.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// The form; json, yaml and text have EC2's field names.
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub output: OutputForm,
    /// A JMESPath expression on the json form.
    #[arg(long, value_name = "JMESPATH")]
    pub query: Option<String>,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// For people.
    Table,
    /// JSON with EC2's field names.
    Json,
    /// The same as YAML.
    Yaml,
    /// Values separated by tabs.
    Text,
}

/// Where a published port listens if no address is given.
pub const PUBLISH_ADDRESS: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
