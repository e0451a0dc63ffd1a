//! The whole network, driven by a guest's own TCP/IP stack.

mod datagrams;
mod forwards;
mod gate;
mod hostile;
mod resolver;
mod streams;
