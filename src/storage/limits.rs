//! A disk held back to what a volume of EBS does: token buckets for operations and bytes, of the volume and of the instance.
//!
//! Nothing waits here. Each access takes its tokens at once, also ones that are not there yet, and is told when they would have been:
//! whoever makes it waits until then. So accesses are let through in the order in which they came, and what they may owe is bounded by
//! how many are made at a time.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vm_memory::VolatileSlice;

use crate::ec2::volume_types::{Performance, Rate};
use crate::vmm::backend::{Access, BlockBackend, HeldBack, Throttle, Wait};

/// What may be taken at once after a pause, in seconds of the rate: less is lost to threads that wake up late.
const SLACK: f64 = 0.05;
/// The longest that one access is held back, whatever the figures say.
const LONGEST: Duration = Duration::from_secs(20);

/// Tokens that come in at a rate.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    most: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: f64, most: f64, now: Instant) -> Self {
        Bucket { rate, most, level: most, at: now }
    }

    /// Another rate, with what there is.
    fn set(&mut self, rate: f64, most: f64) {
        (self.rate, self.most, self.level) = (rate, most, self.level.min(most));
    }

    /// Take `count`. Answers in how many seconds they are there.
    fn take(&mut self, count: f64, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + since * self.rate).min(self.most) - count;
        if self.level >= 0.0 { 0.0 } else { -self.level / self.rate.max(f64::MIN_POSITIVE) }
    }
}

/// A rate that bursts.
#[derive(Debug)]
struct Meter {
    peak: Bucket,
    credits: Option<Bucket>,
}

impl Meter {
    fn new(rate: Rate, now: Instant) -> Self {
        let credits = rate.credits.map(|credits| Bucket::new(credits.rate, credits.most, now));
        Meter { peak: Bucket::new(rate.peak, rate.peak * SLACK, now), credits }
    }

    fn set(&mut self, rate: Rate, now: Instant) {
        self.peak.set(rate.peak, rate.peak * SLACK);
        match (&mut self.credits, rate.credits) {
            (Some(bucket), Some(credits)) => bucket.set(credits.rate, credits.most),
            (bucket, credits) => *bucket = credits.map(|credits| Bucket::new(credits.rate, credits.most, now)),
        }
    }

    fn take(&mut self, count: f64, now: Instant) -> f64 {
        let peak = self.peak.take(count, now);
        self.credits.as_mut().map_or(peak, |credits| credits.take(count, now).max(peak))
    }
}

#[derive(Debug)]
struct Meters {
    performance: Performance,
    operations: Option<Meter>,
    bytes: Meter,
}

impl Meters {
    fn new(performance: Performance, now: Instant) -> Self {
        let operations = performance.operations.map(|rate| Meter::new(rate, now));
        Meters { performance, operations, bytes: Meter::new(performance.bytes, now) }
    }

    /// Answers in how many seconds the operations are there, and the bytes.
    fn take(&mut self, operations: u64, length: u64, now: Instant) -> [f64; 2] {
        let bytes =
            if self.performance.whole_units { operations.saturating_mul(self.performance.unit) } else { length };
        let by_bytes = self.bytes.take(bytes as f64, now);
        [self.operations.as_mut().map_or(0.0, |meter| meter.take(operations as f64, now)), by_bytes]
    }
}

/// What all volumes of an instance can do together.
#[derive(Debug)]
pub struct InstanceLimits(Mutex<Meters>);

impl InstanceLimits {
    /// With full buckets.
    pub fn new(performance: Performance, now: Instant) -> Self {
        InstanceLimits(Mutex::new(Meters::new(performance, now)))
    }
}

/// Where the last access ended, and what one that goes on there may add to it for nothing.
#[derive(Debug, Default)]
struct Last {
    write: bool,
    end: u64,
    room: u64,
}

impl Last {
    /// The operations that an access counts as.
    fn count(&mut self, access: Access, unit: u64) -> u64 {
        let follows = access.write == self.write && access.offset == self.end;
        let free = if follows { self.room.min(access.length) } else { 0 };
        let operations = (access.length - free).div_ceil(unit);
        self.room = if follows { self.room - free } else { 0 };
        if operations > 0 {
            self.room = operations.saturating_mul(unit) - (access.length - free);
        }
        (self.write, self.end) = (access.write, access.offset.saturating_add(access.length));
        operations
    }
}

/// What one volume can do, and the instance that it is attached to.
#[derive(Debug)]
pub struct Limits {
    volume: Mutex<(Meters, Last)>,
    instance: Option<Arc<InstanceLimits>>,
    /// Microseconds: the volume's operations and bytes, the instance's.
    held_back: [AtomicU64; 4],
}

impl Limits {
    /// With full buckets.
    pub fn new(performance: Performance, instance: Option<Arc<InstanceLimits>>, now: Instant) -> Self {
        let volume = Mutex::new((Meters::new(performance, now), Last::default()));
        Limits { volume, instance, held_back: Default::default() }
    }

    /// The volume has grown, and does more now. What it has saved up it keeps.
    pub fn set(&self, performance: Performance, now: Instant) {
        let (meters, _) = &mut *lock(&self.volume);
        meters.performance = performance;
        meters.bytes.set(performance.bytes, now);
        match (&mut meters.operations, performance.operations) {
            (Some(meter), Some(rate)) => meter.set(rate, now),
            (meter, rate) => *meter = rate.map(|rate| Meter::new(rate, now)),
        }
    }
}

impl Throttle for Limits {
    fn take(&self, access: Access, now: Instant) -> Duration {
        let (operations, of_volume) = {
            let (meters, last) = &mut *lock(&self.volume);
            let operations = last.count(access, meters.performance.unit);
            (operations, meters.take(operations, access.length, now))
        };
        let of_instance = match &self.instance {
            Some(instance) => lock(&instance.0).take(operations, access.length, now),
            None => [0.0; 2],
        };
        let each = of_volume.into_iter().chain(of_instance).zip(&self.held_back);
        let (seconds, held_back) =
            each.fold(
                (0.0, None),
                |longest, (seconds, held_back)| {
                    if seconds > longest.0 { (seconds, Some(held_back)) } else { longest }
                },
            );
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST);
        if let Some(held_back) = held_back {
            held_back.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
        }
        time
    }

    fn held_back(&self) -> HeldBack {
        let [volume_operations, volume_bytes, instance_operations, instance_bytes] =
            self.held_back.each_ref().map(|microseconds| microseconds.load(Ordering::Relaxed));
        HeldBack { volume_operations, volume_bytes, instance_operations, instance_bytes }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Numbers, each of them good by itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk with limits.
pub struct Limited {
    disk: Arc<dyn BlockBackend>,
    limits: Arc<Limits>,
}

impl Limited {
    /// Hold accesses to `disk` back.
    pub fn new(disk: Arc<dyn BlockBackend>, limits: Arc<Limits>) -> Self {
        Limited { disk, limits }
    }
}

impl BlockBackend for Limited {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read(&self, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        self.disk.read(to, offset, wait)
    }

    fn write(&self, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
        self.disk.write(from, offset, wait)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }

    fn write_zeroes(&self, offset: u64, length: u64, deallocate: bool) -> io::Result<()> {
        self.disk.write_zeroes(offset, length, deallocate)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.discard(offset, length)
    }

    fn throttle(&self) -> Option<Arc<dyn Throttle>> {
        Some(self.limits.clone())
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
