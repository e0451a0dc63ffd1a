//! What is said over one byte stream between those who have commands run in an emulated host and those who run them:
//! frames of a kind (1 byte), a stream (4 bytes, little-endian), a length (4 bytes, little-endian, at most
//! [`MAX_PAYLOAD`]) and that many bytes.
//!
//! A stream is one command, from the request for it (some [`Kind::Part`], then [`Kind::Run`]) to its end
//! ([`Kind::Exit`] or [`Kind::Failed`]). Stream 0 is the machine itself. The same frames go over the virtio-serial port
//! of the machine and over the socket of its keeper, which passes them on under another stream's number.
//!
//! Nobody sends more of a command's bytes than the receiver has room for: see [`Window`](super::window::Window). So
//! whoever reads a channel never has to wait for a slow command or a slow caller, and holds a bounded amount for each.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest payload of a frame in bytes. A peer that announces more is refused.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// The largest value in JSON ([`send_value`]) in bytes, all its parts together.
pub const MAX_VALUE: usize = 64 << 20;
/// The name of the port in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "amiable.emulate";
/// Both ends must speak the same version: [`Kind::Hello`] tells it, as a `u32`, little-endian.
pub const VERSION: u32 = 2;
/// The stream of the machine itself.
pub const MACHINE: u32 = 0;

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
    /// To the inside, for the machine: end all commands within so many milliseconds (`u32`, little-endian), power off.
    Bye = 4,
    /// To the inside: run the command that the [`Kind::Part`]s before described (an [`Order`](super::inner::Order)).
    Run = 5,
    /// To the inside: nobody waits for this command any more. It is ended; its output goes nowhere.
    Leave = 6,
    /// To the inside, for the machine: up and about to take orders; [`VERSION`].
    Hello = 16,
    /// To the host: bytes of the command's standard output.
    Stdout = 17,
    /// To the host: bytes of the command's standard error.
    Stderr = 18,
    /// To the host: the command ended; its wait status, an `i32`, little-endian. Its disks are synced and let go of.
    Exit = 19,
    /// To the host: the command could not be run; a [`Failure`].
    Failed = 20,
    /// To the host: the command runs.
    Started = 21,
    /// Either way: room for so many more bytes (`u32`, little-endian) of the stream of the kind in the first byte.
    Room = 32,
    /// Either way: a part of a value in JSON, which the next frame of this stream that is none completes.
    Part = 33,
    /// Between the keeper and those who come to it: a question, or its answer, in the [`Kind::Part`]s before.
    Message = 34,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Stdin, StdinEnd, Signal, Bye, Run, Leave, Hello, Stdout, Stderr, Exit, Failed, Started, Room, Part, Message]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Why a command did not run, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub enum Failure {
    /// It could not be run inside.
    Command(String),
    /// A drive could not be put in.
    Drive(String),
    /// A port of the outer host could not be had.
    Port(String),
    /// The machine is going away or gone.
    Host(String),
}

/// A frame as it is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub stream: u32,
}

const HEADER: usize = 9;

/// Sends one frame in one write. `payload` is cut into several frames when it is too long for one.
pub fn send(port: &mut impl Write, kind: Kind, stream: u32, payload: &[u8]) -> io::Result<()> {
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        let mut frame = Vec::with_capacity(HEADER + now.len());
        frame.push(kind as u8);
        frame.extend_from_slice(&stream.to_le_bytes());
        frame.extend_from_slice(&(now.len() as u32).to_le_bytes());
        frame.extend_from_slice(now);
        port.write_all(&frame)?;
        rest = later;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Sends a value as JSON in [`Kind::Part`]s, completed by an empty frame of `kind`.
pub fn send_value(port: &mut impl Write, kind: Kind, stream: u32, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    if text.len() > MAX_VALUE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too much for the emulated host in one request"));
    }
    send(port, Kind::Part, stream, &text)?;
    send(port, kind, stream, &[])
}

/// Receives one frame; its payload replaces what `payload` held. `None` at the end of the channel between frames.
/// [`io::ErrorKind::InvalidData`] for a frame of unknown kind or too large, [`io::ErrorKind::UnexpectedEof`] within one.
/// Reads in small pieces: hand it something buffered.
pub fn receive(port: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    let mut first = [0];
    loop {
        match port.read(&mut first) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let (mut stream, mut length) = ([0; 4], [0; 4]);
    port.read_exact(&mut stream)?;
    port.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    let kind = Kind::from_byte(first[0]).ok_or_else(|| bad(format!("a frame of unknown kind {}", first[0])))?;
    if length > MAX_PAYLOAD {
        return Err(bad(format!("a frame of {length} bytes")));
    }
    payload.resize(length, 0);
    port.read_exact(payload)?;
    Ok(Some(Frame { kind, stream: u32::from_le_bytes(stream) }))
}

/// The next value that a frame of `kind` completes. For conversations in which nothing else can come.
pub fn receive_value<T: DeserializeOwned>(port: &mut impl Read, kind: Kind) -> io::Result<T> {
    let (mut text, mut payload) = (Vec::new(), Vec::new());
    loop {
        match receive(port, &mut payload)?.map(|frame| frame.kind) {
            Some(Kind::Part) => add_part(&mut text, &payload)?,
            Some(received) if received == kind => return Ok(serde_json::from_slice(&text)?),
            Some(received) => return Err(bad(format!("{received:?} instead of {kind:?}"))),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Adds a [`Kind::Part`] to what came before it.
pub fn add_part(text: &mut Vec<u8>, part: &[u8]) -> io::Result<()> {
    if text.len() + part.len() > MAX_VALUE {
        return Err(bad("a value that is too long".into()));
    }
    text.extend_from_slice(part);
    Ok(())
}

/// The payload of [`Kind::Room`].
pub fn room(kind: Kind, bytes: usize) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    [kind as u8, a, b, c, d]
}

/// The kind and the number of bytes in a [`Kind::Room`].
pub fn read_room(payload: &[u8]) -> Option<(Kind, usize)> {
    let &[kind, a, b, c, d] = payload else { return None };
    Some((Kind::from_byte(kind)?, u32::from_le_bytes([a, b, c, d]) as usize))
}

/// A payload that is one number.
pub fn read_u32(payload: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(payload.try_into().ok()?))
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
