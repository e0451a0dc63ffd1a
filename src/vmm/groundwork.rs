//! What of a machine does not depend on its devices: guest memory with the kernel on its way into it, the VM, its vCPUs.
//!
//! It is begun before the rest is known, and goes on beside it: copying a kernel keeps a processor busy for some milliseconds, and
//! KVM waits for grace periods of its own kernel meanwhile. The threads that do it end before the guest runs.

#![forbid(unsafe_code)]

use std::io;
use std::thread::{Builder, JoinHandle};

use super::config::{CpuTopology, Kernel};
use super::kvm::vcpu::Vcpu;
use super::kvm::vm::Vm;
use super::machine::MachineError;
use super::memory::{self, GuestMemory, THREAD_STACK, memory_map};
use super::x86_64::cpuid::{self, CpuidContext};
use super::x86_64::loader::{self, Loading};

/// A machine without devices, in the making.
pub struct Groundwork {
    size: u64,
    topology: CpuTopology,
    memory: GuestMemory,
    loading: Option<Loading>,
    virtual_machine: JoinHandle<Result<(Vm, Vec<Vcpu>), MachineError>>,
}

/// What a machine is built upon.
pub struct Ground {
    /// Guest RAM.
    pub memory: GuestMemory,
    /// KVM's VM, with the memory in its slots.
    pub vm: Vm,
    /// The vCPUs, none of which knows yet where to begin.
    pub vcpus: Vec<Vcpu>,
    /// The kernel, if it is one that could be begun with.
    pub loading: Option<Loading>,
}

impl Groundwork {
    /// Begin, with `size` bytes of RAM. Without a kernel the memory stays empty.
    ///
    /// Best called where no other thread maps memory: guest memory is at a huge page's boundary then.
    ///
    /// # Errors
    /// A machine that can't exist; no memory; a kernel that can't be read. What KVM says comes with [`finish`](Self::finish).
    pub fn begin(size: u64, topology: CpuTopology, kernel: Option<&Kernel>) -> Result<Self, MachineError> {
        if topology.cores == 0 || !matches!(topology.threads_per_core, 1 | 2) {
            return Err(MachineError::Topology(topology.cores, topology.threads_per_core));
        }
        let memory = memory::allocate(size)?;
        let for_vm = memory.clone();
        let virtual_machine = Builder::new()
            .name("kvm".into())
            .stack_size(THREAD_STACK)
            .spawn(move || virtual_machine(&for_vm, topology))
            .map_err(MachineError::Thread)?;
        let loading = match kernel {
            Some(Kernel::Elf(file)) => Some(loader::begin(&memory, file, &memory_map(size))?),
            Some(Kernel::BzImage(_)) | None => None,
        };
        Ok(Self { size, topology, memory, loading, virtual_machine })
    }

    /// Whether a machine of this size with this kernel can be built upon it.
    pub fn is_for(&self, size: u64, topology: CpuTopology, kernel: &Kernel) -> bool {
        self.size == size && self.topology == topology && self.loading.as_ref().is_none_or(|l| l.is_of(kernel))
    }

    /// Wait for KVM, and help with the kernel meanwhile.
    pub fn finish(self) -> Result<Ground, MachineError> {
        if let Some(loading) = &self.loading {
            while !self.virtual_machine.is_finished() && loading.help()? {}
        }
        let panicked = |_| MachineError::Thread(io::Error::other("the thread that sets up KVM panicked"));
        let (vm, vcpus) = self.virtual_machine.join().map_err(panicked)??;
        Ok(Ground { memory: self.memory, vm, vcpus, loading: self.loading })
    }
}

impl std::fmt::Debug for Groundwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groundwork").field("size", &self.size).field("topology", &self.topology).finish_non_exhaustive()
    }
}

fn virtual_machine(memory: &GuestMemory, topology: CpuTopology) -> Result<(Vm, Vec<Vcpu>), MachineError> {
    let count = topology.cores.saturating_mul(topology.threads_per_core);
    let vm = Vm::new(memory, count)?;
    let vcpus = (0..count).map(|index| {
        let cpuid = |tsc_khz| {
            let context = CpuidContext { topology, tsc_khz, tsc_deadline: vm.tsc_deadline() };
            cpuid::guest_cpuid(vm.supported_cpuid(), context, index, cpuid::host_cpuid)
        };
        Vcpu::new(&vm, index, cpuid)
    });
    let vcpus = vcpus.collect::<Result<Vec<_>, _>>()?;
    Ok((vm, vcpus))
}

#[cfg(test)]
#[path = "groundwork_tests.rs"]
mod tests;
