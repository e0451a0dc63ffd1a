//! Official cloud images from the network: by name from a catalogue, or by URL; with checksum, resume and progress.
//!
//! What a server says is bounded (sizes, redirects, waits) and a checksum decides. Checksums come over HTTPS from the
//! distributor; the signatures beside them are not verified.

pub mod catalogue;
mod checksum;
mod client;
mod download;
mod error;

pub use checksum::Checksum;
pub use client::{Client, Remote};
pub use download::{Downloaded, Progress};
pub use error::PullError;

#[cfg(test)]
#[path = "test_server.rs"]
mod test_server;
#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
