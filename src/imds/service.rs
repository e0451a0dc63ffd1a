//! The rules of the service: who gets what, and what the others get.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use jiff::Timestamp;

use super::identity::{self, KeyProvider};
use super::log::{Access, LogEntry, clean};
use super::metadata::Metadata;
use super::path::normalise;
use super::response::Response;
use super::token::{MAX_TTL, Tokens};
use super::tree::{Node, Tree};
use crate::ec2::metadata_options::{HttpTokens, MetadataOptions};

/// All published versions. The tree is the same in each.
pub const VERSIONS: [&str; 29] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

/// Tells the time, for tokens and dates.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The host's clock.
pub fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// Takes the record of each request.
type Log = Box<dyn Fn(LogEntry) + Send + Sync>;

/// The metadata service of one instance. Connections share it; each call answers from one state of the metadata.
pub struct Service {
    state: RwLock<Arc<State>>,
    tokens: Tokens,
    keys: Option<KeyProvider>,
    clock: Clock,
    log: Option<Log>,
}

/// What is made from the metadata once.
struct State {
    options: MetadataOptions,
    launch_time: i64,
    tree: Tree,
    document: String,
    signatures: [OnceLock<Option<String>>; identity::Form::ALL.len()],
}

/// A parsed request, as far as the service looks at it.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) token: Option<&'a [u8]>,
    pub(super) token_ttl: Option<&'a [u8]>,
    pub(super) forwarded: bool,
    pub(super) user_agent: Option<&'a [u8]>,
}

