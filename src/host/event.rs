//! What an instance's process tells, and what it is told.
//!
//! In one process both go over channels. From inside the emulated host they go over byte streams as JSON, one object a
//! line; [`read_events`] and [`write_event`] are the two ends. A line is bounded, and a line that is no event is a
//! [`Event::Warning`], so that a broken stream is seen.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::spec::{PortForward, SecurityGroups, VolumeSpec};
use super::stage::Stage;
use crate::ec2::metadata_options::MetadataOptions;
use crate::imds::LogEntry;
use crate::storage::VolumePaths;

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Output of the serial console.
    Console {
        /// The bytes, in base64 on the wire.
        #[serde(with = "crate::ec2::base64_bytes")]
        data: Vec<u8>,
    },
    /// A stage that is not read off the console.
    Stage {
        /// Which.
        stage: Stage,
        /// A detail for people: the address leased, the kernel started.
        detail: Option<String>,
    },
    /// A request to the metadata service.
    Imds {
        /// The request and its answer.
        entry: LogEntry,
    },
    /// Something that the user should know and that is no error.
    Warning {
        /// The text.
        text: String,
    },
    /// The published ports, with the addresses that were taken.
    Published {
        /// As in the specification; ports that were 0 have their number.
        forwards: Vec<PortForward>,
    },
    /// What the vCPUs do, asked by [`Control::Describe`].
    Vcpus {
        /// A line per vCPU.
        lines: Vec<String>,
    },
    /// The answer to a [`Control::Volume`] or [`Control::SecurityGroups`].
    Answer {
        /// Of the order.
        id: u64,
        /// Why not, if not.
        error: Option<String>,
    },
    /// The last event: the instance does not run any more.
    Ended {
        /// How it ended.
        end: End,
    },
}

/// How an instance's run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum End {
    /// The guest powered itself off.
    PowerOff,
    /// Stopped from outside.
    Stopped,
    /// The guest keeps falling over: triple faults again and again.
    Crashed {
        /// What was seen.
        text: String,
    },
    /// amiable failed.
    Failed {
        /// What, and the chain of reasons.
        text: String,
        /// Why, from near to far.
        causes: Vec<String>,
    },
}

/// An order to an instance's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "kebab-case")]
pub enum Control {
    /// Press the power button.
    PowerButton,
    /// End now, as pulling the plug does.
    Stop,
    /// Press the power button, and start again when the guest is off.
    Reboot,
    /// Start again now, as a reset button does.
    Reset,
    /// Type on the serial console.
    Input {
        /// The bytes, in base64 on the wire.
        #[serde(with = "crate::ec2::base64_bytes")]
        data: Vec<u8>,
    },
    /// Filter by these from now on; answered.
    SecurityGroups {
        /// To know the answer by.
        id: u64,
        /// The groups.
        groups: SecurityGroups,
    },
    /// Ask the guest's kernel to write its dirty pages, by the magic SysRq key on the serial line.
    Sync,
    /// Change something about a volume; answered by [`Event::Answer`].
    Volume {
        /// To know the answer by.
        id: u64,
        /// What.
        change: VolumeChange,
    },
    /// Show other metadata from now on; answered by [`Event::Answer`].
    Metadata {
        /// To know the answer by.
        id: u64,
        /// What.
        change: MetadataChange,
    },
    /// Tell what the vCPUs do.
    Describe,
    /// Look whether the console has a part of a line to show.
    #[serde(skip)]
    Remind,
}

/// What of the metadata can change while an instance runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataChange {
    /// All tags.
    pub tags: BTreeMap<String, String>,
    /// How the metadata service answers.
    pub options: MetadataOptions,
}

/// A change to the volumes of a running instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum VolumeChange {
    /// Plug a volume in.
    Attach {
        /// The volume; its slot is free.
        volume: VolumeSpec,
    },
    /// Have the guest let go of a volume, and unplug it.
    Detach {
        /// Which.
        volume_id: String,
        /// Do not wait for the guest.
        force: bool,
    },
    /// Make a volume larger.
    Grow {
        /// Which.
        volume_id: String,
        /// To this many bytes.
        size: u64,
        /// Inside the emulated host: the drives that hold it, which are larger already.
        drives: Vec<PathBuf>,
    },
    /// Freeze what a volume holds, and go on in a new layer.
    Snapshot {
        /// Which.
        volume_id: String,
        /// The new layer.
        above: VolumePaths,
        /// The volume's size in bytes.
        size: u64,
    },
}

/// An event and when it was seen, by this process's clock.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// What.
    pub event: Event,
}

/// The longest line on the wire, in bytes. A console event holds at most a few KiB.
const MAX_LINE: u64 = 1 << 20;

/// Write one event or order as a line.
pub fn write_line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Read events until the stream ends or `take` has enough (returns false).
pub fn read_events(from: impl Read, mut take: impl FnMut(Event) -> bool) -> io::Result<()> {
    read_lines(from, |line| {
        let event = serde_json::from_slice(line).unwrap_or_else(|_| Event::Warning {
            text: format!("unreadable event: {}", super::console::plain_text(&line[..line.len().min(200)])),
        });
        take(event)
    })
}

/// Read values until the stream ends or `take` has enough. Lines that are none are passed over.
pub fn read_values<T: DeserializeOwned>(from: impl Read, mut take: impl FnMut(T) -> bool) -> io::Result<()> {
    read_lines(from, |line| serde_json::from_slice(line).map_or(true, &mut take))
}

fn read_lines(from: impl Read, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut from = io::BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if !take(line.trim_ascii()) {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
