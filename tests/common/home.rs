//! What the tests on whole regions share: a region of its own with one image, and the payload for a guest, so a KVM in software does.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

#[path = "payload.rs"]
mod payload;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A region of its own with one image, and the payload for a kernel.
pub struct Home {
    pub directory: tempfile::TempDir,
    pub payload: PathBuf,
}

/// `None` with a loud word where something is missing.
pub fn home(test: &str) -> Option<Home> {
    home_in(test, |_| {})
}

/// The same, with its folder prepared before anything is in it.
pub fn home_in(test: &str, prepare: impl FnOnce(&Path)) -> Option<Home> {
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
    std::fs::create_dir(home.folder()).unwrap();
    prepare(&home.folder());
    home.ok(&["image", "import", disk.to_str().unwrap(), "--name", "tiny"]);
    Some(home)
}

impl Home {
    /// Where the region's files are.
    pub fn folder(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// A list in its JSON form: `ls`, `volume ls`.
    pub fn list(&self, of: &[&str], name: &str) -> Vec<Value> {
        let output = self.command(of).args(["-o", "json"]).output().unwrap();
        assert!(output.status.success(), "{of:?}: {}", String::from_utf8_lossy(&output.stderr));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list[name].as_array().unwrap().clone()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amiable"));
        command.args(arguments);
        command.env("AMIABLE_HOME", self.directory.path().join("home")).env("AMIABLE_ANY_KVM", "1");
        command.env_remove("AMIABLE_EMULATE");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        println!(
            "$ amiable {}\n{}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {:?}", output.status);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn fails(&self, arguments: &[&str], status: i32, word: &str) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(word), "{arguments:?} says {text:?}, not {word:?}");
    }

    /// Launch in the background.
    pub fn launch(&self, more: &[&str]) -> String {
        let payload = self.payload.to_str().unwrap();
        let mut arguments = vec!["run", "tiny", "-t", "t2.nano", "--detach", "--kernel", payload];
        arguments.extend(more);
        self.ok(&arguments)
    }

    pub fn describe(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["describe", id, "-o", "json"])).unwrap()
    }

    pub fn state(&self, id: &str) -> String {
        self.describe(id)["State"]["Name"].as_str().unwrap().to_owned()
    }

    pub fn process(&self, id: &str) -> i32 {
        self.describe(id)["Amiable"]["ProcessId"].as_i64().unwrap() as i32
    }

    pub fn kill(&self, pid: i32) {
        self.signal(pid, rustix::process::Signal::KILL);
    }

    pub fn signal(&self, pid: i32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn volumes(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("home/data/volumes")).map_or(0, |entries| entries.count())
    }

    /// Run a command that kills itself, or its instance's process, at a step.
    pub fn killed(&self, step: &str, arguments: &[&str]) {
        let output = self.command(arguments).env("AMIABLE_DIE_AT", step).output().unwrap();
        println!("killed at '{step}': amiable {}: {:?}", arguments.join(" "), output.status);
        assert!(!output.status.success(), "nothing was killed at '{step}': {arguments:?}");
    }

    /// Wait until the only instance is in one of these states, and answer which; `gone` is none at all. A process that was killed holds
    /// its lock until the last of its threads has ended, so what is found right after may still be the state before.
    pub fn settles(&self, after: &str, states: &[&str]) -> String {
        let mut state = String::new();
        until(&format!("after '{after}' it is one of {states:?}"), || {
            let list: Value = serde_json::from_str(&self.ok(&["ls", "-o", "json"])).unwrap();
            let instances = list["Instances"].as_array().unwrap();
            state = instances.first().map_or("gone".to_owned(), |i| i["State"]["Name"].as_str().unwrap().to_owned());
            states.contains(&state.as_str())
        });
        state
    }

    /// Nothing is left when the instance is terminated: no volume, no image's file that is not an image's.
    pub fn clean(&self) {
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
    pub fn age_and_prune(&self) {
        let volumes = self.directory.path().join("home/data/volumes");
        for entry in std::fs::read_dir(volumes).into_iter().flatten().flatten() {
            let old = std::time::SystemTime::now() - Duration::from_secs(7200);
            std::fs::File::options().write(true).open(entry.path()).unwrap().set_modified(old).unwrap();
        }
        self.ok(&["prune"]);
        assert_eq!(self.volumes(), 0);
    }

    /// Type on the guest's console.
    pub fn types(&self, id: &str, keys: &str) {
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
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < limit, "not within a minute: {what}");
        std::thread::yield_now();
    }
}
