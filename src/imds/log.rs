//! A record of each request.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a request showed that it may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// No token.
    V1,
    /// With a token, valid or not.
    V2,
    /// It asked for a token.
    Token,
}

/// One request and its answer. Texts from the guest are cut to a bound and free of control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it was answered: milliseconds since 1970.
    pub time_ms: i64,
    /// `GET`; `-` for bytes that are no request.
    pub method: String,
    /// The path as sent.
    pub path: String,
    /// Version 1 or 2 of the service.
    pub access: Access,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// The client's name for itself.
    pub user_agent: Option<String>,
}

impl fmt::Display for LogEntry {
    /// A line for people: time, version, method, path, answer, client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Timestamp::from_millisecond(self.time_ms).unwrap_or_default();
        let access = match self.access {
            Access::V1 => "v1",
            Access::V2 => "v2",
            Access::Token => "token",
        };
        write!(f, "{time:.3} {access:<5} {:<4} {} -> {}, {} bytes", self.method, self.path, self.status, self.bytes)?;
        match &self.user_agent {
            Some(agent) => write!(f, " ({agent})"),
            None => Ok(()),
        }
    }
}

/// Text from the guest, fit for a log: at most `limit` characters, none of them control characters.
pub(super) fn clean(text: &[u8], limit: usize) -> String {
    let short = text.get(..limit.saturating_mul(4)).unwrap_or(text);
    String::from_utf8_lossy(short)
        .chars()
        .take(limit)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}
