//! Boot Loader Specification entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| amiable::boot::bls::fuzz(bytes));
