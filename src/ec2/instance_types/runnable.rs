//! Whether this host can run an instance type.

use serde::Serialize;

use super::{Architecture, InstanceType, all};
use crate::ec2::Ec2Error;

/// What the host has for instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The host's architecture; guests run natively.
    pub architecture: Architecture,
    /// Memory that guests may have, in MiB.
    pub memory_mib: u64,
    /// Online CPUs.
    pub cpus: u32,
}

/// Something that works otherwise here than on EC2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// What it is about.
    pub kind: WarningKind,
    /// A sentence for people.
    pub message: String,
}

/// Kinds of [`Warning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum WarningKind {
    /// More vCPUs than the host has CPUs: the guest sees them all, and they share.
    MoreVcpusThanHost,
    /// On EC2 this type has Xen devices; here it has Nitro's.
    XenOnEc2,
}

/// Whether a host can run an instance type, and what will be different.
///
/// # Errors
/// `Unsupported` for another architecture, bare metal, Macs and accelerators; `InsufficientInstanceCapacity` for more
/// memory than the host has. The texts name types that would fit.
pub fn check_runnable(of: &InstanceType, host: &HostFacts) -> Result<Vec<Warning>, Ec2Error> {
    let unsupported = |why: String| Err(Ec2Error::unsupported(format!("{why}{}", would_fit(of, host))));
    if of.is_bare_metal() {
        return unsupported(format!("{} is a bare-metal type, and amiable runs virtual machines.", of.name));
    }
    if !of.supports(host.architecture.as_str()) {
        return unsupported(format!(
            "{} is {}, and this host is {}.",
            of.name,
            of.architectures.join(" or "),
            host.architecture
        ));
    }
    if let Some(accelerator) = of.accelerators.first() {
        let kind = match accelerator.kind {
            "gpu" => "GPUs",
            "fpga" => "FPGAs",
            "media" => "media accelerators",
            _ => "machine-learning accelerators",
        };
        return unsupported(format!("{} has {kind} ({}), and amiable has none.", of.name, accelerator.name));
    }
    if of.memory_mib > host.memory_mib {
        return Err(Ec2Error::insufficient_capacity(format!(
            "We currently do not have sufficient {} capacity on this host: the type has {} MiB of memory, and guests \
             can have {} MiB.{}",
            of.name,
            of.memory_mib,
            host.memory_mib,
            would_fit(of, host)
        )));
    }
    let mut warnings = Vec::new();
    if of.vcpus > host.cpus {
        warnings.push(Warning {
            kind: WarningKind::MoreVcpusThanHost,
            message: format!(
                "{} has {} vCPUs and this host {}: they share, and the instance will be slower than on EC2.",
                of.name, of.vcpus, host.cpus
            ),
        });
    }
    if of.hypervisor == "xen" {
        warnings.push(Warning {
            kind: WarningKind::XenOnEc2,
            message: format!(
                "{} runs on Xen at EC2 (disks are /dev/xvd*); here it has Nitro's devices (/dev/nvme*).",
                of.name
            ),
        });
    }
    Ok(warnings)
}

/// Up to three types that the host can run in place of `of`: the largest of its family first, then current types
/// with about as many vCPUs and as much memory.
pub fn fitting(of: &InstanceType, host: &HostFacts) -> Vec<InstanceType> {
    let mut candidates: Vec<InstanceType> = all()
        .filter(|other| {
            other.supports(host.architecture.as_str())
                && !other.is_bare_metal()
                && other.accelerators.is_empty()
                && other.hypervisor == "nitro"
                && (other.is_current_generation() || other.family() == of.family())
                && other.memory_mib <= host.memory_mib
                && other.vcpus <= host.cpus.max(2)
        })
        .collect();
    let usual = |other: &InstanceType| ["t3", "m7i", "c7i", "r7i", "m5", "c5", "r5"].contains(&other.family());
    // Nearest by memory and vCPUs, in doublings; families that people know go first among equals.
    let far = |other: &InstanceType| {
        let log = |a: u64, b: u64| (a.max(1) as f64 / b.max(1) as f64).log2().abs();
        let distance = log(of.memory_mib.min(host.memory_mib), other.memory_mib)
            + log(of.vcpus.min(host.cpus).into(), other.vcpus.into());
        let family = if other.family() == of.family() { 0.0 } else { 1.0 } + if usual(other) { 0.0 } else { 2.0 };
        ((distance + family) * 1024.0) as u64
    };
    candidates.sort_by_key(|other| (far(other), other.name));
    candidates.truncate(3);
    candidates
}

fn would_fit(of: &InstanceType, host: &HostFacts) -> String {
    let fitting = fitting(of, host);
    if fitting.is_empty() {
        return String::new();
    }
    let list: Vec<String> = fitting
        .iter()
        .map(|of| format!("{} ({} vCPU, {} GiB)", of.name, of.vcpus, of.memory_mib as f64 / 1024.0))
        .collect();
    format!(" Would fit: {}.", list.join(", "))
}
