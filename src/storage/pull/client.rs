//! The HTTP client: time-outs, redirects and sizes bounded.

use std::io::Read;
use std::time::Duration;

use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, ResponseExt};

use super::{Checksum, PullError};
use crate::storage::MAX_SIZE;

/// Lists of checksums and folders are smaller than this.
const MAX_TEXT: u64 = 4 << 20;

/// A file to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it is.
    pub url: String,
    /// Its own name, without a folder.
    pub file_name: String,
    /// What it must be.
    pub checksum: Option<Checksum>,
}

impl Remote {
    /// A file given by its address.
    pub fn from_url(url: &str, checksum: Option<Checksum>) -> Result<Self, PullError> {
        let bad = |reason: &str| PullError::BadAnswer { url: url.into(), reason: reason.into() };
        let rest = url.strip_prefix("https://").or(url.strip_prefix("http://"));
        let rest = rest.ok_or_else(|| bad("only http:// and https:// addresses can be pulled"))?;
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let name = path.split_once('/').map_or("", |(_, path)| path.rsplit('/').next().unwrap_or_default());
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || "._+~-".contains(c) { c } else { '_' }).collect();
        if name.trim_matches('.').is_empty() {
            return Err(bad("the address does not end with the name of a file"));
        }
        Ok(Remote { url: url.into(), file_name: name.trim_start_matches('.').into(), checksum })
    }
}

/// Fetches files.
#[derive(Debug)]
pub struct Client {
    pub(super) agent: Agent,
    /// Attempts without progress before giving up.
    pub(super) attempts: u32,
    /// The pause before the second attempt; it doubles with each further one.
    pub(super) pause: Duration,
    /// The largest file, in bytes.
    pub(super) max_size: u64,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client with the time-outs for use over the Internet. Honours `https_proxy` and its kin.
    pub fn new() -> Self {
        let agent = Agent::config_builder()
            .user_agent(concat!("amiable/", env!("CARGO_PKG_VERSION")))
            // Images are taken as they are: a compressed transfer could not be resumed.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(5)
            .timeout_resolve(Some(Duration::from_secs(15)))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Client { agent, attempts: 5, pause: Duration::from_secs(1), max_size: MAX_SIZE }
    }

    /// One GET request. An address with https never leads to one without.
    pub(super) fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, PullError> {
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.config().https_only(url.starts_with("https:")).build();
        request.call().map_err(|error| PullError::connection(url, error))
    }

    /// A small text, and the address that it really came from.
    pub(super) fn text(&self, url: &str) -> Result<(String, String), PullError> {
        let mut failures = 0;
        loop {
            match self.text_once(url) {
                Err(error) if error.is_passing() && failures + 1 < self.attempts => {
                    std::thread::sleep(self.pause.saturating_mul(1 << failures.min(5)));
                    failures += 1;
                }
                result => return result,
            }
        }
    }

    fn text_once(&self, url: &str) -> Result<(String, String), PullError> {
        let response = self.get(url, &[])?;
        if response.status() != StatusCode::OK {
            return Err(status_error(url, response.status()));
        }
        let address = response.get_uri().to_string();
        let mut bytes = Vec::new();
        let read = response.into_body().into_with_config().limit(u64::MAX).reader().take(MAX_TEXT + 1);
        { read }.read_to_end(&mut bytes).map_err(|error| PullError::connection(url, ureq::Error::Io(error)))?;
        if bytes.len() as u64 > MAX_TEXT {
            return Err(PullError::TooLarge { url: url.into(), max: MAX_TEXT });
        }
        Ok((String::from_utf8_lossy(&bytes).into_owned(), address))
    }
}

pub(super) fn status_error(url: &str, status: StatusCode) -> PullError {
    match status.as_u16() {
        status @ (404 | 410) => PullError::NotFound { url: url.into(), status },
        status => PullError::Status { url: url.into(), status },
    }
}

/// The address of `name` beside `url`.
pub(super) fn join(url: &str, name: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    format!("{folder}/{name}")
}
