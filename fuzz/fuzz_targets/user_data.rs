//! The lint of user-data.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    amiable::ec2::user_data::lint(bytes);
});
