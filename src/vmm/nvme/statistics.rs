//! Counters of I/O, and Amazon's log page of them (log page D0h as `ebsnvme` and the EBS CSI driver read it).
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::vmm::backend::HeldBack;

/// Bins of a latency histogram: up to 1 µs, then a power of two each; the last is open.
const BINS: usize = 28;
const BIN_SIZE: usize = 24;
/// Bytes of the log page.
pub const LOG_SIZE: usize = 4096;
const READ_HISTOGRAM: usize = 512;
const WRITE_HISTOGRAM: usize = READ_HISTOGRAM + 8 + 64 * BIN_SIZE;

/// Magic number of an EBS volume's page.
pub const EBS_MAGIC: u32 = 0x3c23_b510;
/// Magic number of an instance-store disk's page.
pub const INSTANCE_STORE_MAGIC: u32 = 0xec2c_0d7e;

/// Counters of one direction.
#[derive(Debug, Default)]
pub struct Direction {
    operations: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    histogram: [AtomicU32; BINS],
}

/// Counters of one queue, so that vCPUs don't share cache lines.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Reads.
    pub read: Direction,
    /// Writes.
    pub write: Direction,
}

impl Direction {
    /// Count an operation.
    pub fn count(&self, bytes: u64, time: Duration) {
        self.operations.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Relaxed);
        let bin = (u64::BITS - (time.as_micros() as u64).leading_zeros()).min(BINS as u32 - 1);
        if let Some(bin) = self.histogram.get(bin as usize) {
            bin.fetch_add(1, Relaxed);
        }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Relaxed)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

/// The log page over all queues.
pub fn log_page(queues: &[Statistics], magic: u32, in_flight: u64, held: HeldBack) -> Vec<u8> {
    let sum = |value: &dyn Fn(&Statistics) -> u64| queues.iter().map(value).fold(0, u64::wrapping_add);
    let mut page = vec![0; LOG_SIZE];
    let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &magic.to_le_bytes());
    let totals = [
        sum(&|q| q.read.operations.load(Relaxed)),
        sum(&|q| q.write.operations.load(Relaxed)),
        sum(&|q| q.read.bytes.load(Relaxed)),
        sum(&|q| q.write.bytes.load(Relaxed)),
        sum(&|q| q.read.nanoseconds.load(Relaxed)) / 1000,
        sum(&|q| q.write.nanoseconds.load(Relaxed)) / 1000,
    ];
    for (i, total) in totals.iter().enumerate() {
        put(8 + 8 * i, &total.to_le_bytes());
    }
    let over = [held.volume_operations, held.volume_bytes, held.instance_operations, held.instance_bytes];
    for (i, microseconds) in over.iter().enumerate() {
        put(56 + 8 * i, &microseconds.to_le_bytes());
    }
    put(88, &in_flight.to_le_bytes());
    for (start, of) in [
        (READ_HISTOGRAM, (|q: &Statistics| &q.read) as fn(&Statistics) -> &Direction),
        (WRITE_HISTOGRAM, |q: &Statistics| &q.write),
    ] {
        put(start, &(BINS as u64).to_le_bytes());
        for bin in 0..BINS {
            let at = start + 8 + bin * BIN_SIZE;
            let lower = if bin == 0 { 0 } else { 1u64 << (bin - 1) };
            let upper = if bin == BINS - 1 { u64::MAX } else { 1 << bin };
            let count = queues.iter().map(|q| of(q).histogram[bin].load(Relaxed)).fold(0, u32::wrapping_add);
            put(at, &lower.to_le_bytes());
            put(at + 8, &upper.to_le_bytes());
            put(at + 16, &count.to_le_bytes());
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_page_layout() {
        let queues = [Statistics::default(), Statistics::default()];
        queues[0].read.count(4096, Duration::from_nanos(700));
        queues[1].read.count(8192, Duration::from_micros(5));
        queues[1].write.count(512, Duration::from_secs(500));
        let page = log_page(
            &queues,
            EBS_MAGIC,
            3,
            HeldBack { volume_bytes: 7, instance_operations: 8, ..HeldBack::default() },
        );
        let long = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        assert_eq!((page.len(), word(0)), (4096, 0x3c23_b510));
        assert_eq!([long(8), long(16), long(24), long(32), long(40)], [2, 1, 12288, 512, 5]);
        assert_eq!([long(56), long(64), long(72), long(80), long(88)], [0, 7, 8, 0, 3]);
        assert_eq!((long(512), long(512 + 8 + 64 * 24)), (28, 28));
        // 0.7 µs in [0, 1), 5 µs in [4, 8), 500 s in the open one.
        assert_eq!((long(520), long(528), word(536)), (0, 1, 1));
        assert_eq!((long(520 + 72), long(528 + 72), word(536 + 72)), (4, 8, 1));
        let last = 2064 + 27 * 24;
        assert_eq!((long(last), long(last + 8), word(last + 16)), (1 << 26, u64::MAX, 1));
    }
}
