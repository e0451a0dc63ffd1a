//! The I/O threads of a controller: started when one is needed first, at most [`LIMIT`] of them.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::controller::{Controller, lock};
use crate::vmm::memory::THREAD_STACK;

/// The most threads of a controller: accesses to the host's disk in flight.
pub const LIMIT: usize = 8;

/// Threads, and the queues that wait for one.
#[derive(Debug)]
pub struct Pool {
    limit: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Submission queues with work. The submitter keeps each in here at most once.
    ready: VecDeque<u16>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    stopping: bool,
}

impl Pool {
    /// At most `limit` threads; with 0, whoever rings a doorbell does it all.
    pub fn new(limit: usize) -> Self {
        Pool { limit, state: Mutex::default(), wake: Condvar::new() }
    }

    /// Give submission queue `id` to a thread. `false` if there is none to be had.
    pub(super) fn submit(&self, controller: &Arc<Controller>, id: u16) -> bool {
        let mut state = lock(&self.state);
        if state.stopping {
            return false;
        }
        if state.idle <= state.ready.len() && state.threads.len() < self.limit {
            let controller = Arc::clone(controller);
            match Builder::new()
                .name("nvme-io".into())
                .stack_size(THREAD_STACK)
                .spawn(move || controller.pool.work(&controller))
            {
                Ok(thread) => state.threads.push(thread),
                Err(error) => log::warn!("can't start an NVMe I/O thread: {error}"),
            }
        }
        if state.threads.is_empty() {
            return false;
        }
        state.ready.push_back(id);
        self.wake.notify_one();
        true
    }

    /// Whether queues wait for a thread.
    pub fn is_contended(&self) -> bool {
        !lock(&self.state).ready.is_empty()
    }

    fn work(&self, controller: &Arc<Controller>) {
        while let Some(id) = self.take() {
            let run = std::panic::AssertUnwindSafe(|| controller.run_queued(id));
            if std::panic::catch_unwind(run).is_err() {
                log::error!("an NVMe I/O thread panicked: the controller has failed");
                controller.fail();
            }
        }
    }

    fn take(&self) -> Option<u16> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping {
                return None;
            }
            if let Some(id) = state.ready.pop_front() {
                return Some(id);
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Let the threads finish what they do, and join them.
    pub fn stop(&self) {
        let threads = {
            let mut state = lock(&self.state);
            state.stopping = true;
            std::mem::take(&mut state.threads)
        };
        self.wake.notify_all();
        for thread in threads {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}
