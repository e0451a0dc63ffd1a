//! The life of instances: launched, stopped, started, terminated, and killed. The guest is the payload of `common::payload`, so a
//! KVM in software does; processes, store, volumes and records are the real ones.

#[path = "common/payload.rs"]
mod payload;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A region of its own with one image, and the payload for a kernel.
struct Home {
    directory: tempfile::TempDir,
    payload: PathBuf,
}

/// `None` with a loud word where something is missing.
fn home(test: &str) -> Option<Home> {
    let disk = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/images/tiny.raw");
    if !disk.exists() {
        eprintln!("SKIPPED: {test} needs {}: tests/run makes it", disk.display());
        return None;
    }
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("SKIPPED: {test} needs a /dev/kvm, one in software will do");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let payload = payload::write(directory.path());
    let home = Home { directory, payload };
    home.ok(&["image", "import", disk.to_str().unwrap(), "--name", "tiny"]);
    Some(home)
}

impl Home {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amiable"));
        command.args(arguments);
        command.env("AMIABLE_HOME", self.directory.path().join("home")).env("AMIABLE_ANY_KVM", "1");
        command.env_remove("AMIABLE_EMULATE");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        println!(
            "$ amiable {}\n{}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {:?}", output.status);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn fails(&self, arguments: &[&str], status: i32, word: &str) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(word), "{arguments:?} says {text:?}, not {word:?}");
    }

    /// Launch in the background.
    fn launch(&self, more: &[&str]) -> String {
        let payload = self.payload.to_str().unwrap();
        let mut arguments = vec!["run", "tiny", "-t", "t2.nano", "--detach", "--kernel", payload];
        arguments.extend(more);
        self.ok(&arguments)
    }

    fn describe(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["describe", id, "-o", "json"])).unwrap()
    }

    fn state(&self, id: &str) -> String {
        self.describe(id)["State"]["Name"].as_str().unwrap().to_owned()
    }

    fn process(&self, id: &str) -> i32 {
        self.describe(id)["Amiable"]["ProcessId"].as_i64().unwrap() as i32
    }

    fn kill(&self, pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    fn volumes(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("home/data/volumes")).map_or(0, |entries| entries.count())
    }

    /// Type on the guest's console.
    fn types(&self, id: &str, keys: &str) {
        use std::io::Write;
        let mut attached = self
            .command(&["console", id, "--attach"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        attached.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
        attached.wait().unwrap();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Whatever a failed test left running.
        let list = self.command(&["ls", "-o", "json"]).output().unwrap();
        let list: Value = serde_json::from_slice(&list.stdout).unwrap_or_default();
        for instance in list["Instances"].as_array().into_iter().flatten() {
            let id = instance["InstanceId"].as_str().unwrap();
            let _ = self.command(&["modify", id, "--termination-protection", "false"]).output();
            let _ = self.command(&["terminate", id]).output();
        }
    }
}

/// Wait for something that another process does.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < limit, "not within a minute: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn an_instance_lives_stops_starts_and_ends() {
    let Some(home) = home("an_instance_lives") else { return };
    let id = home.launch(&["--name", "web", "--tag", "env=dev"]);
    assert!(id.starts_with("i-") && id.len() == 19, "{id}");
    assert_eq!(home.state("web"), "running");
    assert!(home.ok(&["ls"]).contains("running"));
    let before = home.describe("web");
    assert!(home.process(&id) > 0);
    home.fails(&["modify", "web", "-t", "t2.micro"], 254, "IncorrectInstanceState");
    home.fails(&["start", "web"], 254, "IncorrectInstanceState");

    assert_eq!(home.ok(&["stop", "--force", "web"]), format!("{id}  running -> stopped"));
    let stopped = home.describe(&id);
    assert_eq!(stopped["State"]["Code"], 80);
    assert_eq!(stopped["StateReason"]["Code"], "Client.UserInitiatedShutdown");
    assert!(stopped["StateTransitionReason"].as_str().unwrap().starts_with("User initiated (20"));
    assert!(stopped["Amiable"]["ProcessId"].is_null());
    assert_eq!(home.ok(&["stop", "web"]), format!("{id}  stopped -> stopped"));
    home.fails(&["reboot", "web"], 254, "IncorrectInstanceState");

    home.ok(&["modify", "web", "-t", "t2.micro", "--termination-protection", "true"]);
    assert_eq!(home.ok(&["start", &id[..10]]), format!("{id}  stopped -> running"));
    let again = home.describe(&id);
    assert_eq!(again["InstanceType"], "t2.micro");
    for kept in ["PrivateIpAddress", "NetworkInterfaceId", "RootVolumeId", "ReservationId"] {
        assert_eq!(before[kept], again[kept], "{kept}");
    }
    home.fails(&["terminate", &id], 254, "OperationNotPermitted");
    home.ok(&["modify", &id, "--termination-protection", "false"]);
    assert_eq!(home.volumes(), 2);
    assert_eq!(home.ok(&["terminate", "web"]), format!("{id}  running -> terminated"));
    assert_eq!(home.ok(&["terminate", &id]), format!("{id}  terminated -> terminated"));
    assert_eq!(home.volumes(), 0);
    assert!(!home.ok(&["ls"]).contains(&id));
    home.fails(&["start", &id], 254, "IncorrectInstanceState");
    home.fails(&["describe", "nobody"], 254, "InvalidInstanceID.NotFound");
}

