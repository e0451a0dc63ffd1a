//! The guest's serial console, read as lines.
//!
//! The console is the guest's: it may hold anything, in any length. Lines are cut at [`MAX_LINE`] bytes and freed of
//! terminal control sequences (Debian 13's getty probes the terminal with them) before anybody matches text in them.

/// The longest line that is passed on, in bytes; what follows up to the next newline is a line of its own.
pub const MAX_LINE: usize = 4096;

/// Cuts a byte stream into lines of plain text.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Take the next bytes of the stream and call `line` for each line that they complete.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' || self.pending.len() == MAX_LINE {
                line(&plain_text(&self.pending));
                self.pending.clear();
            }
            if byte != b'\n' {
                self.pending.push(byte);
            }
        }
    }

    /// What stands after the last newline, as far as it came: a prompt, as a rule.
    pub fn unfinished(&self) -> String {
        plain_text(&self.pending)
    }
}

/// `bytes` as text without control characters and without terminal control sequences (ECMA-48 CSI, OSC and two-byte
/// escapes).
pub fn plain_text(bytes: &[u8]) -> String {
    enum In {
        Text,
        Escape,
        Csi,
        Osc,
    }
    let mut state = In::Text;
    let mut kept = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        state = match (state, byte) {
            (_, 0x1b) => In::Escape,
            (In::Escape, b'[') => In::Csi,
            (In::Escape, b']') => In::Osc,
            (In::Escape, 0x20..=0x2f) => In::Escape,
            (In::Escape, _) => In::Text,
            (In::Csi, 0x40..=0x7e) => In::Text,
            (In::Csi, _) => In::Csi,
            (In::Osc, 0x07) => In::Text,
            (In::Osc, _) => In::Osc,
            (In::Text, b'\t' | 0x20..=0x7e | 0x80..=0xff) => {
                kept.push(byte);
                In::Text
            }
            (In::Text, _) => In::Text,
        };
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
