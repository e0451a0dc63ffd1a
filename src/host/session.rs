//! A running instance as its owner sees it: a stream of updates, and orders back.
//!
//! It is the same whether the instance runs on threads of this process or inside the emulated host. Everything that comes
//! by is recorded before it is handed on, so a caller that stops looking loses nothing.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::console::Lines;
use super::control::Answer;
use super::event::{Control, End, Event, Seen};
use super::record::Recorder;
use super::spec::PortForward;
use super::stage::{Finished, Sign, Stage, read_line};
use super::verdict::Verdict;
use crate::imds::LogEntry;

/// A stage and when it was reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mark {
    /// Which stage.
    pub stage: Stage,
    /// Milliseconds since the launch command started.
    pub ms: f64,
    /// A detail for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Something for the owner to see.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "update", content = "value", rename_all = "kebab-case")]
pub enum Update {
    /// A stage is reached, for the first time in this boot.
    Stage(Mark),
    /// Console output as it came.
    Console(#[serde(with = "crate::ec2::base64_bytes")] Vec<u8>),
    /// A whole line of the console, as plain text.
    Line(String),
    /// A metadata request.
    Imds(LogEntry),
    /// cloud-init is through.
    Finished(Finished),
    /// The guest's kernel wrote its dirty pages.
    Synced,
    /// The guest's kernel panicked.
    Panic(String),
    /// Something that the user should know.
    Warning(String),
    /// What the vCPUs do.
    Vcpus(Vec<String>),
    /// The published ports.
    Published(Vec<PortForward>),
    /// What became of the user-data. `None`: cloud-init is through, and the guest's kernel does not write its result to
    /// the volume while it runs; it will be known when the guest is off.
    Judged(Option<Verdict>),
    /// The answer to a request that asked for one.
    Answer(Answer),
    /// The last update.
    Ended(End),
}

/// The way to tell an instance what to do.
pub type Orders = Arc<dyn Fn(Control) + Send + Sync>;

/// A running instance.
pub struct Session {
    events: Receiver<Seen>,
    orders: Orders,
    recorder: Recorder,
    started: Instant,
    lines: Lines,
    marks: Vec<Mark>,
    boot_began: usize,
    ready: VecDeque<Update>,
    ended: bool,
}

impl Session {
    /// The instance that sends `events` and obeys `orders`; recorded in `directory`. Times count from `started`.
    pub fn new(events: Receiver<Seen>, orders: Orders, directory: &Path, started: Instant) -> io::Result<Self> {
        Ok(Session {
            events,
            orders,
            recorder: Recorder::open(directory)?,
            started,
            lines: Lines::default(),
            marks: Vec::new(),
            boot_began: 0,
            ready: VecDeque::new(),
            ended: false,
        })
    }

    /// Give an order. One to an instance that has ended does nothing.
    pub fn order(&self, control: Control) {
        (self.orders)(control);
    }

    /// The way to give orders, for another thread.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// The next update, or `None` after `timeout` without one, or once [`Update::Ended`] was handed out.
    pub fn next(&mut self, timeout: Duration) -> Option<Update> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Some(update);
            }
            if self.ended {
                return None;
            }
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(seen) => self.take(seen),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    let text = "the instance's process ended without a word".to_owned();
                    self.end(End::Failed { text, causes: Vec::new() });
                }
            }
        }
    }

    fn take(&mut self, seen: Seen) {
        match seen.event {
            Event::Console { data } => self.console(data, seen.at),
            Event::Stage { stage, detail } => {
                if stage == Stage::Reboot {
                    self.mark(stage, detail, seen.at);
                    self.boot_began = self.marks.len();
                } else {
                    self.mark(stage, detail, seen.at);
                }
            }
            Event::Imds { entry } => {
                self.keep(|recorder| recorder.imds(&entry));
                let first = format!("{} {}", entry.method, entry.path);
                self.mark(Stage::Imds, Some(first), seen.at);
                self.ready.push_back(Update::Imds(entry));
            }
            Event::Answer { id, error } => self.ready.push_back(Update::Answer(Answer { id, error })),
            Event::Published { forwards } => self.ready.push_back(Update::Published(forwards)),
            Event::Warning { text } => {
                self.keep(|recorder| recorder.notice(&text));
                self.ready.push_back(Update::Warning(text));
            }
            Event::Vcpus { lines } => self.ready.push_back(Update::Vcpus(lines)),
            Event::Ended { end } => {
                if end == End::PowerOff {
                    self.mark(Stage::PowerOff, None, seen.at);
                }
                self.end(end);
            }
        }
    }

    fn console(&mut self, data: Vec<u8>, at: Instant) {
        self.keep(|recorder| recorder.console(&data));
        self.mark(Stage::Kernel, None, at);
        let mut lines = std::mem::take(&mut self.lines);
        self.ready.push_back(Update::Console(data.clone()));
        lines.push(&data, |line| {
            match read_line(line) {
                Some(Sign::Stage(stage)) => self.mark(stage, None, at),
                Some(Sign::Finished(finished)) => {
                    self.mark(
                        Stage::UserData,
                        Some(format!("{}, cloud-init {}", finished.datasource, finished.version)),
                        at,
                    );
                    self.ready.push_back(Update::Finished(finished));
                }
                Some(Sign::Synced) => self.ready.push_back(Update::Synced),
                Some(Sign::Panic(text)) => self.ready.push_back(Update::Panic(text)),
                None => {}
            }
            if !line.trim().is_empty() {
                self.ready.push_back(Update::Line(line.to_owned()));
            }
        });
        self.lines = lines;
    }

    /// Note a stage once per boot.
    fn mark(&mut self, stage: Stage, detail: Option<String>, at: Instant) {
        if self.marks[self.boot_began..].iter().any(|m| m.stage == stage) {
            return;
        }
        let mark = Mark { stage, ms: at.saturating_duration_since(self.started).as_secs_f64() * 1e3, detail };
        self.keep(|recorder| recorder.stage(&mark));
        self.marks.push(mark.clone());
        self.ready.push_back(Update::Stage(mark));
    }

    /// A record that can't be written (the disk is full) is told once and does not end the instance.
    fn keep(&mut self, write: impl FnOnce(&mut Recorder) -> io::Result<()>) {
        if let Err(error) = write(&mut self.recorder) {
            let text = format!("the instance's records can't be written: {error}");
            if !self.ready.iter().any(|u| matches!(u, Update::Warning(w) if *w == text)) {
                self.ready.push_back(Update::Warning(text));
            }
        }
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        self.ready.push_back(Update::Ended(end));
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("marks", &self.marks).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