#[test]
fn a_guest_that_powers_off_stops_or_terminates() {
    let Some(home) = home("a_guest_that_powers_off") else { return };
    let stops = home.launch(&[]);
    home.types(&stops, "p");
    home.ok(&["wait", "stopped", &stops, "--timeout", "60s"]);
    assert_eq!(home.describe(&stops)["StateReason"]["Code"], "Client.InstanceInitiatedShutdown");
    let ends = home.launch(&["--shutdown-behavior", "terminate"]);
    home.types(&ends, "p");
    home.ok(&["wait", "terminated", &ends, "--timeout", "60s"]);
    assert_eq!(home.describe(&ends)["StateReason"]["Code"], "Client.InstanceInitiatedShutdown");
}

#[test]
fn a_guest_that_resets_runs_on() {
    let Some(home) = home("a_guest_that_resets") else { return };
    let id = home.launch(&[]);
    let pid = home.process(&id);
    home.types(&id, "r");
    until("the guest greets a second time", || home.ok(&["console", &id]).matches('R').count() == 2);
    assert_eq!((home.state(&id).as_str(), home.process(&id)), ("running", pid));
}

#[test]
fn a_killed_process_leaves_a_stopped_instance() {
    let Some(home) = home("a_killed_process") else { return };
    let id = home.launch(&[]);
    home.kill(home.process(&id));
    until("the process is gone", || home.state(&id) == "stopped");
    assert_eq!(home.describe(&id)["StateReason"]["Code"], "Server.InternalError");
    assert_eq!(home.ok(&["start", &id]), format!("{id}  stopped -> running"));
    assert_eq!(home.ok(&["terminate", &id]), format!("{id}  running -> terminated"));
}

#[test]
fn several_are_launched_at_once() {
    let Some(home) = home("several_are_launched") else { return };
    let ids = home.launch(&["-n", "3"]);
    let ids: Vec<&str> = ids.lines().collect();
    let described: Vec<Value> = ids.iter().map(|id| home.describe(id)).collect();
    for (index, instance) in described.iter().enumerate() {
        assert_eq!(instance["AmiLaunchIndex"], index);
        assert_eq!(instance["ReservationId"], described[0]["ReservationId"]);
        assert_eq!(instance["State"]["Name"], "running");
    }
    assert_ne!(described[0]["PrivateIpAddress"], described[1]["PrivateIpAddress"]);
    let mut terminate = vec!["terminate"];
    terminate.extend(&ids);
    home.ok(&terminate);
}

#[test]
fn a_command_that_is_killed_takes_its_throw_away_instance_with_it() {
    let Some(home) = home("a_command_that_is_killed") else { return };
    let payload = home.payload.to_str().unwrap();
    let mut run = home
        .command(&["run", "tiny", "-t", "t2.nano", "--rm", "--kernel", payload])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut greeting = [0; 1];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut greeting).unwrap();
    assert_eq!(&greeting, b"R");
    until("its record says so", || home.ok(&["ls"]).contains("running"));
    run.kill().unwrap();
    run.wait().unwrap();
    until("the instance is gone", || !home.ok(&["ls"]).contains("i-"));
    assert_eq!(home.volumes(), 0);
}

