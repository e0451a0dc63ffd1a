//! The user-mode network behind one NIC: frames in, frames out, host sockets behind, no privileges, no threads.
//!
//! [`Network`] is made from a [`NetConfig`] and implements [`NetBackend`](crate::vmm::backend::NetBackend). It knows
//! no EC2 resources. To the guest it is the VPC: a router that answers ARP, a DHCP server, a resolver, a time server,
//! the services of this process at link-local addresses, and NAT to everything else.
//!
//! - [`stack`]: the frame's way to its part; epoll, timers.
//! - [`arp`], [`dhcp`], [`names`], [`llmnr`], [`ntp`], [`ipv6`]: pure functions from message to message.
//! - [`tcp`], [`flow`], [`session`]: TCP flows as smoltcp sockets, spliced to host sockets or sessions.
//! - [`udp`], [`icmp`], [`dns`], [`forward`], [`held`]: flows of datagrams, echo, forwarded queries, listeners, and connections
//!   that may not enter.
//! - [`outbox`]: the bounded queue to the guest, its buffer pool and the offloads.
//! - [`fragments`], [`wire`], [`host`], [`core`], [`slab`], [`limits`]: what they share.
//!
//! # Trust
//!
//! Every byte of a frame is the guest's word: lengths and checksums are verified (a TCP or UDP checksum that the offload
//! declares unfinished or good is not), source addresses must be the guest's own, and every table, buffer and queue has
//! a limit in its module. The guest can't reach the host's loopback, link-local or multicast addresses, nor other
//! addresses of its subnet; what can't be reached is refused at once.
//!
//! # Filter
//!
//! A [`Gate`] is asked about each flow through a host socket when it begins, and about nothing else: what follows on it passes.
//!
//! # Cost
//!
//! Copies of a TCP payload inside this room: guest to host one (frame to ring; `send` reads the ring), host to guest one
//! (`recv` fills the ring; ring to frame). The NIC's own copy between frame and guest memory and the kernel's between
//! socket and ring come on top of each. UDP: host to guest one; guest to host none. Frames' buffers come from a pool; nothing is
//! allocated per frame. Per frame there is one hash look-up; work never grows with the number of flows.

#![forbid(unsafe_code)]

mod arp;
mod config;
mod core;
mod dhcp;
mod dns;
mod flow;
mod forward;
mod fragments;
mod held;
mod host;
mod icmp;
mod ipv6;
mod limits;
mod llmnr;
mod names;
mod ntp;
mod outbox;
mod session;
mod slab;
mod stack;
mod tcp;
mod udp;
mod wire;

pub use config::{
    Gate, NetConfig, NetError, NewFlow, PortForward, Protocol, SessionState, StreamService, StreamSession,
};
pub use stack::Network;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
