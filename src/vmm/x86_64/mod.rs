//! What holds for x86_64 alone: CPUID, MSRs, the boot protocols and the register state at the kernel's entry.
//!
//! Everything here is a function from values to values or to bytes in guest memory; KVM is not called.

pub mod boot_params;
mod copy;
pub mod cpuid;
pub mod elf;
pub mod loader;
pub mod pvh;
pub mod registers;

/// Little-endian integers out of a byte slice, `None` past its end.
pub(crate) mod bytes {
    /// The `N` bytes at `offset`.
    pub fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
        bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
    /// A 16-bit integer.
    pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
        array(bytes, offset).map(u16::from_le_bytes)
    }
    /// A 32-bit integer.
    pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
        array(bytes, offset).map(u32::from_le_bytes)
    }
    /// A 64-bit integer.
    pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
        array(bytes, offset).map(u64::from_le_bytes)
    }
}
