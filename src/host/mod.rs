//! One instance's process: machine, network, metadata and disks put together, what happens recorded, and the verdict on
//! its user-data found.

#![forbid(unsafe_code)]

pub mod console;
pub mod event;
pub mod record;
pub mod session;
pub mod spec;
pub mod stage;
pub mod verdict;
pub mod watch;
