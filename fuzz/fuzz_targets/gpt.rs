//! Partition tables: the input is the disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| amiable::boot::partitions::fuzz(bytes));