impl Service {
    /// A service for the instance with this metadata. Without keys, or while the provider has none, the identity
    /// document has no signatures.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    pub fn new(metadata: Metadata, keys: Option<KeyProvider>, clock: Clock) -> Self {
        let state = RwLock::new(Arc::new(State::new(&metadata, keys.is_some())));
        Self { state, tokens: Tokens::new(), keys, clock, log: None }
    }

    /// The same service with a function that is called after each request.
    pub fn with_log(mut self, log: impl Fn(LogEntry) + Send + Sync + 'static) -> Self {
        self.log = Some(Box::new(log));
        self
    }

    /// Show other metadata from now on: changed tags, options, addresses. Tokens stay valid.
    pub fn update(&self, metadata: &Metadata) {
        let state = Arc::new(State::new(metadata, self.keys.is_some()));
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Answer a request into `reply`. Gives the hop limit if the response must have one.
    pub(super) fn respond(&self, request: &Request<'_>, connection: Option<&str>, reply: &mut Vec<u8>) -> Option<u8> {
        let state = Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner));
        let now = (self.clock)();
        let mut response = self.decide(&state, request, now);
        if response.status == 200 && request.method != "PUT" {
            response.last_modified = Some(state.launch_time);
        }
        response.write(now, request.method == "HEAD", connection, reply);
        self.record(request, &response, now);
        response.hop_limit
    }

    /// Answer bytes that are no request.
    pub(super) fn refuse(&self, reply: &mut Vec<u8>) {
        let now = (self.clock)();
        let response = Response::error(400);
        response.write(now, false, Some("close"), reply);
        self.record(&Request { method: "-", ..Request::default() }, &response, now);
    }

    fn decide<'a>(&self, state: &'a State, request: &Request<'_>, now: Timestamp) -> Response<'a> {
        if !state.options.http_endpoint.is_enabled() {
            return Response::error(403);
        }
        let Ok(path) = normalise(request.target) else { return Response::error(400) };
        match request.method {
            "PUT" => self.put(state, &path, request, now),
            "GET" | "HEAD" if path == "latest/api/token" => Response::method_not_allowed("PUT"),
            "GET" | "HEAD" => match self.authorise(state, request, now) {
                Ok(token_ttl) => Response { token_ttl, ..self.look_up(state, &path) },
                Err(status) => Response::error(status),
            },
            _ => Response::method_not_allowed("GET, HEAD, PUT"),
        }
    }

    fn put(&self, state: &State, path: &str, request: &Request<'_>, now: Timestamp) -> Response<'static> {
        if path != "latest/api/token" {
            // With a version in place of `latest`, a token is refused on purpose.
            let versioned = path.strip_suffix("/api/token").is_some_and(|version| VERSIONS.contains(&version));
            return if versioned { Response::error(403) } else { Response::method_not_allowed("GET, HEAD") };
        }
        if request.forwarded {
            return Response::error(403);
        }
        let Some(ttl) = request.token_ttl.and_then(parse_ttl) else { return Response::error(400) };
        let token = self.tokens.mint(now.as_second().saturating_add(ttl.into()));
        let hop_limit = Some(state.options.http_put_response_hop_limit);
        Response { token_ttl: Some(ttl), hop_limit, ..Response::text(token.into_bytes()) }
    }

    /// The seconds that the request's token has left, if it has one, or the status that refuses it.
    fn authorise(&self, state: &State, request: &Request<'_>, now: Timestamp) -> Result<Option<u32>, u16> {
        match request.token {
            Some(_) if request.forwarded => Err(403),
            Some(token) => self.tokens.remaining(token, now.as_second()).map(Some).ok_or(401),
            None if state.options.http_tokens == HttpTokens::Required => Err(401),
            None => Ok(None),
        }
    }

    fn look_up<'a>(&self, state: &'a State, path: &str) -> Response<'a> {
        if path.is_empty() {
            return Response::text(VERSIONS.join("\n").into_bytes());
        }
        let (version, rest) = path.split_once('/').unwrap_or((path, ""));
        if !VERSIONS.contains(&version) {
            return Response::error(404);
        }
        match state.tree.get(rest) {
            None => Response::error(404),
            Some(Node::Leaf(bytes)) => Response::text(bytes.as_slice()),
            Some(Node::UserData(bytes)) => Response::octets(bytes),
            // While there are no keys, there are no signatures to list.
            Some(Node::Listing(_)) if rest == "dynamic/instance-identity" && self.keys().is_none() => {
                Response::text(&b"document"[..])
            }
            Some(Node::Listing(names)) => Response::text(names.join("\n").into_bytes()),
            Some(Node::Signature(form)) => match self.signature(state, *form) {
                Some(text) => Response::text(text.as_bytes()),
                None => Response::error(404),
            },
        }
    }

    fn keys(&self) -> Option<Arc<identity::IdentityKeys>> {
        self.keys.as_ref().and_then(|keys| keys())
    }

    fn signature<'a>(&self, state: &'a State, form: identity::Form) -> Option<&'a str> {
        let cell = state.signatures.get(form as usize)?;
        if cell.get().is_none() {
            let keys = self.keys()?;
            let sign = || form.sign(&keys, state.document.as_bytes(), state.launch_time);
            return cell
                .get_or_init(|| sign().inspect_err(|error| log::error!("instance identity: {error}")).ok())
                .as_deref();
        }
        cell.get()?.as_deref()
    }

    fn record(&self, request: &Request<'_>, response: &Response<'_>, now: Timestamp) {
        let Some(log) = &self.log else { return };
        log(LogEntry {
            time_ms: now.as_millisecond(),
            method: clean(request.method.as_bytes(), 16),
            path: clean(request.target.as_bytes(), 512),
            access: match request {
                Request { method: "PUT", .. } => Access::Token,
                Request { token: Some(_), .. } => Access::V2,
                _ => Access::V1,
            },
            status: response.status,
            bytes: if request.method == "HEAD" { 0 } else { response.body.len() },
            user_agent: request.user_agent.map(|name| clean(name, 256)),
        });
    }
}

impl State {
    fn new(metadata: &Metadata, signatures: bool) -> Self {
        Self {
            options: metadata.options,
            launch_time: metadata.launch_time,
            tree: Tree::new(metadata, signatures),
            document: identity::document(metadata),
            signatures: Default::default(),
        }
    }
}

fn parse_ttl(value: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?.trim();
    // No sign: `parse` would take one.
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    text.parse().ok().filter(|ttl| (1..=MAX_TTL).contains(ttl))
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
