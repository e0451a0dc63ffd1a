//! The I/O threads of a controller: started when one is needed, at most [`LIMIT`] of them, and ended when there was nothing to
//! do for a while: a machine may have 27 volumes, most of them quiet.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::controller::{Controller, lock};
use crate::vmm::memory::THREAD_STACK;

/// The most threads of a controller: accesses to the host's disk in flight.
pub const LIMIT: usize = 8;
/// How long a thread waits for work before it ends.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// Threads, and the queues that wait for one.
#[derive(Debug)]
pub struct Pool {
    limit: usize,
    idle_time: Duration,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Submission queues with work. The submitter keeps each in here at most once.
    ready: VecDeque<u16>,
    idle: usize,
    /// Threads that take work.
    live: usize,
    /// Those, and some that have ended or are about to.
    threads: Vec<JoinHandle<()>>,
    stopping: bool,
}

impl Pool {
    /// At most `limit` threads; with 0, whoever rings a doorbell does it all.
    pub fn new(limit: usize) -> Self {
        Self::with_idle_time(limit, IDLE_TIME)
    }

    fn with_idle_time(limit: usize, idle_time: Duration) -> Self {
        Pool { limit, idle_time, state: Mutex::default(), wake: Condvar::new() }
    }

    /// Give submission queue `id` to a thread. `false` if there is none to be had.
    pub(super) fn submit(&self, controller: &Arc<Controller>, id: u16) -> bool {
        let mut state = lock(&self.state);
        if state.stopping {
            return false;
        }
        if state.idle <= state.ready.len() && state.live < self.limit {
            state.threads.retain(|thread| !thread.is_finished());
            let controller = Arc::clone(controller);
            match Builder::new()
                .name("nvme-io".into())
                .stack_size(THREAD_STACK)
                .spawn(move || controller.pool.work(&controller))
            {
                Ok(thread) => {
                    state.threads.push(thread);
                    state.live += 1;
                }
                Err(error) => log::warn!("can't start an NVMe I/O thread: {error}"),
            }
        }
        if state.live == 0 {
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
            let (guard, waited) = self.wake.wait_timeout(state, self.idle_time).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if waited.timed_out() && state.ready.is_empty() {
                // Under the lock: whoever submits next sees that this one is gone.
                state.live -= 1;
                return None;
            }
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Driver, Entry};
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn idle_threads_end_and_are_started_again() {
        let mut driver = Driver::with_pool(2, Pool::with_idle_time(4, Duration::ZERO));
        driver.disk.cold.store(true, Ordering::SeqCst);
        for lba in 0..20 {
            for queue in 1..=2 {
                driver.submit(queue, Entry::io(2, lba, 1).prps(0x20_0000, 0));
                driver.wait(queue);
            }
        }
        let pool = Arc::clone(&driver.function.controller);
        while lock(&pool.pool.state).live > 0 {
            std::thread::yield_now();
        }
        driver.submit(1, Entry::io(2, 0, 1).prps(0x20_0000, 0));
        driver.wait(1);
        assert!(lock(&pool.pool.state).threads.len() <= 4, "those that ended are forgotten");
        pool.pool.stop();
    }
}
