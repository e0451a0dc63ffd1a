//! What the host and the inside of the emulated host say to each other over one virtio-serial port: frames of a kind
//! (1 byte), a length (4 bytes, little-endian, at most [`MAX_PAYLOAD`]) and that many bytes.

use std::io::{self, Read, Write};

/// The largest payload of a frame in bytes. A peer that announces more is refused.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// The name of the port in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "amiable.emulate";

/// The kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To the inside: bytes for the command's standard input.
    Stdin = 1,
    /// To the inside: the standard input's end.
    StdinEnd = 2,
    /// To the inside: a signal for the command, an `i32`, little-endian.
    Signal = 3,
    /// To the inside: the exit status was seen, power off.
    Bye = 4,
    /// To the host: up and about to run the command.
    Hello = 16,
    /// To the host: bytes of the command's standard output.
    Stdout = 17,
    /// To the host: bytes of the command's standard error.
    Stderr = 18,
    /// To the host: the command ended; its wait status, an `i32`, little-endian. Disks are synced.
    Exit = 19,
    /// To the host: the command could not be run; the reason as text.
    Failed = 20,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Stdin, StdinEnd, Signal, Bye, Hello, Stdout, Stderr, Exit, Failed].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Sends one frame in one write. `payload` is cut into several frames when it is too long for one.
pub fn send(port: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        let mut frame = Vec::with_capacity(5 + now.len());
        frame.push(kind as u8);
        frame.extend_from_slice(&(now.len() as u32).to_le_bytes());
        frame.extend_from_slice(now);
        port.write_all(&frame)?;
        rest = later;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Receives one frame; its payload replaces what `payload` held. `None` at the end of the stream between frames.
/// [`io::ErrorKind::InvalidData`] for a frame of unknown kind or too large, [`io::ErrorKind::UnexpectedEof`] within one.
pub fn receive(port: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Option<Kind>> {
    let mut first = [0];
    loop {
        match port.read(&mut first) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut length = [0; 4];
    port.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let kind = Kind::from_byte(first[0]).ok_or_else(|| bad(format!("a frame of unknown kind {}", first[0])))?;
    if length > MAX_PAYLOAD {
        return Err(bad(format!("a frame of {length} bytes")));
    }
    payload.resize(length, 0);
    port.read_exact(payload)?;
    Ok(Some(kind))
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
