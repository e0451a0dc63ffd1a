//! The nouns: images, types, key pairs, volumes, snapshots; and how lists are printed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ProvisionedArgs;
use crate::cli::parse;
use crate::ec2::filters::{Filter, Filters};

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
        /// The expected SHA-256 or SHA-512 of the file, in hexadecimal, as `image export` and sha256sum print it.
        #[arg(long, value_name = "HEX")]
        checksum: Option<String>,
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
    Ls(ListArgs),
    /// Describe an AMI, with what it boots.
    Describe {
        /// Name, id, or the start of an id.
        image: String,
        /// Shared options.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make an AMI of an instance, with all its volumes: nothing is copied.
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

/// `amiable tag …`.
#[derive(Debug, Subcommand)]
pub enum TagCommand {
    /// Set tags of an instance, a volume, a snapshot or an AMI; a running instance's metadata shows them at once.
    Add {
        /// Id, the start of an id, or name.
        resource: String,
        /// Tags.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse::key_value)]
        tags: Vec<(String, String)>,
    },
    /// Take tags away.
    Rm {
        /// Id, the start of an id, or name.
        resource: String,
        /// Their keys.
        #[arg(required = true)]
        keys: Vec<String>,
    },
}

/// Formats of `image export`. VMDK is written by qemu-img.
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
        /// What is asked of it.
        #[command(flatten)]
        provisioned: ProvisionedArgs,
    },
    /// List the volumes.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
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
    Ls(ListArgs),
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

/// Lists.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Only what fits, with AWS's names: Name=tag:env,Values=dev,test or tag:env=dev; * and ? are wildcards. May be repeated: all must fit.
    #[arg(short, long, visible_alias = "filter", value_name = "FILTER", num_args = 1.., value_parser = parse::filter)]
    pub filters: Vec<Filter>,
    /// Shared options.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl ListArgs {
    /// The filters.
    pub fn filters(&self) -> Filters {
        Filters(self.filters.clone())
    }
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
