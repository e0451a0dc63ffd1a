//! CPUID as the guest sees it (Intel SDM volume 2 "CPUID", AMD APM volume 3 appendix E; KVM's own leaves:
//! `Documentation/virt/kvm/x86/cpuid.rst`).
//!
//! The start is what KVM supports. Topology leaves are rewritten for the machine, and features whose registers or state KVM
//! does not emulate, or this machine does not save, are taken out.

#![forbid(unsafe_code)]

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::vmm::config::CpuTopology;

/// The most physical address bits that the guest is told: without 5-level paging a kernel maps no more directly.
const MAX_ADDRESS_BITS: u32 = 46;
/// The first of KVM's leaves, and the last that this machine fills (TSC and APIC timer frequencies).
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
/// Frequency of the local APIC's timer in KVM, kHz.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// The first of three leaves with the processor's name.
const BRAND: u32 = 0x8000_0002;
/// The last of AMD's topology leaves.
const AMD_TOPOLOGY: u32 = 0x8000_001E;

/// What CPUID depends on.
#[derive(Clone, Copy, Debug)]
pub struct CpuidContext {
    /// Cores and threads.
    pub topology: CpuTopology,
    /// TSC frequency in kHz, 0 if unknown.
    pub tsc_khz: u32,
    /// KVM's APIC timer has the TSC-deadline mode.
    pub tsc_deadline: bool,
}

/// The values of one leaf on the host.
pub type HostCpuid = fn(leaf: u32, subleaf: u32) -> [u32; 4];

/// The APIC id of vCPU `index`. With one or two threads a core and one socket, ids have no gaps.
pub fn apic_id(index: u32) -> u32 {
    index
}

