//! A vCPU: its state at the start, and one entry into the guest at a time.

use std::fmt::Write as _;
use std::ptr::addr_of_mut;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};

use kvm_bindings::{CpuId, Msrs, kvm_cpuid_entry2, kvm_lapic_state, kvm_msr_entry};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::vm::Vm;
use super::{KvmError, call};
use crate::vmm::bus::Bus;
use crate::vmm::device::Action;
use crate::vmm::devices::serial::Serial;
use crate::vmm::x86_64::registers::Entry;

/// IA32_MISC_ENABLE: fast string operations.
const MSR_MISC_ENABLE: kvm_msr_entry = msr(0x1A0, 1);
/// IA32_MTRR_DEF_TYPE: enabled, write-back. Else all memory is uncached for a guest that trusts its MTRRs.
const MSR_MTRR_DEF_TYPE: kvm_msr_entry = msr(0x2FF, 1 << 11 | 6);

const fn msr(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry { index, data, reserved: 0 }
}

/// What the vCPUs reach.
pub struct Buses {
    /// Port addresses.
    pub pio: Bus,
    /// Memory addresses outside RAM.
    pub mmio: Bus,
    /// COM1, for input from outside.
    pub serial: Arc<Mutex<Serial>>,
}

/// Why the guest was left, beyond accesses that are done.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing to do: enter again.
    Continue,
    /// A device wants something of the machine.
    Action(Action),
    /// A kick. Look for requests.
    Interrupted,
    /// The guest's exception handling failed thrice.
    TripleFault,
    /// KVM cannot go on. The text says why and where.
    Failed(String),
}

/// An exit, without the borrow of `kvm_run`.
enum Exit {
    Pio { port: u16, write: bool, data: *mut u8, length: usize },
    MmioRead { address: u64, length: usize },
    MmioWrite { address: u64, data: [u8; 8], length: usize },
    Event(Event),
    InternalError,
    Other(String),
}

/// One virtual processor. It is created by one thread and then run by another.
pub struct Vcpu {
    index: u32,
    fd: VcpuFd,
}

impl Vcpu {
    /// Create vCPU `index` with the CPUID that `cpuid` makes for its TSC frequency in kHz (0 if unknown).
    pub fn new(vm: &Vm, index: u32, cpuid: impl FnOnce(u32) -> Vec<kvm_cpuid_entry2>) -> Result<Self, KvmError> {
        let fd = call("KVM_CREATE_VCPU", vm.fd().create_vcpu(index.into()))?;
        // CPUID first: what MSRs exist depends on it.
        let cpuid = CpuId::from_entries(&cpuid(fd.get_tsc_khz().unwrap_or(0))).map_err(|_| KvmError::Region)?;
        call("KVM_SET_CPUID2", fd.set_cpuid2(&cpuid))?;
        set_msrs(&fd, &[MSR_MTRR_DEF_TYPE, MSR_MISC_ENABLE])?;
        set_local_interrupts(&fd)?;
        Ok(Self { index, fd })
    }

    /// Have it begin at `entry`. That is for the boot processor: the others wait for it.
    pub fn enter_at(&self, entry: Entry) -> Result<(), KvmError> {
        let reset = call("KVM_GET_SREGS", self.fd.get_sregs())?;
        call("KVM_SET_SREGS", self.fd.set_sregs(&entry.sregs(reset)))?;
        call("KVM_SET_REGS", self.fd.set_regs(&entry.regs()))
    }

    /// Address of `kvm_run.immediate_exit`, valid as long as this vCPU.
    pub(super) fn immediate_exit(&mut self) -> *mut u8 {
        addr_of_mut!(self.fd.get_kvm_run().immediate_exit)
    }

    /// Enter the guest, and serve what it left for.
    pub fn run(&mut self, buses: &Buses) -> Event {
        let exit = self.enter();
        match exit {
            Exit::Pio { port, write, data, length } => self.port_access(&buses.pio, port, write, data, length),
            Exit::MmioRead { address, length } => {
                let mut data = [0; 8];
                buses.mmio.read(address, &mut data[..length]);
                self.fd.get_kvm_run().__bindgen_anon_1.mmio.data = data;
                Event::Continue
            }
            Exit::MmioWrite { address, data, length } => action(buses.mmio.write(address, &data[..length])),
            Exit::Event(event) => event,
            Exit::InternalError => Event::Failed(self.internal_error()),
            Exit::Other(what) => Event::Failed(format!("{what}; {}", self.describe())),
        }
    }

