//! Small helpers over bytes that are mostly text.

/// `data` without leading ASCII white space.
pub(super) fn trim_start(data: &[u8]) -> &[u8] {
    let blank = data.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b).count();
    data.get(blank..).unwrap_or_default()
}

/// Where `needle` starts in `data`.
pub(super) fn find(data: &[u8], needle: &[u8]) -> Option<usize> {
    data.windows(needle.len().max(1)).position(|window| window == needle)
}

/// The line, from 1, that the byte at `offset` is in.
pub(super) fn line_of(data: &[u8], offset: usize) -> usize {
    data.iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// The first line without its end, as text.
pub(super) fn first_line(data: &[u8]) -> String {
    let line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

/// A line short enough for a message, without control characters.
pub(super) fn excerpt(line: &str) -> String {
    let mut short: String = line.chars().take(40).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if line.chars().nth(40).is_some() {
        short.push('…');
    }
    short
}
