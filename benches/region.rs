//! The region as a person meets it, in whole processes. Prints one JSON object.
//!
//! - `ls`, 10,000 instances: exec to exit of `amiable ls -o json` over a store that large.
//! - `run --detach`: exec to the first `KVM_RUN`, with the process that it starts, as that process recorded it.
//! - snapshot under load: how long the longest 4 KiB write of a thread took while a 10 GiB volume was snapshotted ten times, and the
//!   longest without snapshots.
//! - 20 instances at once: exec of the first command to the greeting of the last guest, and what all processes take of this machine's
//!   memory, each guest's own memory included.
//!
//! `cargo bench --bench region`, or with `-- snapshot` only that; the second and the last need /dev/kvm, one in software will do, and `target/images/tiny.raw`.

#[path = "../tests/common/payload.rs"]
mod payload;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use amiable::region::Region;
use amiable::region::paths::Paths;
use amiable::region::store::{InstanceRow, Store};
use amiable::storage::{Chain, OpenMode, VolumePaths};
use amiable::vmm::backend::{BlockBackend, Wait};
use serde_json::{Value, json};
use vm_memory::VolatileSlice;

const BINARY: &str = env!("CARGO_BIN_EXE_amiable");

fn amiable(home: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.env("AMIABLE_HOME", home).env("AMIABLE_ANY_KVM", "1").env_remove("AMIABLE_EMULATE");
    command
}

fn main() {
    let mut figures = serde_json::Map::new();
    figures.insert("longest 4 KiB write".into(), snapshot());
    if std::env::args().any(|argument| argument == "snapshot") {
        return println!("{}", Value::Object(figures));
    }
    figures.insert("ls, 10,000 instances".into(), list());
    let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images/tiny.raw");
    if disk.exists() && Path::new("/dev/kvm").exists() {
        let home = tempfile::tempdir().unwrap();
        let import =
            amiable(home.path()).args(["image", "import"]).arg(&disk).args(["--name", "tiny"]).output().unwrap();
        assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
        figures.insert("run --detach, exec to first KVM_RUN".into(), detach(home.path()));
        figures.insert("20 instances at once".into(), many(home.path()));
    } else {
        eprintln!("SKIPPED: running instances needs /dev/kvm and {}", disk.display());
    }
    println!("{}", Value::Object(figures));
}

fn summary(unit: &str, mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    json!({ "unit": unit, "runs": values.len(), "min": values[0], "median": values[values.len() / 2], "max": values[values.len() - 1] })
}

fn list() -> Value {
    const INSTANCES: usize = 10_000;
    let home = tempfile::tempdir().unwrap();
    let paths = Paths::under(home.path());
    drop(Region::open(paths.clone()).unwrap());
    let mut store = Store::open(&paths.store()).unwrap();
    store
        .transaction(|tables| -> Result<(), amiable::region::store::StoreError> {
            for number in 0..INSTANCES {
                let id = format!("i-{number:017x}");
                let address = format!("172.31.{}.{}", number / 250, number % 250 + 4);
                let body = json!({
                    "InstanceId": id, "ImageId": "ami-0123456789abcdef0", "InstanceType": "t3.small",
                    "State": { "Code": 80, "Name": "stopped" }, "LaunchTime": "2026-11-20T22:25:12Z",
                    "PrivateIpAddress": address, "PrivateDnsName": "ip-172-31-0-10.ec2.internal",
                    "NetworkInterfaceId": "eni-0123456789abcdef0", "MacAddress": "06:01:02:03:04:05",
                    "ReservationId": "r-0123456789abcdef0", "AmiLaunchIndex": 0, "RootVolumeId": "vol-0123456789abcdef0",
                    "RootDeviceName": "/dev/xvda", "Architecture": "x86_64", "Tags": [{ "Key": "Name", "Value": "web" }],
                    "MetadataOptions": amiable::ec2::metadata_options::MetadataOptions::default(),
                    "Amiable": { "Published": [] },
                });
                let row = InstanceRow {
                    instance_id: &id,
                    image_id: "ami-0123456789abcdef0",
                    state: "stopped",
                    private_ip: Some(&address),
                    launched: "2026-11-20T22:25:12Z",
                };
                tables.put_instance(row, &body)?;
            }
            Ok(())
        })
        .unwrap();
    drop(store);
    let run = || {
        let began = Instant::now();
        let output = amiable(home.path()).args(["ls", "-o", "json"]).output().unwrap();
        let took = began.elapsed().as_secs_f64() * 1e3;
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(list["Instances"].as_array().unwrap().len(), INSTANCES);
        took
    };
    summary("ms", (0..7).map(|_| run()).collect())
}

