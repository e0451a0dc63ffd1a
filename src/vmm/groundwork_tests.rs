use std::sync::Arc;

use super::*;

const TWO: CpuTopology = CpuTopology { cores: 1, threads_per_core: 2 };

#[test]
fn it_fits_one_kind_of_machine() {
    // Where there is no KVM that comes out at the end; all else can be asked.
    let groundwork = Groundwork::begin(64 << 20, TWO, None).unwrap();
    let kernel = Kernel::Elf(Arc::new(tempfile::tempfile().unwrap()));
    assert!(groundwork.is_for(64 << 20, TWO, &kernel), "empty memory is for any kernel");
    assert!(!groundwork.is_for(65 << 20, TWO, &kernel));
    assert!(!groundwork.is_for(64 << 20, CpuTopology { cores: 2, threads_per_core: 1 }, &kernel));
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    let none = CpuTopology { cores: 0, threads_per_core: 1 };
    assert!(matches!(Groundwork::begin(64 << 20, none, None), Err(MachineError::Topology(0, 1))));
    assert!(matches!(Groundwork::begin(1, TWO, None), Err(MachineError::Memory(_))));
    let not_elf = Kernel::Elf(Arc::new(tempfile::tempfile().unwrap()));
    assert!(matches!(Groundwork::begin(64 << 20, TWO, Some(&not_elf)), Err(MachineError::Load(_))));
}
