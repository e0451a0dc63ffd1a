//! The command line, as clap sees it. Names are AWS's where the idea is the same.

mod launch;
mod nouns;
mod security_group;

pub use launch::{
    LaunchArgs, LintArgs, ModifyArgs, PUBLISH_ADDRESS, ProvisionedArgs, RerunArgs, RunArgs, Shutdown, TestArgs,
    Timings, Wait, WaitState,
};
pub use nouns::{
    ExportForm, ImageCommand, KeyCommand, ListArgs, OutputArgs, OutputForm, SnapshotCommand, TagCommand, TypeCommand,
    VolumeCommand,
};
pub use security_group::{RuleArgs, SecurityGroupCommand};

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::parse;

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
    Ls {
        /// Terminated instances too, which are shown for an hour.
        #[arg(short, long)]
        all: bool,
        /// Shared options.
        #[command(flatten)]
        list: ListArgs,
    },
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
    /// Tags of instances, volumes, snapshots and AMIs: set, take away.
    #[command(subcommand)]
    Tag(TagCommand),
    /// Change an instance's attributes: type and user-data while it is stopped, security groups and the rest at any time.
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
    /// Security groups: create, list, describe, authorize and revoke rules, remove.
    #[command(subcommand, visible_alias = "sg")]
    SecurityGroup(SecurityGroupCommand),
    /// Delete what nothing refers to, merge layers that nothing needs, and say how much that freed.
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
