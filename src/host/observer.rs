//! An instance as another process sees it, over the socket of the instance's process.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::control::{Answer, Greeting, Message, Request, VERSION};
use super::event::{Control, End, read_values, write_line};
use super::session::{Mark, Orders, Update};
use super::sockets;
use crate::imds::LogEntry;

/// How many console lines are kept for a report.
const LAST_LINES: usize = 15;
/// How long a process may take to greet: it does nothing else before.
const GREETING: Duration = Duration::from_secs(10);

/// Sends to an instance's process.
type Send = Arc<dyn Fn(Message) + std::marker::Send + Sync>;

/// A connection to an instance's process.
pub struct Observer {
    updates: Receiver<Update>,
    send: Send,
    marks: Vec<Mark>,
    last_lines: VecDeque<String>,
    last_request: Option<LogEntry>,
    questions: u64,
    ended: bool,
}

impl Observer {
    /// One that sees `updates` and speaks through `send`.
    pub fn new(updates: Receiver<Update>, send: Send) -> Self {
        Observer {
            updates,
            send,
            marks: Vec::new(),
            last_lines: VecDeque::with_capacity(LAST_LINES),
            last_request: None,
            questions: 0,
            ended: false,
        }
    }

    /// Connect to the process whose socket is at `path`, and hear its greeting.
    ///
    /// # Errors
    /// `NotFound` and `ConnectionRefused` where no process is; `Unsupported` if it is of another version.
    pub fn connect(path: &Path) -> io::Result<(Greeting, Self)> {
        Self::connect_within(path, GREETING)
    }

    /// The same, for one who can't wait long.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and `TimedOut` or `WouldBlock` from a process that hangs.
    pub fn connect_within(path: &Path, patience: Duration) -> io::Result<(Greeting, Self)> {
        Self::greeted(sockets::connect(path)?, patience)
    }

    /// Over a connected socket.
    pub fn over(stream: UnixStream) -> io::Result<(Greeting, Self)> {
        Self::greeted(stream, GREETING)
    }

    fn greeted(stream: UnixStream, patience: Duration) -> io::Result<(Greeting, Self)> {
        let (sender, updates) = mpsc::channel();
        let (greet, greeting) = mpsc::channel();
        let input = stream.try_clone()?;
        std::thread::Builder::new().name("updates".into()).spawn(move || {
            let mut reader = io::BufReader::new(input);
            let mut first = Vec::new();
            // The greeting holds the stages of all boots: more than a line of the stream may.
            if io::BufRead::read_until(&mut io::Read::take(&mut reader, MAX_GREETING), b'\n', &mut first).is_ok() {
                let _ = greet.send(serde_json::from_slice::<Greeting>(&first));
                let _ = read_values(reader, |update: Update| sender.send(update).is_ok());
            }
        })?;
        let lost = || io::Error::new(io::ErrorKind::ConnectionRefused, "the instance's process did not greet");
        let greeting = match greeting.recv_timeout(patience) {
            Ok(greeting) => greeting.map_err(|_| lost())?,
            Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            Err(RecvTimeoutError::Timeout) => {
                // The thread that listens ends with this.
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the instance's process does not answer: it hangs",
                ));
            }
        };
        if greeting.version != VERSION {
            let text = format!(
                "the instance runs in another version of amiable (protocol {}, not {VERSION}): stop it with that",
                greeting.version
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let output = Mutex::new(stream);
        let send = Arc::new(move |message| {
            if let Ok(mut output) = output.lock() {
                // A process that is gone is seen by the end of its updates.
                let _ = write_line(&mut *output, &message);
            }
        });
        let mut observer = Observer::new(updates, send);
        observer.marks.clone_from(&greeting.marks);
        Ok((greeting, observer))
    }

    /// The next update, or `None` after `timeout` without one, or once [`Update::Ended`] was handed out.
    pub fn next(&mut self, timeout: Duration) -> Option<Update> {
        if self.ended {
            return None;
        }
        let update = match self.updates.recv_timeout(timeout) {
            Ok(update) => update,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => {
                let text = "the instance's process ended without a word".to_owned();
                Update::Ended(End::Failed { text, causes: Vec::new() })
            }
        };
        match &update {
            Update::Stage(mark) => self.marks.push(mark.clone()),
            Update::Imds(entry) => self.last_request = Some(entry.clone()),
            Update::Line(line) => {
                if self.last_lines.len() == LAST_LINES {
                    self.last_lines.pop_front();
                }
                self.last_lines.push_back(line.clone());
            }
            Update::Ended(_) => self.ended = true,
            _ => {}
        }
        Some(update)
    }

    /// Whether [`Update::Ended`] was handed out.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Give an order.
    pub fn order(&self, control: Control) {
        (self.send)(Message::Order { control });
    }

    /// Say something.
    pub fn send(&self, message: Message) {
        (self.send)(message);
    }

    /// Ask, and wait for the answer. Updates that come in between are lost: for connections that do not follow.
    pub fn ask(&mut self, request: Request, patience: Duration) -> Result<(), AskError> {
        self.questions += 1;
        let id = self.questions;
        (self.send)(Message::Ask { id, request });
        let until = Instant::now() + patience;
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                Some(Update::Answer(Answer { id: of, error })) if of == id => {
                    return error.map_or(Ok(()), |text| Err(AskError::Refused(text)));
                }
                Some(Update::Ended(_)) => return Err(AskError::Ended),
                None if Instant::now() >= until || self.ended => return Err(AskError::Silent(patience.as_secs())),
                _ => {}
            }
        }
    }

    /// The way to give orders, for another thread.
    pub fn orders(&self) -> Orders {
        let send = self.send.clone();
        Arc::new(move |control| send(Message::Order { control }))
    }

    /// The stages so far, over all boots.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The last console lines.
    pub fn last_lines(&self) -> Vec<String> {
        self.last_lines.iter().cloned().collect()
    }

    /// The last metadata request.
    pub fn last_request(&self) -> Option<&LogEntry> {
        self.last_request.as_ref()
    }
}

/// The longest greeting, in bytes.
const MAX_GREETING: u64 = 16 << 20;

/// Why a question has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The process said no.
    #[error("{0}")]
    Refused(String),
    /// The instance ended meanwhile.
    #[error("the instance ended meanwhile")]
    Ended,
    /// The process did not answer.
    #[error("the instance's process did not answer within {0} s")]
    Silent(u64),
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("marks", &self.marks).field("ended", &self.ended).finish_non_exhaustive()
    }
}