/// Bits of an APIC id that number `count` things.
fn id_bits(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// The physical address width among `supported`.
pub fn address_bits(supported: &[kvm_cpuid_entry2]) -> u32 {
    supported.iter().find(|e| e.function == 0x8000_0008).map_or(36, |e| e.eax & 0xFF).clamp(32, MAX_ADDRESS_BITS)
}

/// CPUID of vCPU `index`, from what KVM supports. `host` fills in cache leaves that KVM leaves empty.
pub fn guest_cpuid(
    supported: &[kvm_cpuid_entry2],
    context: CpuidContext,
    index: u32,
    host: HostCpuid,
) -> Vec<kvm_cpuid_entry2> {
    let amd = supported.iter().any(|e| e.function == 0 && matches!(e.ebx, 0x6874_7541 | 0x6F67_7948));
    let max_leaf = supported.iter().find(|e| e.function == 0).map_or(0, |e| e.eax);
    let mut entries: Vec<kvm_cpuid_entry2> = supported.iter().copied().filter(|e| !rebuilt(e)).collect();
    for entry in &mut entries {
        adjust(entry, context, index, amd);
    }
    // The size of the extended state, now that some of it is gone.
    let state_size = entries
        .iter()
        .filter(|e| e.function == 0xD && e.index >= 2 && e.ecx & 1 == 0)
        .map(|e| e.eax.saturating_add(e.ebx))
        .fold(576, u32::max);
    if let Some(entry) = entries.iter_mut().find(|e| e.function == 0xD && e.index == 0) {
        entry.ecx = state_size;
    }
    for leaf in [0xB, 0x1F] {
        if leaf <= max_leaf {
            entries.extend(topology_leaf(leaf, context.topology, index));
        }
    }
    if amd {
        entries.extend(amd_caches(context.topology, host));
        let mut identity = leaf(AMD_TOPOLOGY, [apic_id(index), 0, 0, 0]);
        identity.ebx =
            (index / context.topology.threads_per_core) & 0xFF | (context.topology.threads_per_core - 1) << 8;
        entries.push(identity);
    } else if max_leaf >= 4 {
        entries.extend(intel_caches(context.topology, host));
    }
    if !entries.iter().any(|e| e.function == BRAND && e.eax != 0) {
        entries.retain(|e| !(BRAND..BRAND + 3).contains(&e.function));
        entries.extend(brand(if amd { b"AMD EPYC Processor" } else { b"Intel(R) Xeon(R) Processor" }));
    }
    entries.push(leaf(HYPERVISOR_TIMING, [context.tsc_khz, APIC_BUS_KHZ, 0, 0]));
    entries
}

/// Leaves that are left out, or built anew.
fn rebuilt(entry: &kvm_cpuid_entry2) -> bool {
    match entry.function {
        // Caches and topology.
        4 | 0xB | 0x1F | 0x8000_001D | 0x8000_001E => true,
        // Performance counters, SGX, processor trace, AMX tiles, memory encryption.
        0xA | 0x12 | 0x14 | 0x1D | 0x1E | 0x8000_0022 | 0x8000_001F => true,
        // The state components of AMX.
        0xD => matches!(entry.index, 17 | 18),
        HYPERVISOR_TIMING => true,
        _ => false,
    }
}

fn adjust(e: &mut kvm_cpuid_entry2, context: CpuidContext, index: u32, amd: bool) {
    let CpuTopology { threads_per_core, .. } = context.topology;
    let vcpus = context.topology.vcpus();
    match (e.function, e.index) {
        (1, _) => {
            const CLFLUSH_64: u32 = 8 << 8;
            let logical = vcpus.next_power_of_two().min(255);
            e.ebx = e.ebx & 0xFF | CLFLUSH_64 | logical << 16 | (apic_id(index) & 0xFF) << 24;
            // VMX, perfmon capabilities; on: x2APIC, hypervisor.
            e.ecx = e.ecx & !(1 << 5 | 1 << 15) | 1 << 21 | 1 << 31;
            set(&mut e.ecx, 24, context.tsc_deadline);
            set(&mut e.edx, 28, vcpus > 1);
        }
        // Thermal and power management: only that the APIC timer always runs.
        (6, _) => (e.eax, e.ebx, e.ecx, e.edx) = (1 << 2, 0, 0, 0),
        (7, 0) => {
            // SGX, processor trace, 5-level paging, SGX launch control.
            e.ebx &= !(1 << 2 | 1 << 25);
            e.ecx &= !(1 << 16 | 1 << 30);
            // Architectural LBRs, AMX.
            e.edx &= !(1 << 19 | 1 << 22 | 1 << 24 | 1 << 25);
        }
        // AMX-FP16, and AMX-COMPLEX below.
        (7, 1) => (e.eax, e.edx) = (e.eax & !(1 << 21), e.edx & !(1 << 8)),
        (0xD, 0) => e.eax &= !(1 << 17 | 1 << 18),
        // No extended feature disable: its only user is AMX.
        (0xD, 1) => e.eax &= !(1 << 4),
        (HYPERVISOR, _) => e.eax = HYPERVISOR_TIMING,
        (0x8000_0001, _) => {
            // SVM, instruction based sampling, SKINIT, watchdog, lightweight profiling, performance counters.
            e.ecx &= !(1 << 2 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 28);
            if amd {
                set(&mut e.ecx, 1, threads_per_core == 1 && vcpus > 1); // CmpLegacy
                e.ecx |= 1 << 22; // topology extensions
            }
        }
        (0x8000_0008, _) => {
            e.eax = e.eax & !0xFF | (e.eax & 0xFF).clamp(32, MAX_ADDRESS_BITS);
            // Linear address bits: no 5-level paging.
            e.eax = e.eax & !0xFF00 | (e.eax >> 8 & 0xFF).min(48) << 8;
            // A guest physical address width other than the physical one is for nested guests.
            e.eax &= 0xFFFF;
            if amd {
                e.ecx = (vcpus - 1) & 0xFF | id_bits(vcpus) << 12;
            }
        }
        (0x8000_0000, _) => {
            let last = if amd { AMD_TOPOLOGY } else { BRAND + 2 };
            e.eax = e.eax.max(last);
        }
        // SVM.
        (0x8000_000A, _) => (e.eax, e.ebx, e.ecx, e.edx) = (0, 0, 0, 0),
        _ => {}
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = *register & !(1 << bit) | u32::from(on) << bit;
}

/// The leaves of a processor's name: 48 bytes, filled up with zeros.
fn brand(name: &[u8]) -> [kvm_cpuid_entry2; 3] {
    let word = |n: usize| (0..4).fold(0, |w, i| w | u32::from(*name.get(n * 4 + i).unwrap_or(&0)) << (8 * i));
    [0, 1, 2].map(|n| leaf(BRAND + n as u32, [0, 1, 2, 3].map(|i| word(n * 4 + i))))
}

fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
}

fn subleaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { index, flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX, ..leaf(function, registers) }
}

