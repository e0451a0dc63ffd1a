//! Flow control: how much of one stream of bytes may be on its way. The sender takes from the [`Window`] before it sends;
//! the receiver counts ([`Room`]) what it has passed on, and gives that back from time to time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What may be on its way of each stream of bytes, in bytes: what a receiver may have to hold.
pub const SIZE: usize = 256 << 10;

#[derive(Default)]
struct State {
    room: usize,
    closed: bool,
    waiting: bool,
}

/// The sender's side: starts with [`SIZE`] bytes of room.
pub struct Window {
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Window {
    fn default() -> Self {
        Window { state: Mutex::new(State { room: SIZE, ..State::default() }), changed: Condvar::new() }
    }
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for at least one byte and at most `most`, when there is some. `None` once the window is closed.
    pub fn take(&self, most: usize) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let taken = state.room.min(most);
            if taken > 0 {
                state.room -= taken;
                state.waiting = false;
                return Some(taken);
            }
            state.waiting = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The receiver has made room. More than was ever taken is not believed.
    pub fn give(&self, bytes: usize) {
        let mut state = self.lock();
        state.room = state.room.saturating_add(bytes).min(SIZE);
        self.changed.notify_all();
    }

    /// Nobody wants the bytes any more, now and later.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether somebody waits for room.
    pub fn is_waiting(&self) -> bool {
        let state = self.lock();
        state.waiting && state.room == 0 && !state.closed
    }
}

/// The receiver's side: counts what it has passed on, and says when it is time to tell.
#[derive(Default)]
pub struct Room(usize);

impl Room {
    /// So many bytes went on their way: how much to give back now, if it is worth a frame.
    pub fn passed(&mut self, bytes: usize) -> Option<usize> {
        self.0 = self.0.saturating_add(bytes);
        (self.0 >= SIZE / 2).then(|| std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
