//! Import of qcow2 images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    amiable::storage::import::fuzz_qcow2(bytes);
});
