use super::*;
use crate::ec2::volume_types::{Provisioned, VolumeType};

const GIB: u64 = 1 << 30;

fn provisioned(volume_type: VolumeType) -> Provisioned {
    Provisioned { volume_type, ..Provisioned::default() }
}

/// A volume and a clock that only this moves.
struct Rig {
    limits: Limits,
    start: Instant,
    now: Instant,
    at: u64,
}

impl Rig {
    fn new(performance: Performance, instance: Option<Arc<InstanceLimits>>) -> Rig {
        let now = Instant::now();
        Rig { limits: Limits::new(performance, instance, now), start: now, now, at: 0 }
    }

    /// One access after the other for so many seconds, each of them when the one before is through. Answers how many were made in
    /// a second.
    fn run(&mut self, seconds: f64, length: u64, random: bool) -> f64 {
        let (begin, mut count) = (self.now, 0);
        while (self.now - begin).as_secs_f64() < seconds {
            let offset =
                if random { (self.at.wrapping_mul(0x9e37_79b9) % (1 << 20)) * (2 << 20) } else { self.at * length };
            self.at += 1;
            self.now += self.limits.take(Access { write: true, offset, length }, self.now);
            count += 1;
        }
        f64::from(count) / (self.now - begin).as_secs_f64()
    }

    fn pause(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }
}

fn near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 0.02, "{found}, not {expected}");
}

#[test]
fn gp3_does_what_is_provisioned() {
    let performance = provisioned(VolumeType::Gp3).performance(8 * GIB);
    let mut rig = Rig::new(performance, None);
    near(rig.run(20.0, 4096, true), 3000.0);
    rig.pause(3600.0);
    // No burst: a pause saves up nothing to speak of.
    near(rig.run(20.0, 4096, true), 3000.0);
    let held_back = rig.limits.held_back();
    near(held_back.volume_operations as f64 / 1e6, 40.0);
    assert_eq!(held_back, HeldBack { volume_operations: held_back.volume_operations, ..HeldBack::default() });
    near(rig.run(20.0, 1 << 20, true), 125.0);
    near(rig.limits.held_back().volume_bytes as f64 / 1e6, 20.0);
    // Ones that follow one another are merged to 256 KiB, so the throughput counts.
    near(rig.run(20.0, 4096, false), 125.0 * 256.0);
}

#[test]
fn gp2_lives_on_its_credits_and_saves_them_up_again() {
    let mut rig = Rig::new(provisioned(VolumeType::Gp2).performance(100 * GIB), None);
    // 5.4 million, and 300 a second, at 3,000 a second: 2,000 seconds.
    near(rig.run(1990.0, 4096, true), 3000.0);
    rig.run(20.0, 4096, true);
    near(rig.run(1000.0, 4096, true), 300.0);
    rig.pause(900.0);
    near(rig.run(90.0, 4096, true), 3000.0);
    rig.run(20.0, 4096, true);
    near(rig.run(100.0, 4096, true), 300.0);
    assert!(rig.now > rig.start);
}

#[test]
fn hard_disks_do_bytes_and_random_accesses_cost_a_mebibyte() {
    let mut rig = Rig::new(provisioned(VolumeType::St1).performance(1024 * GIB), None);
    near(rig.run(20.0, 1 << 20, false), 250.0);
    near(rig.run(20.0, 128 << 10, false), 250.0 * 8.0);
    near(rig.run(20.0, 4096, true), 250.0);
    // 1 TiB is spent at 250 MiB/s, with 40 coming in.
    rig.run(5000.0, 1 << 20, false);
    near(rig.run(100.0, 1 << 20, false), 40.0);
}

#[test]
fn the_instance_holds_all_its_volumes_back_together() {
    let flat = |peak| Rate { peak, credits: None };
    let performance =
        Performance { operations: Some(flat(1000.0)), bytes: flat(1e9), unit: 256 << 10, whole_units: false };
    let now = Instant::now();
    let instance = Arc::new(InstanceLimits::new(performance, now));
    let gp3 = provisioned(VolumeType::Gp3).performance(8 * GIB);
    let volumes = [(); 2].map(|()| Limits::new(gp3, Some(instance.clone()), now));
    let (mut due, mut count) = ([now; 2], 0);
    // Whoever may first goes first.
    loop {
        let next = usize::from(due[1] < due[0]);
        let at = due[next];
        if (at - now).as_secs_f64() > 10.0 {
            break;
        }
        count += 1;
        due[next] = at + volumes[next].take(Access { write: false, offset: count << 30, length: 4096 }, at);
    }
    near(count as f64 / 10.0, 1000.0);
    assert!(volumes.iter().all(|volume| volume.held_back().instance_operations > 0));
}

#[test]
fn growing_makes_it_faster_at_once() {
    let mut rig = Rig::new(provisioned(VolumeType::Gp2).performance(2000 * GIB), None);
    near(rig.run(10.0, 4096, true), 6000.0);
    rig.limits.set(provisioned(VolumeType::Gp2).performance(4000 * GIB), rig.now);
    near(rig.run(10.0, 4096, true), 12_000.0);
}

#[test]
fn no_access_waits_for_ever() {
    let rate = Rate { peak: f64::MIN_POSITIVE, credits: None };
    let performance = Performance { operations: Some(rate), bytes: rate, unit: 1, whole_units: true };
    let now = Instant::now();
    let limits = Limits::new(performance, None, now);
    for n in 0..100 {
        assert!(limits.take(Access { write: true, offset: n, length: u64::MAX >> 8 }, now) <= LONGEST);
    }
    // A clock that another thread read before is no harm.
    limits.take(Access { write: true, offset: 0, length: 0 }, now - Duration::from_millis(1));
}
