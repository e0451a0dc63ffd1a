//! GRUB's configuration: the input is every file of the disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| amiable::boot::grub::fuzz(bytes));