#[test]
fn a_command_that_is_killed_leaves_its_instance_running() {
    let Some(home) = home("a_command_that_is_killed_leaves") else { return };
    let payload = home.payload.to_str().unwrap();
    let mut run = home
        .command(&["run", "tiny", "-t", "t2.nano", "--name", "kept", "--kernel", payload])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut greeting = [0; 1];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut greeting).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    until("its record says so", || home.state("kept") == "running");
    home.types("kept", "x");
    until("the guest answers", || home.ok(&["console", "kept"]).contains('x'));
    home.ok(&["terminate", "kept"]);
}

#[test]
fn volumes_come_and_go_and_make_images() {
    let Some(home) = home("volumes_come_and_go") else { return };
    home.launch(&["--name", "web", "--volume", "1G:/dev/sdh"]);
    let extra = home.ok(&["volume", "create", "--size", "2G", "--name", "data"]);
    home.fails(&["volume", "attach", "data", "web", "--device", "/dev/sdh"], 254, "already in use");
    home.fails(&["volume", "attach", "data", "web", "--device", "/dev/sda1"], 254, "not a valid EBS device name");
    assert_eq!(home.ok(&["volume", "attach", "data", "web"]), "/dev/sdf");
    home.fails(&["volume", "attach", "data", "web"], 254, "VolumeInUse");
    home.fails(&["volume", "rm", "data"], 254, "VolumeInUse");
    home.ok(&["volume", "resize", "data", "3G"]);
    home.fails(&["volume", "resize", "data", "1G"], 254, "cannot be smaller");
    let snapshot = home.ok(&["snapshot", "create", "data", "--name", "first"]);
    assert!(snapshot.starts_with("snap-"), "{snapshot}");
    let root = home.describe("web")["RootVolumeId"].as_str().unwrap().to_owned();
    home.fails(&["volume", "detach", &root], 254, "OperationNotPermitted");
    // This guest does not know of hot-plug.
    home.ok(&["volume", "detach", "--force", "data"]);
    home.fails(&["volume", "detach", "data"], 254, "IncorrectState");

    let image = home.ok(&["image", "create", "--from", "web", "--name", "golden", "--no-reboot"]);
    home.fails(&["image", "create", "--from", "web", "--name", "golden", "--no-reboot"], 254, "Duplicate");
    assert_eq!(home.state("web"), "running");
    let payload = home.payload.to_str().unwrap();
    let second = home.ok(&["run", "golden", "-t", "t2.nano", "-d", "--kernel", payload]);
    // Whatever was made of something outlives it.
    home.ok(&["image", "rm", "tiny"]);
    home.ok(&["terminate", "web"]);
    assert_eq!(home.ok(&["stop", "--force", &second]), format!("{second}  running -> stopped"));
    assert_eq!(home.ok(&["start", &second]), format!("{second}  stopped -> running"));
    home.ok(&["image", "copy", "golden", "--name", "silver"]);
    home.ok(&["image", "rm", "golden"]);
    let raw = home.directory.path().join("silver.raw");
    let sum = home.ok(&["image", "export", "silver", raw.to_str().unwrap()]);
    let check = Command::new("sha256sum").arg(&raw).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&check.stdout).trim(), sum);
    home.ok(&["image", "import", raw.to_str().unwrap(), "--name", "again"]);
    home.ok(&["terminate", &second]);
    home.ok(&["volume", "rm", &extra]);
    home.ok(&["snapshot", "rm", &snapshot]);
    home.ok(&["image", "rm", "silver"]);
    // The snapshots of the root volume are the last that need anything.
    let list: Value = serde_json::from_str(&home.ok(&["snapshot", "ls", "-o", "json"])).unwrap();
    for snapshot in list["Snapshots"].as_array().unwrap() {
        home.ok(&["snapshot", "rm", snapshot["SnapshotId"].as_str().unwrap()]);
    }
    assert_eq!(home.volumes(), 0);
    assert!(!image.is_empty());
}

