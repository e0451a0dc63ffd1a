//! The instance metadata service (IMDS): request bytes in, response bytes out. No sockets, no KVM.
//!
//! One [`Service`] answers for one instance: who asks is decided by the network that carries the bytes. A
//! [`Connection`] is one TCP connection to it: feed it what arrived, send what it answers.
//!
//! ```
//! use std::sync::Arc;
//! use amiable::imds::{Connection, Metadata, Service, system_clock};
//!
//! let service = Arc::new(Service::new(Metadata::example(), None, system_clock()));
//! let mut reply = Vec::new();
//! let outcome = Connection::new(service).receive(b"GET /latest/meta-data/instance-type HTTP/1.1\r\n\r\n", &mut reply);
//! assert!(!outcome.close && reply.ends_with(b"\r\n\r\nt3.micro"));
//! ```
//!
//! The rules are those of the EC2 User Guide, "Use the Instance Metadata Service to access instance metadata", and of
//! what its clients rely on: a listing names only what can be fetched, leaves have no final newline, directories end
//! in `/`, the absence of a thing is a 404.
#![forbid(unsafe_code)]

mod http;
pub mod identity;
mod log;
mod metadata;
mod path;
mod response;
mod service;
mod token;
mod tree;

pub use http::{Connection, MAX_HEAD, Outcome};
pub use identity::{IdentityKeys, KeyProvider};
pub use log::{Access, LogEntry};
pub use metadata::{
    BlockDevice, KeyPair, Metadata, NetworkInterface, Placement, PublicAddress, SecurityGroup, block_device_mapping,
};
pub use service::{Clock, Service, VERSIONS, system_clock};

#[cfg(test)]
mod client_tests;
