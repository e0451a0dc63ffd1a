//! HTTP/1.x (RFC 9112) over bytes: requests in, responses out. Everything that a guest sends is bounded.

use std::sync::Arc;

use super::service::{Request, Service};

/// The longest request head, in bytes.
pub const MAX_HEAD: usize = 16 * 1024;
/// The longest body that is skipped to keep the connection. No request of the service has one.
const MAX_BODY: u64 = 64 * 1024;
/// The most input that waits while responses are pending.
const MAX_INPUT: usize = 4 * MAX_HEAD;
/// Responses are held back when this much waits to be sent.
const MAX_REPLY: usize = 64 * 1024;
/// The most header lines.
const MAX_HEADERS: usize = 64;

/// What to do after [`Connection::receive`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Close the connection once the reply is sent. What comes in after it is ignored.
    pub close: bool,
    /// The IP time to live that the packets of this reply must have: it holds a token. `None`: the usual one.
    pub hop_limit: Option<u8>,
    /// More requests have arrived than were answered: call again, with no bytes if there are none, when this reply is
    /// sent.
    pub pending: bool,
}

/// One connection to a [`Service`].
pub struct Connection {
    service: Arc<Service>,
    /// Bytes that are not a whole request yet, or wait.
    input: Vec<u8>,
    /// Bytes of a body still to come.
    skip: u64,
    closed: bool,
}

impl Connection {
    /// A fresh connection.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service, input: Vec::new(), skip: 0, closed: false }
    }

    /// Take what arrived, append what it makes the service answer to `reply`.
    ///
    /// Memory is bounded whatever comes: at most 64 KiB of input are kept, and a call appends little more than
    /// 64 KiB.
    pub fn receive(&mut self, bytes: &[u8], reply: &mut Vec<u8>) -> Outcome {
        let mut outcome = Outcome { close: self.closed, ..Outcome::default() };
        if self.closed {
            return outcome;
        }
        // A head that lacks its end can get it only by a new line.
        let worth_a_look = self.input.is_empty() || bytes.is_empty() || bytes.contains(&b'\n');
        self.input.extend_from_slice(bytes.get(..MAX_INPUT).unwrap_or(bytes));
        let overflow = bytes.len() > MAX_INPUT || self.input.len() > MAX_INPUT;
        if worth_a_look || self.skip > 0 || self.input.len() >= MAX_HEAD {
            let mut input = std::mem::take(&mut self.input);
            let used = self.requests(&input, reply, &mut outcome);
            input.drain(..used);
            self.input = input;
        }
        // Who sends this much without reading answers is no client.
        if overflow && outcome.pending {
            outcome = Outcome { close: true, pending: false, ..outcome };
        }
        self.closed = outcome.close;
        if self.closed {
            self.input = Vec::new();
        }
        outcome
    }

    /// Answer the whole requests in `input`. Gives the number of bytes that are done with.
    fn requests(&mut self, input: &[u8], reply: &mut Vec<u8>, outcome: &mut Outcome) -> usize {
        let start = reply.len();
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            if self.skip > 0 {
                let skipped = self.skip.min(rest.len() as u64);
                self.skip -= skipped;
                used += skipped as usize;
                continue;
            }
            if reply.len() - start >= MAX_REPLY {
                outcome.pending = true;
                break;
            }
            match self.request(rest, reply) {
                Step::Incomplete => break,
                Step::Done { length, hop_limit, close } => {
                    used += length;
                    outcome.hop_limit = outcome.hop_limit.or(hop_limit);
                    if close {
                        outcome.close = true;
                        break;
                    }
                }
            }
        }
        used
    }

    fn request(&mut self, input: &[u8], reply: &mut Vec<u8>) -> Step {
        let head = input.get(..MAX_HEAD).unwrap_or(input);
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let length = match parsed.parse(head) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => return Step::Incomplete,
            _ => return self.refuse(input.len(), reply),
        };
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return self.refuse(input.len(), reply);
        };
        let mut request = Request { method, target, ..Request::default() };
        let mut framing = Framing { close: version == 0, ..Framing::default() };
        for header in parsed.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("x-aws-ec2-metadata-token") {
                request.token = Some(header.value);
            } else if is("x-aws-ec2-metadata-token-ttl-seconds") {
                request.token_ttl = Some(header.value);
            } else if is("x-forwarded-for") {
                request.forwarded = true;
            } else if is("user-agent") {
                request.user_agent = Some(header.value);
            } else if !framing.read(header) {
                return self.refuse(input.len(), reply);
            }
        }
        // A body that is too long, of unknown length or held back for a "100 Continue" is not waited for.
        let close = framing.close || framing.body.is_none_or(|body| body > MAX_BODY);
        let connection = match (close, version) {
            (true, _) => Some("close"),
            (false, 0) => Some("keep-alive"),
            (false, _) => None,
        };
        self.skip = framing.body.unwrap_or(0);
        let hop_limit = self.service.respond(&request, connection, reply);
        Step::Done { length, hop_limit, close }
    }

    fn refuse(&self, length: usize, reply: &mut Vec<u8>) -> Step {
        self.service.refuse(reply);
        Step::Done { length, hop_limit: None, close: true }
    }
}

enum Step {
    /// The request's head is not all there.
    Incomplete,
    /// Answered; `length` bytes of head are done with.
    Done { length: usize, hop_limit: Option<u8>, close: bool },
}

/// Where the request ends and whether another one may follow.
struct Framing {
    close: bool,
    /// Bytes of the body; `None` if it can't be told or waited for.
    body: Option<u64>,
    has_length: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self { close: false, body: Some(0), has_length: false }
    }
}

impl Framing {
    /// Take notice of a header. False if the request makes no sense.
    fn read(&mut self, header: &httparse::Header<'_>) -> bool {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let value = || std::str::from_utf8(header.value).unwrap_or_default().trim();
        if is("content-length") {
            let text = value();
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let Some(length) = text.parse().ok().filter(|_| digits && !self.has_length) else { return false };
            self.has_length = true;
            self.body = self.body.map(|_| length);
        } else if is("transfer-encoding") || is("expect") {
            self.body = None;
        } else if is("connection") {
            for word in value().split(',').map(str::trim) {
                if word.eq_ignore_ascii_case("close") {
                    self.close = true;
                } else if word.eq_ignore_ascii_case("keep-alive") {
                    self.close = false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
