//! The far side of a TCP connection that ends in this process: a [`StreamSession`], or DNS over TCP (RFC 7766).

use std::time::{Duration, Instant};

use smoltcp::socket::tcp::Socket;

use super::config::StreamSession;
use super::flow::guest_ended;

/// A session without a byte for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// ... and so long after that it is cut off.
const GRACE: Duration = Duration::from_secs(10);
/// With so much unsent, a service is not asked for more.
const ENOUGH: usize = 16 << 10;
/// Length prefix and the longest DNS message.
const LONGEST: usize = 2 + 65_535;

pub(crate) struct Session {
    kind: Kind,
    output: Vec<u8>,
    sent: usize,
    closing: bool,
    pub deadline: Instant,
}

enum Kind {
    Service(Box<dyn StreamSession>),
    Dns { input: Vec<u8>, waiting: bool },
}

impl Session {
    pub fn service(session: Box<dyn StreamSession>, now: Instant) -> Session {
        Session::new(Kind::Service(session), now)
    }

    pub fn dns(now: Instant) -> Session {
        Session::new(Kind::Dns { input: Vec::new(), waiting: false }, now)
    }

    fn new(kind: Kind, now: Instant) -> Session {
        Session { kind, output: Vec::new(), sent: 0, closing: false, deadline: now + IDLE }
    }

    /// Exchange bytes with the guest. Gives a DNS message that is to be resolved.
    pub fn pump(&mut self, socket: &mut Socket<'static>, now: Instant) -> Option<Vec<u8>> {
        self.send(socket, now);
        let mut request = None;
        while socket.can_recv() && self.wants_more() {
            self.deadline = now + IDLE;
            match &mut self.kind {
                Kind::Service(session) => {
                    let output = &mut self.output;
                    let Ok(state) = socket.recv(|bytes| (bytes.len(), session.receive(bytes, output))) else { break };
                    socket.set_hop_limit(state.hop_limit.map(|limit| limit.max(1)));
                    self.closing |= state.close;
                }
                Kind::Dns { input, waiting } => {
                    let taken = socket.recv(|bytes| {
                        let length = bytes.len().min(LONGEST.saturating_sub(input.len()));
                        input.extend_from_slice(bytes.get(..length).unwrap_or_default());
                        (length, ())
                    });
                    if taken.is_err() {
                        break;
                    }
                    request = take_message(input);
                    *waiting = request.is_some();
                }
            }
            self.send(socket, now);
        }
        if guest_ended(socket.state()) && socket.recv_queue() == 0 && !self.is_waiting() {
            self.closing = true;
        }
        if self.closing {
            // What a client says after the end is of no interest, but it must not fill the window.
            while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
            if self.output.is_empty() && socket.may_send() {
                socket.close();
            }
        }
        request
    }

    fn wants_more(&self) -> bool {
        !self.closing && !self.is_waiting() && self.output.len() - self.sent < ENOUGH
    }

    fn is_waiting(&self) -> bool {
        matches!(self.kind, Kind::Dns { waiting: true, .. })
    }

    fn send(&mut self, socket: &mut Socket<'static>, now: Instant) {
        while self.sent < self.output.len() && socket.can_send() {
            let Ok(length) = socket.send_slice(self.output.get(self.sent..).unwrap_or_default()) else { break };
            self.sent += length;
            self.deadline = now + IDLE;
        }
        if self.sent == self.output.len() && self.sent > 0 {
            self.sent = 0;
            self.output.clear();
            self.output.shrink_to(ENOUGH);
        }
    }

    /// The answer to a DNS message. Returns the next one, if the client has sent it already.
    pub fn resolved(&mut self, message: &[u8], now: Instant) -> Option<Vec<u8>> {
        let Kind::Dns { input, waiting } = &mut self.kind else { return None };
        if let Ok(length) = u16::try_from(message.len()) {
            self.output.extend_from_slice(&length.to_be_bytes());
            self.output.extend_from_slice(message);
        }
        self.deadline = now + IDLE;
        let next = take_message(input);
        *waiting = next.is_some();
        next
    }

    /// The deadline passed: first a polite end, then none.
    pub fn expired(&mut self, socket: &mut Socket<'static>, now: Instant) {
        if self.closing {
            socket.abort();
        } else {
            self.closing = true;
        }
        self.deadline = now + GRACE;
    }
}

/// The first whole message of a length-prefixed stream.
fn take_message(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(input.get(..2)?.try_into().ok()?));
    let message = input.get(2..2 + length)?.to_vec();
    input.drain(..2 + length);
    Some(message)
}
