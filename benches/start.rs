//! From exec to the first `KVM_RUN` of a 1 GiB instance (t3.micro), as a whole process: store, image, volume, metadata
//! service, network, kernel, machine. Prints one JSON object.
//!
//! `cargo bench --bench start [-- RUNS]`; needs /dev/kvm, a software KVM will do, and `target/images/tiny.raw`
//! (`guest-images/build tiny -o target/images/tiny.raw`). Each run is this program executed anew.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use amiable::ec2::instance_types;
use amiable::ec2::metadata_options::MetadataOptions;
use amiable::host::running;
use amiable::host::session::Update;
use amiable::host::stage::Stage;
use amiable::region::model::ShutdownBehavior;
use amiable::region::paths::Paths;
use amiable::region::{ImportRequest, LaunchParameters, LaunchRequest, Region};
use rustix::time::{ClockId, clock_gettime};

const HOME: &str = "AMIABLE_BENCH_HOME";
const BEGAN: &str = "AMIABLE_BENCH_BEGAN";

fn nanoseconds() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

fn main() {
    match std::env::var(HOME) {
        Ok(home) => launch(Path::new(&home)),
        Err(_) => measure(),
    }
}

/// One launch, up to the first entry into the guest; prints how many nanoseconds after exec that was.
fn launch(home: &Path) {
    let started = Instant::now();
    let mut region = Region::open(Paths::under(home)).unwrap();
    let request = LaunchRequest {
        image: region.image("tiny").unwrap(),
        instance_type: instance_types::find("t3.micro").unwrap(),
        metadata_options: MetadataOptions::default(),
        tags: Vec::new(),
        security_groups: Vec::new(),
        private_ip: None,
        root_size: None,
        volumes: Vec::new(),
        shutdown_behavior: ShutdownBehavior::Stop,
        termination_protection: false,
        emulated: false,
        bound_to_command: false,
        parameters: LaunchParameters {
            user_data: Some(b"#!/bin/sh\n".to_vec()),
            throw_away: true,
            ..LaunchParameters::default()
        },
    };
    let launch = region.run_instances(&request, 1).unwrap().pop().unwrap();
    let records = region.paths().instance(&launch.instance.instance_id);
    let id = launch.instance.instance_id.clone();
    let mut running = running::start(launch.spec, &records, started).unwrap();
    let began: i128 = std::env::var(BEGAN).unwrap().parse().unwrap();
    loop {
        match running.session.next(Duration::from_secs(10)) {
            Some(Update::Stage(mark)) if mark.stage == Stage::Machine => break,
            Some(Update::Ended(end)) => panic!("the instance ended: {end:?}"),
            Some(_) => {}
            None => panic!("the guest did not start"),
        }
    }
    println!("{}", nanoseconds() - began);
    drop(running);
    drop(launch.lock);
    region.terminate_instance(&id).unwrap();
}

fn measure() {
    let runs: usize = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(15);
    let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images/tiny.raw");
    if !disk.exists() || !Path::new("/dev/kvm").exists() {
        eprintln!("SKIPPED: needs /dev/kvm and {}", disk.display());
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut region = Region::open(Paths::under(home.path())).unwrap();
    let request = ImportRequest {
        file: &disk,
        name: "tiny",
        source: None,
        format: None,
        root_device_name: "/dev/xvda",
        replace: false,
    };
    region.import_image(&request, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let mut times: Vec<f64> = (0..=runs)
        .map(|_| {
            let out = Command::new(std::env::current_exe().unwrap())
                .env(HOME, home.path())
                .env(BEGAN, nanoseconds().to_string())
                .output()
                .unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8_lossy(&out.stdout).trim().parse::<f64>().unwrap() / 1e6
        })
        // The first warms the page cache.
        .skip(1)
        .collect();
    times.sort_by(f64::total_cmp);
    let (min, median, max) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{}",
        serde_json::json!({ "exec to first KVM_RUN, 1 GiB": { "unit": "ms", "runs": runs, "min": min, "median": median, "max": max } })
    );
}
