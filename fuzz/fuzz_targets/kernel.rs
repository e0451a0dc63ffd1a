//! Kernel images: bzImage, its compressed payload, ELF.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| amiable::boot::kernel::fuzz(bytes));
