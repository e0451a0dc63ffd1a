//! The local region: every EC2 action, its transactions and its store.

#![forbid(unsafe_code)]

pub mod capacity;
pub mod paths;
pub mod store;
