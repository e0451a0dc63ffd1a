use proptest::prelude::*;

use super::*;

fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
    let mut lines = Lines::default();
    let mut out = Vec::new();
    for chunk in chunks {
        lines.push(chunk, |l| out.push(l.to_owned()));
    }
    out
}

#[test]
fn lines_may_come_in_any_pieces() {
    assert_eq!(lines_of(&[b"one\r\ntw", b"o\n", b"\nrest"]), ["one", "two", ""]);
}

#[test]
fn the_unfinished_line_is_visible() {
    let mut lines = Lines::default();
    lines.push(b"done\nip-172-31-0-10 login: ", |_| {});
    assert_eq!(lines.unfinished(), "ip-172-31-0-10 login: ");
}

#[test]
fn terminal_sequences_are_not_text() {
    assert_eq!(plain_text(b"\x1b[6n\x1b[!p\x1b]0;title\x07\x1b(B[\x1b[0;32m  OK  \x1b[0m] up\r"), "[  OK  ] up");
}

#[test]
fn an_endless_line_is_cut() {
    let long = vec![b'x'; 3 * MAX_LINE];
    let out = lines_of(&[&long, b"\n"]);
    assert_eq!(out.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, MAX_LINE]);
}

proptest! {
    #[test]
    fn any_bytes_make_bounded_plain_lines(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        lines.push(&bytes, |l| seen.push(l.to_owned()));
        for line in seen {
            prop_assert!(line.len() <= 3 * MAX_LINE);
            prop_assert!(!line.chars().any(|c| c.is_ascii_control() && c != '\t'));
        }
    }
}
