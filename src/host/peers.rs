//! The processes that are connected to an instance's process.
//!
//! Each has two threads: one reads what it says, one writes what it is told from a bounded queue. A peer that lets its queue
//! fill is sent away: an instance never waits for somebody who has stopped reading.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::control::{Greeting, Message};
use super::event::read_values;
use super::session::Update;

/// The most peers at once.
const MOST_PEERS: usize = 64;
/// The most lines that wait for a peer.
const QUEUE: usize = 2048;
/// How long a peer may keep one write waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// A peer's number. The first is the one who launched the instance.
pub type PeerId = u64;

/// What a peer said.
#[derive(Debug)]
pub enum Said {
    /// A message.
    Message(Message),
    /// It is gone.
    Gone,
}

struct Peer {
    lines: SyncSender<Arc<[u8]>>,
    stream: UnixStream,
    writer: JoinHandle<()>,
    follows: bool,
}

/// All connected processes.
pub struct Peers<T> {
    peers: HashMap<PeerId, Peer>,
    next: PeerId,
    inbox: Sender<T>,
    wrap: fn(PeerId, Said) -> T,
}

impl<T: Send + 'static> Peers<T> {
    /// None yet. What they say goes to `inbox`.
    pub fn new(inbox: Sender<T>, wrap: fn(PeerId, Said) -> T) -> Self {
        Peers { peers: HashMap::new(), next: 0, inbox, wrap }
    }

    /// Greet a new peer.
    pub fn add(&mut self, stream: UnixStream, greeting: &Greeting) -> io::Result<PeerId> {
        let id = self.next;
        self.next += 1;
        if self.peers.len() >= MOST_PEERS {
            return Err(io::Error::other("too many connections"));
        }
        stream.set_write_timeout(Some(PATIENCE))?;
        let (lines, queue) = mpsc::sync_channel(QUEUE);
        let output = stream.try_clone()?;
        let writer =
            std::thread::Builder::new().name("peer writer".into()).spawn(move || write_lines(output, &queue))?;
        let (input, inbox, wrap) = (stream.try_clone()?, self.inbox.clone(), self.wrap);
        std::thread::Builder::new().name("peer reader".into()).spawn(move || {
            let _ = read_values(input, |message| inbox.send(wrap(id, Said::Message(message))).is_ok());
            let _ = inbox.send(wrap(id, Said::Gone));
        })?;
        self.peers.insert(id, Peer { lines, stream, writer, follows: false });
        self.say(id, greeting);
        Ok(id)
    }

    /// Send updates to this peer from now on.
    pub fn follow(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.follows = true;
        }
    }

    /// Tell one peer.
    pub fn tell(&mut self, id: PeerId, update: &Update) {
        self.say(id, update);
    }

    /// Tell all who follow.
    pub fn tell_all(&mut self, update: &Update) {
        if !self.peers.values().any(|peer| peer.follows) {
            return;
        }
        let Some(line) = line(update) else { return };
        self.peers.retain(|_, peer| !peer.follows || peer.lines.try_send(line.clone()).is_ok() || peer.send_away());
    }

    /// Forget a peer that is gone.
    pub fn remove(&mut self, id: PeerId) {
        self.peers.remove(&id);
    }

    /// Wait until everything is written, or given up, and close all connections.
    pub fn close(&mut self) {
        for (_, peer) in self.peers.drain() {
            drop(peer.lines);
            let _ = peer.writer.join();
            let _ = peer.stream.shutdown(Shutdown::Both);
        }
    }

    fn say(&mut self, id: PeerId, value: &impl Serialize) {
        let Some(line) = line(value) else { return };
        if self.peers.get(&id).is_some_and(|peer| peer.lines.try_send(line).is_err() && !peer.send_away()) {
            self.peers.remove(&id);
        }
    }
}

impl Peer {
    /// Cut the connection; answers `false`, for it is not to be kept.
    fn send_away(&self) -> bool {
        let _ = self.stream.shutdown(Shutdown::Both);
        false
    }
}

fn line(value: &impl Serialize) -> Option<Arc<[u8]>> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    Some(line.into())
}

fn write_lines(mut to: UnixStream, queue: &Receiver<Arc<[u8]>>) {
    while let Ok(line) = queue.recv() {
        if to.write_all(&line).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}