/// Threads, cores and the end of the list.
fn topology_leaf(function: u32, topology: CpuTopology, index: u32) -> [kvm_cpuid_entry2; 3] {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let id = apic_id(index);
    let thread_bits = id_bits(topology.threads_per_core);
    let core_bits = id_bits(topology.vcpus()).max(thread_bits);
    [
        subleaf(function, 0, [thread_bits, topology.threads_per_core, THREADS, id]),
        subleaf(function, 1, [core_bits, topology.vcpus(), CORES | 1, id]),
        subleaf(function, 2, [0, 0, 2, id]),
    ]
}

/// The most cache levels that a processor reports.
const MAX_CACHES: u32 = 8;

/// How many logical processors share a cache of `level`, minus one.
fn sharing(level: u32, topology: CpuTopology) -> u32 {
    if level < 3 { topology.threads_per_core - 1 } else { topology.vcpus().next_power_of_two() - 1 }
}

fn intel_caches(topology: CpuTopology, host: HostCpuid) -> Vec<kvm_cpuid_entry2> {
    let cores = topology.cores.next_power_of_two().min(64) - 1;
    caches(4, host, move |eax, level| eax & 0x3FFF | sharing(level, topology).min(0xFFF) << 14 | cores << 26)
}

fn amd_caches(topology: CpuTopology, host: HostCpuid) -> Vec<kvm_cpuid_entry2> {
    caches(0x8000_001D, host, move |eax, level| eax & 0x3FFF | sharing(level, topology).min(0xFFF) << 14)
}

/// Caches of a processor that does not describe its own (type and level, ways and line, sets): 32 KiB for data and for
/// instructions, 512 KiB, 16 MiB.
const PLAIN_CACHES: [[u32; 4]; 4] = [
    [1 | 1 << 5 | 1 << 8, 7 << 22 | 63, 63, 0],
    [2 | 1 << 5 | 1 << 8, 7 << 22 | 63, 63, 0],
    [3 | 2 << 5 | 1 << 8, 7 << 22 | 63, 1023, 0],
    [3 | 3 << 5 | 1 << 8, 15 << 22 | 63, 16383, 0],
];

/// The host's caches with their sharing rewritten, and the end of the list.
fn caches(function: u32, host: HostCpuid, share: impl Fn(u32, u32) -> u32) -> Vec<kvm_cpuid_entry2> {
    let mut entries = Vec::new();
    // Asked once: under another hypervisor each CPUID is an exit to it.
    let first = host(function, 0);
    for index in 0..MAX_CACHES {
        let of_host = match index {
            _ if first[0] & 0x1F == 0 => plain_cache(index),
            0 => first,
            _ => host(function, index),
        };
        let [eax, ebx, ecx, edx] = of_host;
        if eax & 0x1F == 0 {
            break;
        }
        entries.push(subleaf(function, index, [share(eax, eax >> 5 & 7), ebx, ecx, edx]));
    }
    entries.push(subleaf(function, entries.len() as u32, [0; 4]));
    entries
}

fn plain_cache(index: u32) -> [u32; 4] {
    PLAIN_CACHES.get(index as usize).copied().unwrap_or_default()
}

/// CPUID of the host's processor, for [`guest_cpuid`].
pub fn host_cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let highest = std::arch::x86_64::__cpuid(leaf & 0x8000_0000).eax;
    if leaf > highest {
        return [0; 4];
    }
    let r = std::arch::x86_64::__cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