#[test]
fn volumes_have_types_and_an_instance_their_limits() {
    let Some(home) = home("volumes_have_types") else { return };
    fn create<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["volume", "create", "--size"], arguments].concat()
    }
    home.fails(&create(&["8G", "--volume-type", "io1"]), 254, "must contain the parameter iops");
    home.fails(&create(&["8G", "--volume-type", "gp2", "--iops", "3000"]), 254, "not supported for gp2");
    home.fails(&create(&["8G", "--volume-type", "st1"]), 254, "too small; minimum is 125GiB");
    home.fails(&create(&["8G", "--volume-type", "gp4"]), 252, "expected gp2");
    home.ok(&create(&["125G", "--volume-type", "st1", "--name", "slow"]));
    let id = home.launch(&["--limits", "--name", "web", "--root-size", "8G", "--iops", "4000", "--throughput", "200"]);
    let root = home.describe("web")["RootVolumeId"].as_str().unwrap().to_owned();
    let describe = |volume: &str| -> Value {
        serde_json::from_str(&home.ok(&["volume", "describe", volume, "-o", "json"])).unwrap()
    };
    let volume = describe(&root);
    assert_eq!(
        (&volume["VolumeType"], &volume["Iops"], &volume["Throughput"]),
        (&"gp3".into(), &4000.into(), &200.into())
    );
    assert_eq!((&describe("slow")["VolumeType"], &describe("slow")["Iops"]), (&"st1".into(), &Value::Null));
    home.ok(&["volume", "attach", "slow", "web"]);
    home.ok(&["volume", "resize", "slow", "200G"]);
    home.ok(&["snapshot", "create", "slow"]);
    home.ok(&["volume", "detach", "--force", "slow"]);
    home.ok(&["stop", "--force", &id]);
    home.ok(&["start", &id]);
    home.clean();
}

/// What is killed where, and in which state an instance may be found after that.
const RUN: &[(&str, &[&str])] = &[
    ("run: in the transaction", &["gone"]),
    ("run: recorded", &["gone"]),
    ("run: process spawned", &["gone"]),
    ("run: order given", &["running"]),
    ("process: order read", &["gone"]),
    ("process: guest runs", &["gone"]),
    ("process: recorded as running", &["stopped"]),
];
const STOP: &[(&str, &[&str])] = &[("stop: recorded", &["stopped"])];
const TERMINATE: &[(&str, &[&str])] = &[("terminate: recorded", &["gone"])];
const END: &[&str] =
    &["process: guest ended", "process: end recorded", "terminate: record changed", "terminate: volumes removed"];

impl Home {
    /// Run a command that kills itself, or its instance's process, at a step.
    fn killed(&self, step: &str, arguments: &[&str]) {
        let output = self.command(arguments).env("AMIABLE_DIE_AT", step).output().unwrap();
        println!("killed at '{step}': amiable {}: {:?}", arguments.join(" "), output.status);
        assert!(!output.status.success(), "nothing was killed at '{step}': {arguments:?}");
    }

    /// The state of the only instance there is, when it has settled: what is on its way is waited for.
    fn settled(&self) -> String {
        let mut state = String::new();
        until("it settles", || {
            let list: Value = serde_json::from_str(&self.ok(&["ls", "-o", "json"])).unwrap();
            let instances = list["Instances"].as_array().unwrap();
            state = instances.first().map_or("gone".to_owned(), |i| i["State"]["Name"].as_str().unwrap().to_owned());
            matches!(state.as_str(), "gone" | "stopped" | "running")
        });
        state
    }

    /// Nothing is left when the instance is terminated: no volume, no image's file that is not an image's.
    fn clean(&self) {
        let list: Value = serde_json::from_str(&self.ok(&["ls", "-o", "json"])).unwrap();
        for instance in list["Instances"].as_array().unwrap() {
            self.ok(&["terminate", instance["InstanceId"].as_str().unwrap()]);
        }
        let volumes: Value = serde_json::from_str(&self.ok(&["volume", "ls", "-o", "json"])).unwrap();
        for volume in volumes["Volumes"].as_array().unwrap() {
            self.ok(&["volume", "rm", volume["VolumeId"].as_str().unwrap()]);
        }
        let snapshots: Value = serde_json::from_str(&self.ok(&["snapshot", "ls", "-o", "json"])).unwrap();
        for snapshot in snapshots["Snapshots"].as_array().unwrap() {
            self.ok(&["snapshot", "rm", snapshot["SnapshotId"].as_str().unwrap()]);
        }
    }

    /// Files that nothing refers to may be left by a kill; `prune` must find all of them, once they are old.
    fn age_and_prune(&self) {
        let volumes = self.directory.path().join("home/data/volumes");
        for entry in std::fs::read_dir(volumes).into_iter().flatten().flatten() {
            let old = std::time::SystemTime::now() - Duration::from_secs(7200);
            std::fs::File::options().write(true).open(entry.path()).unwrap().set_modified(old).unwrap();
        }
        self.ok(&["prune"]);
        assert_eq!(self.volumes(), 0);
    }
}

