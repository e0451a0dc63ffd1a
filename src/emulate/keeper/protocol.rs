//! What is said to the keeper over its socket: one [`Request`] and its [`Answer`], each a value in
//! [`Kind::Message`](crate::emulate::channel::Kind::Message). After [`Answer::Lease`] comes a [`RunRequest`] (or the
//! connection's end), and from then on the frames of one command.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::emulate::inner::Order;
use crate::emulate::{Drive, Forward, Kernel, host};

/// Of what a shared emulated host is made, and where its keeper is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where the keeper's socket, lock and log are.
    pub directory: PathBuf,
    /// The kernel it runs.
    pub kernel: Kernel,
    /// The static executable to use; without, the one that runs.
    pub binary: Option<PathBuf>,
    /// How much memory it may have in MiB. This machine's memory is taken as the inside uses it, and given back.
    pub memory_mib: u32,
    /// Its number of CPUs.
    pub cpus: u32,
    /// QEMU: a path, or a name on the PATH.
    pub qemu: OsString,
    /// How long it may take to get up.
    pub boot_timeout: Duration,
}

impl Settings {
    /// Three quarters of this machine's memory, as many CPUs as it has, up to [`MOST_CPUS`].
    pub fn new(directory: impl Into<PathBuf>, kernel: Kernel) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
        Settings {
            directory: directory.into(),
            kernel,
            binary: None,
            memory_mib: this_machines_memory_mib().map_or(2048, |mib| mib / 4 * 3),
            cpus: cpus.min(MOST_CPUS),
            qemu: host::QEMU.into(),
            boot_timeout: Duration::from_secs(120),
        }
    }
}

/// More CPUs than this are not used unless asked for.
pub const MOST_CPUS: u32 = 4;

fn this_machines_memory_mib() -> Option<u32> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    u32::try_from(kib >> 10).ok()
}

/// Which executable: the outer and the inner one must be the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    version: String,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Build {
    /// The one that is at this path now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// To the keeper, first.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// How is it?
    Status,
    /// End all commands within so many milliseconds, power off, end.
    Stop {
        /// How long commands may take.
        grace_ms: u32,
    },
    /// I shall have a command run.
    Command {
        /// Whose binary shall run inside.
        build: Build,
        /// How many inner ports it needs.
        ports: u16,
    },
    /// A drive has another size now.
    Resize {
        /// Its path inside.
        drive: PathBuf,
        /// Bytes.
        size: u64,
    },
}

/// From the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Stop`]: it is off. The keeper ends, and with it this connection.
    Stopped,
    /// To [`Request::Command`]: go on.
    Lease(Lease),
    /// To [`Request::Command`]: the keeper is of another build; so many commands run in it.
    OtherBuild {
        /// How many.
        commands: usize,
    },
    /// To [`Request::Command`]: it is going away; another may be started then.
    Leaving,
    /// To [`Request::Command`]: it could not be started; the keeper ends.
    Failed(String),
    /// To [`Request::Resize`]: what went wrong, if anything did.
    Resized(Result<(), String>),
}

/// What a command has to itself inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its number, of which there is never a second in one machine's life.
    pub number: u32,
    /// Inner ports.
    pub ports: Vec<u16>,
    /// How much memory the machine has for all, in MiB.
    pub memory_mib: u32,
}

impl Lease {
    /// A folder inside that is its own.
    pub fn folder(&self) -> PathBuf {
        format!("/run/amiable/{}", self.number).into()
    }

    /// The command's number and the drive's by the path of [`Lease::drive`].
    pub fn parse_drive(path: &Path) -> Option<(u32, usize)> {
        let (number, n) = path.strip_prefix("/dev/amiable").ok()?.to_str()?.split_once('-')?;
        Some((number.parse().ok()?, n.parse().ok()?))
    }

    /// What its `n`th drive is called inside.
    pub fn drive(&self, n: usize) -> PathBuf {
        format!("/dev/amiable/{}-{n}", self.number).into()
    }
}

/// The command itself.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RunRequest {
    /// What runs inside; its disks are the keeper's to name.
    pub order: Order,
    /// To be put in.
    pub drives: Vec<Drive>,
    /// To be led to the leased ports.
    pub forwards: Vec<Forward>,
}

/// In what state a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Not up yet.
    Starting,
    /// Up.
    Up,
    /// On its way down.
    Stopping,
}

/// How a shared emulated host is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// On its way up, up, or on its way down.
    pub phase: Phase,
    /// The keeper's process.
    pub pid: u32,
    /// QEMU's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qemu_pid: Option<u32>,
    /// When it was started, in seconds since 1970.
    pub since: u64,
    /// How many commands it runs.
    pub commands: usize,
    /// How much memory it may have, in MiB.
    pub memory_mib: u32,
    /// How much of this machine's memory it has, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_mib: Option<u64>,
    /// Its number of CPUs.
    pub cpus: u32,
    /// Its kernel.
    pub kernel: PathBuf,
    /// amiable's version.
    pub version: String,
}
