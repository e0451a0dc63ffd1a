//! The inside's end of the channel: runs the commands that are ordered over it, many at once, each a process group with
//! its standard streams in frames, and tells how they end.
//!
//! One thread reads the channel and never waits for a command: what it passes on is bounded by each stream's
//! [`Window`]. Each command has a thread of its own, and one for each of its streams.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::channel::{self, Failure, Kind, MACHINE};
use command::Command;

mod command;
pub(super) mod disks;

pub use disks::rescan;

/// What a command gets to write its last words after [`Kind::Bye`]'s time is over.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// A command to run.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The executable.
    pub program: PathBuf,
    /// All arguments, the program's name first.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Files to place before it runs.
    pub files: Vec<InnerFile>,
    /// Disks to look for before it runs, and to let go of afterwards.
    pub disks: Vec<InnerDisk>,
    /// A folder of its own: made before, removed with all in it afterwards.
    pub folder: Option<PathBuf>,
    /// How long it may take to end once its input has ended because nobody waits for it any more; in milliseconds.
    pub grace_ms: u32,
}

/// A small file, in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InnerFile {
    /// Where.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub content: Vec<u8>,
}

/// A disk that the machine's SCSI controller has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InnerDisk {
    /// What it shall be called.
    pub path: PathBuf,
    /// Its SCSI target; the unit is 0.
    pub target: u8,
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use base64::Engine;
    serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    use base64::Engine;
    let text = String::deserialize(deserializer)?;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// Finds disks that were put in, and lets go of them.
pub(super) trait Disks: Send + Sync {
    /// Makes a disk appear under its name.
    fn take(&self, disk: &InnerDisk) -> io::Result<()>;
    /// Writes what is not written yet and makes the disk disappear. To be called also where [`Self::take`] failed.
    fn let_go(&self, disk: &InnerDisk) -> io::Result<()>;
}

/// What all threads share.
struct Server {
    output: Mutex<Box<dyn Write + Send>>,
    disks: Box<dyn Disks>,
    commands: Mutex<BTreeMap<u32, Arc<Command>>>,
    ended: Condvar,
}

impl Server {
    fn send(&self, kind: Kind, stream: u32, payload: &[u8]) -> io::Result<()> {
        channel::send(&mut *self.output.lock().unwrap_or_else(PoisonError::into_inner), kind, stream, payload)
    }

    fn fail(&self, stream: u32, why: &Failure) {
        let text = serde_json::to_vec(why).unwrap_or_default();
        // When the channel is gone, the reader of it finds out.
        let _ = self.send(Kind::Failed, stream, &text);
    }

    fn commands(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, stream: u32) -> Option<Arc<Command>> {
        self.commands().get(&stream).cloned()
    }

    fn run(self: &Arc<Self>, stream: u32, order: &[u8]) {
        let order: Order = match serde_json::from_slice(order) {
            Ok(order) => order,
            Err(error) => {
                return self.fail(stream, &Failure::Command(format!("an order that makes no sense: {error}")));
            }
        };
        let (command, input) = Command::new(stream, Duration::from_millis(order.grace_ms.into()));
        let command = Arc::new(command);
        if self.commands().insert(stream, Arc::clone(&command)).is_some() {
            return self.fail(stream, &Failure::Command("a number that is in use".into()));
        }
        let server = Arc::clone(self);
        let thread = thread::Builder::new().name(format!("command {stream}")).spawn(move || {
            let end = command.run(&server, &order, input);
            match end {
                Ok(status) => drop(server.send(Kind::Exit, stream, &status.to_le_bytes())),
                Err(why) => server.fail(stream, &why),
            }
            server.commands().remove(&stream);
            server.ended.notify_all();
        });
        if let Err(error) = thread {
            self.commands().remove(&stream);
            self.fail(stream, &Failure::Command(error.to_string()));
        }
    }

    /// Ends all commands, and waits for them as long as they may take.
    fn end_all(self: &Arc<Self>, grace: Duration) {
        let all: Vec<_> = self.commands().values().cloned().collect();
        for command in all {
            command.end(grace, false);
        }
        let deadline = Instant::now() + grace + LAST_WORDS;
        let mut commands = self.commands();
        while !commands.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            commands = self.ended.wait_timeout(commands, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Does what the host says until it says goodbye or is gone; all commands have ended by then, or are given up.
pub(super) fn serve(mut input: impl Read, output: impl Write + Send + 'static, disks: impl Disks + 'static) {
    let server = Arc::new(Server {
        output: Mutex::new(Box::new(output)),
        disks: Box::new(disks),
        commands: Mutex::default(),
        ended: Condvar::new(),
    });
    if server.send(Kind::Hello, MACHINE, &channel::VERSION.to_le_bytes()).is_err() {
        return;
    }
    let (mut payload, mut parts) = (Vec::new(), BTreeMap::<u32, Vec<u8>>::new());
    while let Ok(Some(frame)) = channel::receive(&mut input, &mut payload) {
        let stream = frame.stream;
        match frame.kind {
            Kind::Part => {
                if channel::add_part(parts.entry(stream).or_default(), &payload).is_err() {
                    parts.remove(&stream);
                }
            }
            Kind::Run => server.run(stream, &parts.remove(&stream).unwrap_or_default()),
            Kind::Bye => {
                let grace = channel::read_u32(&payload).unwrap_or_default();
                return server.end_all(Duration::from_millis(grace.into()));
            }
            kind => {
                if kind == Kind::Leave {
                    parts.remove(&stream);
                }
                if let Some(command) = server.find(stream) {
                    command.obey(kind, &payload);
                }
            }
        }
    }
    // The host is gone, and takes the machine with it.
    server.end_all(Duration::ZERO);
}

#[cfg(test)]
#[path = "inner_tests.rs"]
mod tests;
