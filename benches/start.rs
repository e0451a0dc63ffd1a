//! From exec to the first `KVM_RUN` of a 1 GiB instance (t3.micro): what a user gets from `amiable run`, whole processes with the
//! region's store, image, volume, key, metadata service, network, kernel and machine. Prints one JSON object a binary.
//!
//! `cargo bench --bench start [-- RUNS [BINARY…]]`; needs /dev/kvm, a software KVM will do, and `target/images/tiny.raw`
//! (`guest-images/build tiny -o target/images/tiny.raw`). Without a binary it measures the one that cargo builds for it; several
//! take turns, so that whatever else the machine does meets all of them.
//!
//! Two figures for each. "told": when the command's line about the first `KVM_RUN` can be read, an upper bound, for it includes the
//! telling. "main": from the command's `main` to the first `KVM_RUN` as amiable itself has it, a lower bound by the kernel's exec
//! and the C library's start (0.3 to 0.5 ms).
//!
//! `chrt -f 1 cargo bench …` shows what a machine takes that does nothing else: what runs so goes before all that does not. It says
//! nothing about memory, though: in a virtual machine whose host takes free pages away, a start that gets such pages waits for the
//! host to give them back, for up to ten times as long as all the rest takes.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// One binary and what it took.
struct Candidate {
    binary: PathBuf,
    home: tempfile::TempDir,
    told: Vec<f64>,
    main: Vec<f64>,
}

impl Candidate {
    fn new(binary: PathBuf, disk: &Path) -> Self {
        let new = Candidate { binary, home: tempfile::tempdir().unwrap(), told: Vec::new(), main: Vec::new() };
        let import = new.command().args(["image", "import", "--name", "tiny"]).arg(disk).output().unwrap();
        assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
        new
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("AMIABLE_HOME", self.home.path()).env("AMIABLE_ANY_KVM", "1").env_remove("AMIABLE_EMULATE");
        command
    }

    /// One launch. A stock kernel gets nowhere on a software KVM: the instance is ended as soon as it runs.
    fn launch(&mut self) {
        let mut command = self.command();
        command.args(["run", "tiny", "-t", "t3.micro", "--throw-away", "--rm", "--quiet", "--timings", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut running = command.spawn().unwrap();
        let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        while let Some(Ok(line)) = lines.next() {
            if line.contains("  machine ") {
                self.told.push(began.elapsed().as_secs_f64() * 1e3);
                break;
            }
            said.push(line);
        }
        // More than once: whether the guest would power off by itself is not the question.
        let pid = Pid::from_child(&running);
        while running.try_wait().unwrap().is_none() {
            let _ = kill_process(pid, Signal::INT);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        said.extend(lines.map_while(Result::ok));
        let mut out = String::new();
        running.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let stages: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}\n{}", said.join("\n")));
        let machine = stages["Stages"].as_array().unwrap().iter().find(|s| s["Stage"] == "machine").unwrap();
        self.main.push(machine["Milliseconds"].as_f64().unwrap());
    }
}

fn figures(times: &[f64]) -> Value {
    // The first warms the page cache.
    let mut times = times.get(1..).unwrap_or_default().to_vec();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    json!({ "unit": "ms", "runs": times.len(), "min": at(0), "p10": at(10), "p25": at(25), "median": at(50), "max": at(100) })
}

fn main() {
    // Cargo adds an option of its own.
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--")).peekable();
    let runs: usize = arguments.next_if(|a| a.parse::<usize>().is_ok()).map_or(15, |a| a.parse().unwrap());
    let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images/tiny.raw");
    if !disk.exists() || !Path::new("/dev/kvm").exists() {
        eprintln!("SKIPPED: needs /dev/kvm and {}", disk.display());
        return;
    }
    let mut binaries: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    if binaries.is_empty() {
        binaries.push(env!("CARGO_BIN_EXE_amiable").into());
    }
    let mut candidates: Vec<_> = binaries.into_iter().map(|binary| Candidate::new(binary, &disk)).collect();
    for _ in 0..=runs.max(1) {
        candidates.iter_mut().for_each(Candidate::launch);
    }
    for Candidate { binary, told, main, .. } in candidates {
        let what = json!({ "binary": binary, "told": figures(&told), "main": figures(&main) });
        println!("{}", json!({ "exec to first KVM_RUN, 1 GiB": what }));
    }
}