#[test]
fn a_kill_at_any_step_of_an_instance_s_life_loses_nothing() {
    let Some(home) = home("a_kill_at_any_step") else { return };
    let payload = home.payload.to_str().unwrap();
    let run = ["run", "tiny", "-t", "t2.nano", "--detach", "--kernel", payload];
    let mut points = 0;
    for (step, states) in RUN {
        home.killed(step, &run);
        let state = home.settled();
        assert!(states.contains(&state.as_str()), "after '{step}': {state}");
        if state == "stopped" {
            let list: Value = serde_json::from_str(&home.ok(&["ls", "-o", "json"])).unwrap();
            home.ok(&["start", list["Instances"][0]["InstanceId"].as_str().unwrap()]);
        }
        home.clean();
        points += 1;
    }
    for (step, states) in STOP {
        let id = home.launch(&[]);
        home.killed(step, &["stop", "--force", &id]);
        // The next command reminds the process; this guest does not hear the power button.
        home.ok(&["stop", "--force", &id]);
        let state = home.settled();
        assert!(states.contains(&state.as_str()), "after '{step}': {state}");
        home.ok(&["start", &id]);
        home.clean();
        points += 1;
    }
    for (step, states) in TERMINATE {
        let id = home.launch(&[]);
        home.killed(step, &["terminate", &id]);
        let state = home.settled();
        assert!(states.contains(&state.as_str()), "after '{step}': {state}");
        points += 1;
    }
    for step in END {
        // The process has the step's name from its launch, and comes there when it is terminated.
        let output = home.command(&run).env("AMIABLE_DIE_AT", step).output().unwrap();
        assert!(output.status.success());
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        home.run(&["terminate", &id]);
        assert_eq!(home.settled(), "gone", "after '{step}'");
        assert_eq!(home.state(&id), "terminated");
        points += 1;
    }
    home.clean();
    home.age_and_prune();
    println!("{points} points");
}

#[test]
fn a_kill_at_any_step_of_a_volume_s_life_loses_nothing() {
    let Some(home) = home("a_kill_at_any_step_of_a_volume") else { return };
    let id = home.launch(&[]);
    let root = home.describe(&id)["RootVolumeId"].as_str().unwrap().to_owned();
    let data = home.ok(&["volume", "create", "--size", "1G"]);
    let mut points = 0;
    for step in ["attach: recorded", "attach: done by the process"] {
        home.killed(step, &["volume", "attach", &data, &id]);
        // The same command goes on with it.
        assert_eq!(home.ok(&["volume", "attach", &data, &id]), "/dev/sdf");
        home.ok(&["volume", "detach", "--force", &data]);
        points += 1;
    }
    for step in ["detach: recorded", "detach: done by the process"] {
        home.ok(&["volume", "attach", &data, &id]);
        home.killed(step, &["volume", "detach", "--force", &data]);
        home.ok(&["volume", "detach", "--force", &data]);
        home.fails(&["volume", "detach", "--force", &data], 254, "IncorrectState");
        points += 1;
    }
    for step in ["snapshot: recorded", "snapshot: taken", "snapshot: completed"] {
        for volume in [&root, &data] {
            home.killed(step, &["snapshot", "create", volume]);
            // Whether it came to be or not, the next one does, and the instance runs on.
            home.ok(&["snapshot", "create", volume]);
            assert_eq!(home.state(&id), "running");
            points += 1;
        }
    }
    for step in ["image: to be recorded", "image: recorded"] {
        home.killed(step, &["image", "create", "--from", &id, "--name", "made", "--no-reboot"]);
        if home.run(&["image", "describe", "made"]).status.success() {
            home.ok(&["image", "rm", "made"]);
        }
        home.ok(&["image", "create", "--from", &id, "--name", "made", "--no-reboot"]);
        home.ok(&["image", "rm", "made"]);
        points += 1;
    }
    for step in ["fold: merged", "fold: recorded"] {
        for volume in [&root, &data] {
            for _ in 0..2 {
                let snapshot = home.ok(&["snapshot", "create", volume]);
                home.ok(&["snapshot", "create", volume]);
                home.ok(&["snapshot", "rm", &snapshot]);
            }
            // Of the root volume, while it is in use.
            home.killed(step, &["prune"]);
            home.ok(&["snapshot", "create", volume]);
            home.ok(&["prune"]);
            points += 1;
        }
    }
    // All layers are still what they were: it starts again.
    home.ok(&["stop", "--force", &id]);
    home.ok(&["start", &id]);
    home.clean();
    home.age_and_prune();
    println!("{points} points");
}
