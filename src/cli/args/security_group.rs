//! `amiable security-group …`, with the flags of the AWS CLI's commands.

use clap::{Args, Subcommand};

use super::OutputArgs;
use crate::cli::parse;

/// `amiable security-group …`.
#[derive(Debug, Subcommand)]
pub enum SecurityGroupCommand {
    /// Make a group that lets nothing in and everything out, and print its id.
    Create {
        /// Its name.
        name: String,
        /// For people; the name if left out.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List the groups.
    #[command(visible_alias = "list")]
    Ls(OutputArgs),
    /// Describe a group, with its rules and its instances.
    Describe {
        /// Name, id, or the start of an id.
        group: String,
        /// Shared options.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Add rules, for flows into the instances or with --egress out of them. They hold at once.
    Authorize {
        /// What they allow.
        #[command(flatten)]
        rules: RuleArgs,
        /// For people.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Take rules away. Flows that they let through go on.
    Revoke {
        /// What they allow.
        #[command(flatten)]
        rules: RuleArgs,
        /// The rules' ids instead of what they allow; may be repeated.
        #[arg(long = "rule-id", value_name = "sgr-…", conflicts_with_all = ["protocol", "cidr", "source_group", "port"])]
        rule_ids: Vec<String>,
    },
    /// Delete groups that no instance is in.
    Rm {
        /// Names, ids, or starts of ids.
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

/// What rules allow.
#[derive(Debug, Args)]
pub struct RuleArgs {
    /// Name, id, or the start of an id of the group.
    pub group: String,
    /// For flows out of the instances.
    #[arg(long)]
    pub egress: bool,
    /// tcp, udp, icmp, the number of another protocol, or -1 (all) for all protocols.
    #[arg(long, allow_hyphen_values = true)]
    pub protocol: Option<String>,
    /// tcp and udp: a port or a range of ports, 8000-8010. icmp: type-code, 8-0 or 8--1; -1 for all.
    #[arg(long, value_name = "PORTS", value_parser = parse::ports, allow_hyphen_values = true)]
    pub port: Option<(i32, i32)>,
    /// The addresses of the other side: 203.0.113.0/24, 0.0.0.0/0, ::/0; may be repeated.
    #[arg(long)]
    pub cidr: Vec<String>,
    /// The instances of this group as the other side, by name or id; may be repeated.
    #[arg(long, value_name = "GROUP")]
    pub source_group: Vec<String>,
}
