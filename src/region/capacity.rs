//! What this machine has for instances.

use std::net::{IpAddr, SocketAddr};

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
pub fn resolvers() -> Vec<SocketAddr> {
    parse_resolvers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// The resolvers of `/etc/resolv.conf`'s text.
fn parse_resolvers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|w| *w == "nameserver").and_then(|_| words.next())?;
            // A link-local IPv6 server has its interface after a percent sign; it can't be reached by address alone.
            address.parse::<IpAddr>().ok()
        })
        .take(3)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_the_c_library_reads_them() {
        let text = "# comment\nsearch example.com\nnameserver 127.0.0.53\n nameserver\t2001:db8::1 \nnameserver fe80::1%eth0\nnameserver x\n";
        let expected: Vec<SocketAddr> = vec!["127.0.0.53:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(parse_resolvers(text), expected);
    }
}
