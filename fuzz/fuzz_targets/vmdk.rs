//! Import of VMDK images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    amiable::storage::import::fuzz_vmdk(bytes);
});
