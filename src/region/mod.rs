//! The local region: every EC2 action, its transactions and its store.

#![forbid(unsafe_code)]

pub mod paths;
pub mod store;
