//! Whether a vCPU may wait for a kind of access.
//!
//! Most back ends answer most accesses in microseconds (the page cache, a flush with nothing to do), faster than a
//! thread can be woken. Some take milliseconds. What the last ones took says which kind it is: after a few quick ones in
//! a row on an I/O thread, vCPUs do them on the spot; a slow one sends the next many back to the I/O threads.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// Slower than this plus a nanosecond a byte is worth a thread.
const QUICK: Duration = Duration::from_micros(50);
/// Quick accesses in a row before a vCPU does them.
const TRUST: i32 = 4;
/// Quick accesses on top of that after a slow one.
const PENALTY: i32 = 64;

/// The recent past of one kind of access.
#[derive(Debug, Default)]
pub struct Pace(AtomicI32);

impl Pace {
    /// Whether the next access is likely to be quick.
    pub fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= TRUST
    }

    /// An access of `bytes` took `time`.
    pub fn note(&self, time: Duration, bytes: u64) {
        let credit = self.0.load(Ordering::Relaxed);
        if time > QUICK + Duration::from_nanos(bytes) {
            self.0.store(-PENALTY, Ordering::Relaxed);
        } else if credit < TRUST {
            // Racing notes lose one another's count; nobody minds.
            self.0.store(credit + 1, Ordering::Relaxed);
        }
    }
}

/// The kinds of access that a controller tells apart.
#[derive(Debug, Default)]
pub struct Paces {
    /// Reads that the back end would not do without waiting.
    pub read: Pace,
    /// Writes.
    pub write: Pace,
    /// Flushes.
    pub flush: Pace,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_earned_and_lost_at_once() {
        let pace = Pace::default();
        assert!(!pace.is_quick());
        (0..TRUST).for_each(|_| pace.note(Duration::from_micros(3), 4096));
        assert!(pace.is_quick());
        pace.note(Duration::from_millis(2), 4096);
        assert!(!pace.is_quick());
        (0..PENALTY).for_each(|_| pace.note(Duration::from_micros(3), 4096));
        assert!(!pace.is_quick());
        (0..TRUST).for_each(|_| pace.note(Duration::from_micros(3), 4096));
        assert!(pace.is_quick());
    }

    #[test]
    fn large_transfers_may_take_longer() {
        let pace = Pace::default();
        (0..TRUST).for_each(|_| pace.note(Duration::from_micros(600), 1 << 20));
        assert!(pace.is_quick());
    }
}
