//! A KVM virtual machine with in-kernel interrupt controllers and guest memory in its slots.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use super::{KvmError, call};
use crate::vmm::layout;
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::Doorbell;
use crate::vmm::pci::root::IoEventFds;

/// APIC ids are 8 bits wide in MSI messages and I/O APIC entries, and 255 is the broadcast.
const MAX_VCPUS: u32 = 254;
/// How often `KVM_CREATE_VM` is tried: it reports EINTR when a signal arrives while it waits for a lock, and succeeds soon
/// after; a host that never lets it through has another problem.
const CREATE_ATTEMPTS: u32 = 5;

/// The machine as KVM knows it.
pub struct Vm {
    fd: Arc<VmFd>,
    supported: Vec<kvm_cpuid_entry2>,
    tsc_deadline: bool,
    /// KVM's slots point into it: it stays mapped as long as this.
    _memory: GuestMemory,
}

impl Vm {
    /// Create a VM with `memory` in its slots, ready for `vcpus` vCPUs.
    pub fn new(memory: &GuestMemory, vcpus: u32) -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(KvmError::Open)?;
        let version = kvm.get_api_version();
        if version != KVM_API_VERSION as i32 {
            return Err(KvmError::ApiVersion(version));
        }
        let limit = (kvm.get_max_vcpus() as u32).min(MAX_VCPUS);
        if vcpus > limit {
            return Err(KvmError::TooManyVcpus(vcpus, limit));
        }
        let fd = create(&kvm)?;
        // Both pages and the interrupt controllers must be there before the vCPUs.
        call("KVM_SET_IDENTITY_MAP_ADDR", fd.set_identity_map_address(layout::KVM_IDENTITY_MAP))?;
        call("KVM_SET_TSS_ADDR", fd.set_tss_address(layout::KVM_TSS as usize))?;
        for (slot, region) in memory.iter().enumerate() {
            let host = region.get_host_address(MemoryRegionAddress(0)).map_err(|_| KvmError::Region)?;
            let slot = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: host as u64,
            };
            // SAFETY: the host range is the region's own mapping, readable and writable; `_memory` keeps it mapped as
            // long as this VM, and the ranges of a `GuestMemory` do not overlap.
            call("KVM_SET_USER_MEMORY_REGION", unsafe { fd.set_user_memory_region(slot) })?;
        }
        // After the slots: the controllers leave grace periods behind that a slot would wait for, some milliseconds.
        call("KVM_CREATE_IRQCHIP", fd.create_irq_chip())?;
        let supported = call("KVM_GET_SUPPORTED_CPUID", kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES))?;
        Ok(Self {
            supported: supported.as_slice().to_vec(),
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            fd: Arc::new(fd),
            _memory: memory.clone(),
        })
    }

    /// KVM's VM.
    pub fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    /// CPUID as KVM and the host can provide it.
    pub fn supported_cpuid(&self) -> &[kvm_cpuid_entry2] {
        &self.supported
    }

    /// The APIC timer has the TSC-deadline mode.
    pub fn tsc_deadline(&self) -> bool {
        self.tsc_deadline
    }
}

fn create(kvm: &Kvm) -> Result<VmFd, KvmError> {
    let mut attempt = 1;
    loop {
        match kvm.create_vm() {
            Err(e) if e.errno() == libc::EINTR && attempt < CREATE_ATTEMPTS => attempt += 1,
            result => return call("KVM_CREATE_VM", result),
        }
    }
}

/// Doorbells as ioeventfds.
pub struct KvmIoEventFds(pub Arc<VmFd>);

impl IoEventFds for KvmIoEventFds {
    fn register(&self, address: u64, doorbell: &Doorbell) -> io::Result<()> {
        let (fd, at) = (&*doorbell.fd, IoEventAddress::Mmio(address));
        let result = match (doorbell.length, doorbell.datamatch) {
            (_, None) if doorbell.length == 0 => self.0.register_ioevent(fd, &at, NoDatamatch),
            (2, Some(value)) => self.0.register_ioevent(fd, &at, value as u16),
            (4, Some(value)) => self.0.register_ioevent(fd, &at, value as u32),
            (8, Some(value)) => self.0.register_ioevent(fd, &at, value),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        result.map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }

    fn unregister(&self, address: u64, doorbell: &Doorbell) -> io::Result<()> {
        let (fd, at) = (&*doorbell.fd, IoEventAddress::Mmio(address));
        let result = match (doorbell.length, doorbell.datamatch) {
            (_, None) if doorbell.length == 0 => self.0.unregister_ioevent(fd, &at, NoDatamatch),
            (2, Some(value)) => self.0.unregister_ioevent(fd, &at, value as u16),
            (4, Some(value)) => self.0.unregister_ioevent(fd, &at, value as u32),
            (8, Some(value)) => self.0.unregister_ioevent(fd, &at, value),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        result.map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }
}
