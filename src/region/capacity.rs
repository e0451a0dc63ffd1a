//! What this machine has for instances.

use crate::ec2::instance_types::{Architecture, HostFacts};

/// The architecture, memory and CPUs of this machine.
pub fn host_facts() -> HostFacts {
    let info = rustix::system::sysinfo();
    let memory = (info.totalram as u64).saturating_mul(info.mem_unit.into());
    HostFacts {
        architecture: if cfg!(target_arch = "aarch64") { Architecture::Arm64 } else { Architecture::X86_64 },
        memory_mib: memory >> 20,
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
    }
}

/// The resolvers that this machine uses: the `nameserver` lines of `/etc/resolv.conf`.
pub fn resolvers() -> Vec<std::net::SocketAddr> {
    super::instances::parse_resolvers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}