fn snapshot() -> Value {
    const SNAPSHOTS: usize = 10;
    let home = tempfile::tempdir().unwrap();
    let layer = |name: &str| VolumePaths::in_folder(home.path(), name);
    let size = 10u64 << 30;
    let volume = Chain::default().create(&layer("0"), size, OpenMode::ReadWrite).unwrap();
    // One writer at random places; `during` runs beside it.
    let longest = |during: &mut dyn FnMut()| {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (mut longest, mut at) = (Duration::ZERO, 1u64);
                let mut block = [7; 4096];
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let offset = (at >> 20) % (size / 4096) * 4096;
                    let began = Instant::now();
                    volume.write(&[VolatileSlice::from(&mut block[..])], offset, Wait::Allowed).unwrap();
                    longest = longest.max(began.elapsed());
                }
                longest
            });
            during();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            writer.join().unwrap().as_secs_f64() * 1e3
        })
    };
    let quiet = longest(&mut || std::thread::sleep(Duration::from_secs(2)));
    let mut took = Vec::new();
    let busy = longest(&mut || {
        for number in 1..=SNAPSHOTS {
            std::thread::sleep(Duration::from_millis(100));
            let began = Instant::now();
            volume.snapshot(&layer(&number.to_string())).unwrap();
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
    });
    json!({ "unit": "ms", "without snapshots": quiet, "with snapshots": busy, "a snapshot as a whole": summary("ms", took) })
}

fn detach(home: &Path) -> Value {
    let run = || {
        let began = Instant::now();
        let output =
            amiable(home).args(["run", "tiny", "-t", "t3.micro", "--detach", "--throw-away"]).output().unwrap();
        let whole = began.elapsed().as_secs_f64() * 1e3;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let records = Paths::under(home).instance(&id);
        let stages = std::fs::read_to_string(records.join("stages.jsonl")).unwrap();
        let machine =
            stages.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|s| s["stage"] == "machine");
        // Counted from the command's main function; until then a static program's exec takes what `whole` shows beside it.
        let ms = machine.unwrap()["ms"].as_f64().unwrap();
        let keys = Paths::under(home).identity_keys().join("keys.pem");
        let limit = Instant::now() + Duration::from_secs(30);
        while !keys.exists() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
        amiable(home).args(["terminate", &id]).output().unwrap();
        (ms, whole)
    };
    // The region's identity keys are made once, by the first instance, on a thread beside it; they cost a processor for a second.
    let keys = Paths::under(home).identity_keys().join("keys.pem");
    while !keys.exists() {
        run();
    }
    let (machine, whole): (Vec<f64>, Vec<f64>) = (0..15).map(|_| run()).unzip();
    json!({ "main to KVM_RUN": summary("ms", machine), "exec to exit": summary("ms", whole) })
}

fn many(home: &Path) -> Value {
    let payload = payload::write(home);
    let began = Instant::now();
    let output = amiable(home)
        .args(["run", "tiny", "-t", "t2.nano", "--detach", "--throw-away", "-n", "20", "--kernel"])
        .arg(&payload)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ids = String::from_utf8(output.stdout).unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    let paths = Paths::under(home);
    for id in &ids {
        while std::fs::metadata(paths.instance(id).join("console.log")).map_or(0, |meta| meta.len()) == 0 {
            std::thread::yield_now();
        }
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    let region = Region::open(paths).unwrap();
    let memory: u64 = ids.iter().filter_map(|id| pss(region.process_id(id)?)).sum();
    amiable(home).arg("terminate").args(&ids).output().unwrap();
    json!({ "until the last greets": { "unit": "ms", "value": took }, "memory of all": { "unit": "KiB", "value": memory } })
}

/// The proportional set size in KiB (proc(5)).
fn pss(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
}
