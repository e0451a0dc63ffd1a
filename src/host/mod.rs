//! One instance's process: machine, network, metadata and disks put together, what happens recorded, and the verdict on
//! its user-data found.

#![forbid(unsafe_code)]

mod bootfiles;
pub mod console;
pub mod control;
pub mod emulated;
pub mod emulated_volumes;
pub mod event;
pub mod firewall;
mod instance;
mod judge;
pub mod logs;
pub mod observer;
mod peers;
pub mod process;
pub mod record;
pub mod running;
pub mod sandbox;
mod services;
pub mod session;
pub mod sockets;
pub mod spec;
pub mod stage;
mod store_disk;
pub mod verdict;
mod volumes;
pub mod watch;
