//! Frames on their way from the inside to one client.
//!
//! The thread that reads the machine's channel puts them in and never waits; the client's own thread takes them out. How
//! many there can be is bounded by the room that the client gave, and that again by [`MOST`].

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::emulate::channel::Kind;
use crate::emulate::window;

/// Two full windows, and as much again in small frames.
const MOST: usize = 4 * window::SIZE;
/// What a frame counts beside its payload.
const FRAME: usize = 64;

#[derive(Default)]
struct State {
    frames: VecDeque<(Kind, Vec<u8>)>,
    bytes: usize,
    over: bool,
}

/// The frames of one command.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in. The command's end is always taken, and is the last; of the rest, no more than [`MOST`].
    pub(super) fn put(&self, kind: Kind, payload: &[u8]) {
        let mut state = self.lock();
        let end = matches!(kind, Kind::Exit | Kind::Failed);
        if state.over || (!end && state.bytes > MOST) {
            return;
        }
        state.over = end;
        state.bytes += payload.len() + FRAME;
        state.frames.push_back((kind, payload.to_vec()));
        self.changed.notify_all();
    }

    /// The next frame, once there is one.
    pub(super) fn take(&self) -> (Kind, Vec<u8>) {
        let mut state = self.lock();
        loop {
            if let Some(frame) = state.frames.pop_front() {
                state.bytes -= frame.1.len() + FRAME;
                return frame;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
