//! The verdict on user-data: the input is the files that the guest leaves, with a 0xff between them.
#![no_main]

use amiable::host::verdict::{Files, judge};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut files = bytes.splitn(3, |byte| *byte == 0xff).map(<[u8]>::to_vec);
    let verdict = judge(&Files { result: files.next(), log: files.next(), output: files.next() });
    assert!((0..=255).contains(&verdict.exit_code()));
});
