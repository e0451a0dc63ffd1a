//! Guest memory: one mapping per RAM range of the guest-physical address space.

/// The guest's RAM. Cheap to clone: the regions are shared.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
