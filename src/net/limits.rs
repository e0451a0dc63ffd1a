//! How many host sockets one network may hold.

use rustix::process::{Resource, getrlimit};

/// Left to the rest of the process of the descriptors that it may have.
const RESERVED: u64 = 256;

/// How many host sockets the guest may make us hold. The process's own limit is never reached: it would hit the disks
/// and the control socket too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub tcp: usize,
    pub udp: usize,
    pub dns: usize,
    pub pings: usize,
}

impl Limits {
    /// With this many descriptors for the process.
    pub fn new(descriptors: u64) -> Limits {
        let usable = usize::try_from(descriptors.saturating_sub(RESERVED).max(64)).unwrap_or(usize::MAX);
        let part = |sixteenths: usize, most: usize| (usable / 16 * sixteenths).clamp(1, most);
        Limits { tcp: part(11, 4096), udp: part(3, 1024), dns: part(1, 256), pings: part(1, 64) }
    }

    /// As many as this process may have now.
    pub fn of_this_process() -> Limits {
        Limits::new(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
