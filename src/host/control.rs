//! How other processes speak with an instance's process: over its Unix socket, in JSON, one value a line.
//!
//! The process greets with a [`Greeting`]: what has happened so far. After that the peer sends [`Message`]s, and the process sends
//! [`Update`](super::session::Update)s, if they were asked for with [`Message::Follow`]. A peer that does not read what it asked
//! for is sent away; the instance never waits for it.

use serde::{Deserialize, Serialize};

use super::event::{Control, MetadataChange, VolumeChange};
use super::session::Mark;
use super::spec::{PortForward, SecurityGroups};
use super::verdict::Verdict;

/// The protocol's version. A process goes on running when the program on disk is replaced by another version.
pub const VERSION: u32 = 1;

/// What a process says first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// [`VERSION`] of the process.
    pub version: u32,
    /// `i-…`
    pub instance_id: String,
    /// The stages so far, over all boots.
    pub marks: Vec<Mark>,
    /// The published ports, once they are known.
    pub published: Vec<PortForward>,
    /// What became of the user-data in this run, once that is known; the inner `None` as in
    /// [`Update::Judged`](super::session::Update::Judged).
    pub judged: Option<Option<Verdict>>,
}

/// What a peer says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum Message {
    /// Send updates from now on.
    Follow,
    /// An order for the machine.
    Order {
        /// Which.
        control: Control,
    },
    /// End: by the power button, and after a grace by the plug; at once with `force`. Said twice it is as said once.
    Shutdown {
        /// Pull the plug at once.
        force: bool,
    },
    /// Restart: by the power button and a start; after a grace by a reset.
    Reboot,
    /// From the one who launched the instance: it shall live on without them.
    Detach,
    /// Something with an answer.
    Ask {
        /// To know the answer by.
        id: u64,
        /// What.
        request: Request,
    },
}

/// What is asked of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Change something about a volume.
    Volume {
        /// What.
        change: VolumeChange,
    },
    /// Show other metadata from now on.
    Metadata {
        /// What.
        change: MetadataChange,
    },
    /// Filter by these security groups from now on.
    SecurityGroups {
        /// The groups.
        groups: SecurityGroups,
    },
    /// Have the guest's kernel write its dirty pages, and copy cloud-init's logs from the volume into the records.
    FetchLogs,
}

/// The answer to a [`Message::Ask`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Of the question.
    pub id: u64,
    /// Why not, if not.
    pub error: Option<String>,
}
