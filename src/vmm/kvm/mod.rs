//! Linux KVM: the only place that calls it. VM and memory slots, interrupt routing, vCPUs and how to stop them.

pub mod irq;
pub mod kick;
pub mod vcpu;
pub mod vm;

use vmm_sys_util::errno;

/// Why KVM did not do what the machine needs.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` is missing or closed to this user.
    #[error("cannot open /dev/kvm")]
    Open(#[source] errno::Error),
    /// Not the stable KVM interface.
    #[error("KVM has API version {0}, and 12 is needed")]
    ApiVersion(i32),
    /// More vCPUs than this machine or this KVM can have.
    #[error("{0} vCPUs are more than the {1} that KVM on this host can give a machine")]
    TooManyVcpus(u32, u32),
    /// A call failed.
    #[error("KVM refused {0}")]
    Call(&'static str, #[source] errno::Error),
    /// `KVM_SET_MSRS` took only some.
    #[error("KVM refused to set MSR {0:#x}")]
    Msr(u32),
    /// A memory region without a host address.
    #[error("a range of guest memory cannot be given to KVM")]
    Region,
}

/// Name the call that failed.
pub(crate) fn call<T>(name: &'static str, result: Result<T, errno::Error>) -> Result<T, KvmError> {
    result.map_err(|e| KvmError::Call(name, e))
}