    fn enter(&mut self) -> Exit {
        match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                Exit::Pio { port, write: false, data: data.as_mut_ptr(), length: data.len() }
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                Exit::Pio { port, write: true, data: data.as_ptr().cast_mut(), length: data.len() }
            }
            Ok(VcpuExit::MmioRead(address, data)) => Exit::MmioRead { address, length: data.len().min(8) },
            Ok(VcpuExit::MmioWrite(address, from)) => {
                let (mut data, length) = ([0; 8], from.len().min(8));
                data[..length].copy_from_slice(&from[..length]);
                Exit::MmioWrite { address, data, length }
            }
            Ok(VcpuExit::Intr) => Exit::Event(Event::Interrupted),
            Ok(VcpuExit::Shutdown) => Exit::Event(Event::TripleFault),
            Ok(VcpuExit::InternalError) => Exit::InternalError,
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                Exit::Other(format!("the processor refused to enter the guest (reason {reason:#x}, host CPU {cpu})"))
            }
            Ok(other) => Exit::Other(format!("KVM left the guest for an unexpected reason: {other:?}")),
            Err(e) if e.errno() == libc::EINTR => {
                // Clear first, look for requests then: a kick in between sets it again.
                self.fd.set_kvm_immediate_exit(0);
                fence(Ordering::SeqCst);
                Exit::Event(Event::Interrupted)
            }
            Err(e) if e.errno() == libc::EAGAIN => Exit::Event(Event::Continue),
            Err(e) => Exit::Other(format!("KVM_RUN failed: {e}")),
        }
    }

    /// Serve a port access: several items for a string instruction with a repeat prefix.
    fn port_access(&mut self, bus: &Bus, port: u16, write: bool, data: *mut u8, length: usize) -> Event {
        // SAFETY: the last exit was KVM_EXIT_IO, so this member of the union is the valid one.
        let size = usize::from(unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io.size }).max(1);
        // SAFETY: pointer and length are those of the slice that `VcpuFd::run` returned for this exit. It lies in the
        // mapping of `kvm_run`, which lives as long as `self.fd`; `&mut self` keeps others away, and the kernel touches it
        // only in the next KVM_RUN.
        let data = unsafe { std::slice::from_raw_parts_mut(data, length) };
        let mut result = Action::None;
        for item in data.chunks_mut(size) {
            if write {
                result = bus.write(port.into(), item);
                if result != Action::None {
                    break;
                }
            } else {
                bus.read(port.into(), item);
            }
        }
        action(result)
    }

    fn internal_error(&mut self) -> String {
        // SAFETY: the last exit was KVM_EXIT_INTERNAL_ERROR, so this member of the union is the valid one.
        let error = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
        let what = match error.suberror {
            1 => "an instruction that it cannot emulate",
            2 => "two exceptions at once",
            3 => "an exit while it delivered an event",
            4 => "an unexpected exit reason",
            _ => "an internal error",
        };
        let mut text = format!("KVM stopped at {what} (suberror {})", error.suberror);
        for word in error.data.iter().take((error.ndata as usize).min(error.data.len())) {
            let _ = write!(text, " {word:#x}");
        }
        format!("{text}; {}", self.describe())
    }

    /// Where the vCPU is, in one line.
    pub fn describe(&self) -> String {
        let (Ok(regs), Ok(sregs)) = (self.fd.get_regs(), self.fd.get_sregs()) else {
            return format!("vCPU {}: registers unreadable", self.index);
        };
        let mode = match (sregs.cr0 & 1, sregs.efer & 1 << 10 != 0, sregs.cs.l) {
            (0, ..) => "real mode",
            (_, true, 1) => "64-bit mode",
            (_, true, _) => "compatibility mode",
            _ => "protected mode",
        };
        let state = match self.fd.get_mp_state().map(|s| s.mp_state) {
            Ok(kvm_bindings::KVM_MP_STATE_HALTED) => "halted",
            Ok(kvm_bindings::KVM_MP_STATE_UNINITIALIZED | kvm_bindings::KVM_MP_STATE_INIT_RECEIVED) => "not started",
            _ => "running",
        };
        format!(
            "vCPU {}: {state}, {mode}, ring {}, RIP {:#x}, RSP {:#x}, RFLAGS {:#x}, RAX {:#x}, CR0 {:#x}, CR2 {:#x}, CR3 {:#x}",
            self.index, sregs.ss.dpl, regs.rip, regs.rsp, regs.rflags, regs.rax, sregs.cr0, sregs.cr2, sregs.cr3
        )
    }
}

fn action(action: Action) -> Event {
    if action == Action::None { Event::Continue } else { Event::Action(action) }
}

/// `KVM_SET_MSRS` answers with a number, not an error, when it stops at one that it does not take. Such a one is left out:
/// a KVM without hardware behind it has fewer.
fn set_msrs(fd: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), KvmError> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let list = Msrs::from_entries(rest).map_err(|_| KvmError::Region)?;
        let done = call("KVM_SET_MSRS", fd.set_msrs(&list))?;
        let Some(refused) = rest.get(done) else { break };
        log::warn!("KVM refused to set MSR {:#x}", refused.index);
        rest = &rest[done + 1..];
    }
    Ok(())
}

/// The local APIC's pins as firmware leaves them: LINT0 takes the 8259's interrupts, LINT1 is the NMI.
fn set_local_interrupts(fd: &VcpuFd) -> Result<(), KvmError> {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    let mut apic = call("KVM_GET_LAPIC", fd.get_lapic())?;
    set_delivery_mode(&mut apic, LVT_LINT0, 7);
    set_delivery_mode(&mut apic, LVT_LINT1, 4);
    call("KVM_SET_LAPIC", fd.set_lapic(&apic))
}

fn set_delivery_mode(apic: &mut kvm_lapic_state, register: usize, mode: u8) {
    // Bits 8 to 10 of the register: the low bits of its second byte.
    let byte = &mut apic.regs[register + 1];
    *byte = (*byte as u8 & !7 | mode) as _;
}
