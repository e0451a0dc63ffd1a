use super::*;

const T: CpuTopology = CpuTopology { cores: 3, threads_per_core: 2 };
const CONTEXT: CpuidContext = CpuidContext { topology: T, tsc_khz: 2_500_000, tsc_deadline: true };

fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { index, ..leaf(function, registers) }
}

fn supported(vendor_ebx: u32) -> Vec<kvm_cpuid_entry2> {
    let all = u32::MAX;
    vec![
        entry(0, 0, [0x1F, vendor_ebx, 0, 0]),
        entry(1, 0, [0x50654, all, all, all]),
        entry(4, 0, [all; 4]),
        entry(6, 0, [all; 4]),
        entry(7, 0, [1, all, all, all]),
        entry(0xA, 0, [all; 4]),
        entry(0xB, 0, [all; 4]),
        entry(0xD, 0, [0x602E7, 2696, 11008, 0]),
        entry(0xD, 1, [0x1F, 0, 0, 0]),
        entry(0xD, 2, [256, 576, 0, 0]),
        entry(0xD, 9, [8, 2688, 0, 0]),
        entry(0xD, 18, [8192, 2816, 6, 0]),
        entry(0x1D, 0, [1, 0, 0, 0]),
        entry(0x4000_0000, 0, [0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D]),
        entry(0x8000_0001, 0, [0, 0, all, all]),
        entry(0x8000_0008, 0, [0x0034_3934, 0, 0, 0]),
        entry(0x8000_000A, 0, [all; 4]),
    ]
}

fn host(leaf: u32, subleaf: u32) -> [u32; 4] {
    match (leaf, subleaf) {
        (4 | 0x8000_001D, 0) => [0x21, 1, 2, 3],
        (4 | 0x8000_001D, 1) => [0x63, 1, 2, 3],
        _ => [0; 4],
    }
}

const INTEL: u32 = 0x756E_6547;
const AMD: u32 = 0x6874_7541;

fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    *entries.iter().find(|e| (e.function, e.index) == (function, index)).unwrap()
}

#[test]
fn the_topology_is_the_machines() {
    let entries = guest_cpuid(&supported(INTEL), CONTEXT, 5, host);
    let one = find(&entries, 1, 0);
    assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xFF, one.edx >> 28 & 1), (5, 8, 1));
    for function in [0xB, 0x1F] {
        let (threads, cores, end) =
            (find(&entries, function, 0), find(&entries, function, 1), find(&entries, function, 2));
        assert_eq!((threads.eax, threads.ebx, threads.ecx, threads.edx), (1, 2, 0x100, 5));
        assert_eq!((cores.eax, cores.ebx, cores.ecx, cores.edx), (3, 6, 0x201, 5));
        assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
    }
    let (l1, l3) = (find(&entries, 4, 0), find(&entries, 4, 1));
    assert_eq!((l1.eax >> 14 & 0xFFF, l1.eax >> 26), (1, 3), "level 1 is shared by the threads of a core");
    assert_eq!(l3.eax >> 14 & 0xFFF, 7, "level 3 is shared by all");
    assert_eq!(find(&entries, 4, 2).eax, 0);
}

#[test]
fn amd_tells_the_same_by_its_own_leaves() {
    let entries = guest_cpuid(&supported(AMD), CONTEXT, 3, host);
    let identity = find(&entries, 0x8000_001E, 0);
    assert_eq!((identity.eax, identity.ebx & 0xFF, identity.ebx >> 8 & 0xFF), (3, 1, 1));
    assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 3 << 12 | 5);
    assert_eq!(find(&entries, 0x8000_001D, 0).eax >> 14 & 0xFFF, 1);
    assert_eq!(find(&entries, 0x8000_0001, 0).ecx >> 22 & 1, 1, "topology extensions");
}

#[test]
fn what_kvm_does_not_emulate_is_gone() {
    let entries = guest_cpuid(&supported(INTEL), CONTEXT, 0, host);
    assert!(!entries.iter().any(|e| matches!(e.function, 0xA | 0x1D) || (e.function == 0xD && e.index == 18)));
    let one = find(&entries, 1, 0);
    assert_eq!(one.ecx & (1 << 5 | 1 << 15), 0, "VMX and PDCM");
    assert_eq!(find(&entries, 0x8000_0001, 0).ecx & 1 << 2, 0, "SVM");
    let seven = find(&entries, 7, 0);
    assert_eq!((seven.ecx & 1 << 16, seven.edx & (1 << 24 | 1 << 25 | 1 << 22)), (0, 0), "5-level paging, AMX");
    assert_eq!(find(&entries, 6, 0).eax, 4);
    let state = find(&entries, 0xD, 0);
    assert_eq!((state.eax, state.ecx), (0x2E7, 2696), "state without AMX tiles");
    assert_eq!(find(&entries, 0x8000_0008, 0).eax, 0x302E);
    assert_eq!(address_bits(&supported(INTEL)), 46);
}

#[test]
fn a_hypervisor_is_announced_with_its_timing() {
    let entries = guest_cpuid(&supported(INTEL), CONTEXT, 0, host);
    let one = find(&entries, 1, 0);
    assert_eq!((one.ecx >> 31, one.ecx >> 24 & 1), (1, 1));
    assert_eq!(find(&entries, 0x4000_0000, 0).eax, 0x4000_0010);
    let timing = find(&entries, 0x4000_0010, 0);
    assert_eq!((timing.eax, timing.ebx), (2_500_000, 1_000_000));
    let without = CpuidContext { tsc_deadline: false, ..CONTEXT };
    assert_eq!(find(&guest_cpuid(&supported(INTEL), without, 0, host), 1, 0).ecx >> 24 & 1, 0);
}

#[test]
fn one_vcpu_has_no_siblings() {
    let context = CpuidContext { topology: CpuTopology { cores: 1, threads_per_core: 1 }, ..CONTEXT };
    let entries = guest_cpuid(&supported(AMD), context, 0, host);
    assert_eq!(find(&entries, 1, 0).edx >> 28 & 1, 0);
    assert_eq!(find(&entries, 0xB, 0).eax, 0);
    assert_eq!(find(&entries, 0x8000_001E, 0).ebx, 0);
}

#[test]
fn a_nameless_processor_without_caches_gets_some() {
    let entries = guest_cpuid(&supported(AMD), CONTEXT, 0, |_, _| [0; 4]);
    let name: Vec<u8> = (0..3)
        .flat_map(|n| {
            let e = find(&entries, 0x8000_0002 + n, 0);
            [e.eax, e.ebx, e.ecx, e.edx].map(u32::to_le_bytes).concat()
        })
        .collect();
    assert_eq!(name.split(|b| *b == 0).next(), Some(&b"AMD EPYC Processor"[..]));
    let size = |n| {
        let e = find(&entries, 0x8000_001D, n);
        (((e.ebx >> 22) + 1) * ((e.ebx & 0xFFF) + 1) * (e.ecx + 1)) >> 10
    };
    assert_eq!([size(0), size(1), size(2), size(3)], [32, 32, 512, 16384]);
    assert_eq!(find(&entries, 0x8000_001D, 4).eax, 0);
}
