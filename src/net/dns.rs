//! The forwarding half of the resolver: queries that are not answered here go to the host's resolvers.
//!
//! Each query has a socket of its own, so that both its port and its identifier are the kernel's and random: a reply is
//! taken only from the resolver that was asked, with that identifier and the same question. A query over TCP is asked
//! over TCP. Silence or an error moves on to the next resolver, and ends in SERVFAIL.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::core::Core;
use super::host;
use super::names::{self, Question, Verdict};
use super::slab::{Key, Kind, Slab};
use super::wire::{TTL, be16};

/// The port.
pub(crate) const PORT: u16 = 53;
/// The longest query taken.
const LONGEST_QUERY: usize = 4096;
/// How long one resolver may think. Clients' own patience is 5 s.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Resolvers asked at most for one query.
const ATTEMPTS: usize = 3;
const LONGEST_REPLY: usize = 2 + 65_535;

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    /// A port of the guest's, on this address of ours.
    Udp(Ipv4Addr, u16),
    /// A TCP connection.
    Tcp(Key),
}

/// An answer for a TCP connection.
pub(crate) type Resolved = Option<(Key, Vec<u8>)>;

pub(crate) struct Resolver {
    queries: Slab<Query>,
}

struct Query {
    asker: Asker,
    /// As the guest sent it.
    message: Vec<u8>,
    question: Question,
    attempt: usize,
    fd: OwnedFd,
    id: [u8; 2],
    tcp: Option<Tcp>,
    deadline: Instant,
    armed: Option<Instant>,
}

/// The state of an exchange over TCP.
struct Tcp {
    output: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
}

impl Resolver {
    /// Beyond `limit` queries under way, new ones fail.
    pub fn new(limit: usize) -> Resolver {
        Resolver { queries: Slab::new(Kind::Dns, limit) }
    }

    /// A message from the guest.
    pub fn query(&mut self, core: &mut Core, asker: Asker, message: &[u8]) -> Resolved {
        match names::resolve(&core.config, message) {
            Verdict::Answer(answer) => deliver(core, asker, &answer),
            Verdict::Drop => None,
            Verdict::Forward => self.start(core, asker, message),
        }
    }

    fn start(&mut self, core: &mut Core, asker: Asker, message: &[u8]) -> Resolved {
        let failure = |core: &mut Core| deliver(core, asker, &names::server_failure(message));
        let question = Question::parse(message)?;
        if message.len() > LONGEST_QUERY || self.queries.is_full() {
            return failure(core);
        }
        let over_tcp = matches!(asker, Asker::Tcp(_));
        for attempt in 0..ATTEMPTS {
            let Some((fd, id, tcp)) = ask(core, message, attempt, over_tcp) else { continue };
            let deadline = core.now + PATIENCE;
            let (message, question) = (message.to_vec(), question.clone());
            let added = self.queries.insert_with(|key| {
                host::watch(&core.epoll, &fd, key).ok()?;
                Some(Query { asker, message, question, attempt, fd, id, tcp, deadline, armed: None })
            });
            let Some(key) = added else { break };
            if let Some(query) = self.queries.get_mut(key) {
                core.timers.arm(key, deadline, &mut query.armed);
            }
            return None;
        }
        failure(core)
    }

    /// A resolver's socket changed.
    pub fn ready(&mut self, core: &mut Core, key: Key, events: EventFlags, scratch: &mut [u8]) -> Resolved {
        let query = self.queries.get_mut(key)?;
        let reply = match &mut query.tcp {
            Some(tcp) => tcp.exchange(&query.fd, events, scratch),
            None => loop {
                match host::receive(&query.fd, scratch) {
                    // A stray datagram is not the end.
                    Ok(length) if !query.accepts(scratch.get(..length)?) => continue,
                    Ok(length) => break Ok(scratch.get(..length).map(<[u8]>::to_vec)),
                    Err(Errno::AGAIN) => break Ok(None),
                    Err(error) => break Err(error),
                }
            },
        };
        match reply {
            Ok(None) => None,
            Ok(Some(reply)) if query.accepts(&reply) => self.finish(core, key, reply),
            Ok(Some(_)) | Err(_) => self.next(core, key),
        }
    }

    fn finish(&mut self, core: &mut Core, key: Key, mut reply: Vec<u8>) -> Resolved {
        let query = self.queries.remove(key)?;
        reply.get_mut(..2)?.copy_from_slice(query.message.get(..2)?);
        deliver(core, query.asker, &reply)
    }

