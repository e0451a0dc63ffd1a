//! The serial console: however the bytes are cut when they come, the lines are the same, and they are bounded.
#![no_main]

use amiable::host::console::{Lines, MAX_LINE};

fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, String) {
    let (mut console, mut lines) = (Lines::default(), Vec::new());
    for piece in pieces {
        console.push(piece, |line| lines.push(line.to_owned()));
    }
    (lines, console.unfinished())
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let whole = lines(std::iter::once(bytes));
    assert_eq!(whole, lines(bytes.chunks(usize::from(*first) + 1)));
    // A byte that is no UTF-8 becomes U+FFFD, which is three.
    assert!(whole.0.iter().all(|line| line.len() <= 3 * MAX_LINE));
});