    /// Ask the next resolver, or give up.
    fn next(&mut self, core: &mut Core, key: Key) -> Resolved {
        let query = self.queries.get_mut(key)?;
        while query.attempt + 1 < ATTEMPTS {
            query.attempt += 1;
            let Some((fd, id, tcp)) = ask(core, &query.message, query.attempt, query.tcp.is_some()) else { continue };
            if host::watch(&core.epoll, &fd, key).is_err() {
                continue;
            }
            (query.fd, query.id, query.tcp) = (fd, id, tcp);
            query.deadline = core.now + PATIENCE;
            core.timers.arm(key, query.deadline, &mut query.armed);
            return None;
        }
        let query = self.queries.remove(key)?;
        deliver(core, query.asker, &names::server_failure(&query.message))
    }

    /// When the owner's current timer goes off; `None` if there is no such owner or timer.
    pub fn armed(&self, key: Key) -> Option<Instant> {
        self.queries.get(key)?.armed
    }

    /// A query's timer went off.
    pub fn expire(&mut self, core: &mut Core, key: Key, at: Instant) -> Resolved {
        let query = self.queries.get_mut(key)?;
        if query.armed != Some(at) {
            return None;
        }
        query.armed = None;
        if query.deadline > core.now {
            core.timers.arm(key, query.deadline, &mut query.armed);
            return None;
        }
        self.next(core, key)
    }
}

impl Query {
    /// Whether `reply` is a reply, and to what was asked.
    fn accepts(&self, reply: &[u8]) -> bool {
        let same = |question: Question| {
            (&question.name, question.kind, question.class)
                == (&self.question.name, self.question.kind, self.question.class)
        };
        reply.get(..2) == Some(&self.id)
            && be16(reply, 2).is_some_and(|flags| flags & 0x8000 != 0)
            && Question::parse(reply).is_some_and(same)
    }
}

impl Tcp {
    fn exchange(&mut self, fd: &OwnedFd, events: EventFlags, scratch: &mut [u8]) -> Result<Option<Vec<u8>>, Errno> {
        if events.contains(EventFlags::ERR) {
            return Err(host::pending_error(fd).unwrap_or(Errno::IO));
        }
        while self.sent < self.output.len() {
            match host::transmit(fd, self.output.get(self.sent..).unwrap_or_default()) {
                Ok(length) => self.sent += length,
                Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        loop {
            match host::receive(fd, scratch) {
                Ok(0) => return Err(Errno::CONNRESET),
                Ok(length) => self.input.extend_from_slice(scratch.get(..length).unwrap_or_default()),
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(length) = be16(&self.input, 0)
                && let Some(message) = self.input.get(2..2 + usize::from(length))
            {
                return Ok(Some(message.to_vec()));
            }
            if self.input.len() > LONGEST_REPLY {
                return Err(Errno::MSGSIZE);
            }
        }
    }
}

/// Send a query to the resolver whose turn it is.
fn ask(core: &Core, message: &[u8], attempt: usize, over_tcp: bool) -> Option<(OwnedFd, [u8; 2], Option<Tcp>)> {
    let upstreams = &core.config.upstreams;
    let upstream: SocketAddr = *upstreams.get(attempt.checked_rem(upstreams.len())?)?;
    let mut id = [0; 2];
    getrandom::fill(&mut id).ok()?;
    let mut asked = message.to_vec();
    asked.get_mut(..2)?.copy_from_slice(&id);
    if over_tcp {
        let (fd, _) = host::tcp_connect(upstream).ok()?;
        let mut output = u16::try_from(asked.len()).ok()?.to_be_bytes().to_vec();
        output.append(&mut asked);
        return Some((fd, id, Some(Tcp { output, sent: 0, input: Vec::new() })));
    }
    let fd = host::udp_connect(upstream).ok()?;
    host::transmit(&fd, &asked).ok()?;
    Some((fd, id, None))
}

fn deliver(core: &mut Core, asker: Asker, answer: &[u8]) -> Resolved {
    match asker {
        Asker::Udp(address, port) => {
            let guest = core.guest();
            core.out.push_udp((address, PORT), (guest, port), TTL, answer);
            None
        }
        Asker::Tcp(key) => Some((key, answer.to_vec())),
    }
}
