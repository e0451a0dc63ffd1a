//! What the tests on real guests share: the static binary, a home of their own, the images, and the way to a KVM.
//!
//! Made by `tests/run`: the release binary for x86_64-unknown-linux-musl and `target/images/{tiny,debian-12}.raw`. A test
//! that lacks one of them says so loudly and is skipped.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

/// Where a built thing lies.
pub fn target(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path)
}

/// A home with both images, made once per test program; `None` with a loud word where something is missing.
pub fn lab(test: &str, image: &str) -> Option<&'static Lab> {
    static LAB: OnceLock<Lab> = OnceLock::new();
    for needed in ["x86_64-unknown-linux-musl/release/amiable", &format!("images/{image}.raw")] {
        if !target(needed).exists() {
            eprintln!("SKIPPED: {test} needs target/{needed}: tests/run makes it");
            return None;
        }
    }
    let lab = LAB.get_or_init(Lab::new);
    lab.import(image);
    Some(lab)
}

/// amiable with a home of its own.
pub struct Lab {
    home: tempfile::TempDir,
    emulate: bool,
}

impl Lab {
    fn new() -> Self {
        let home = tempfile::tempdir_in(target("")).unwrap();
        let mut lab = Lab { home, emulate: false };
        let doctor = lab.amiable(&["doctor"]).output().unwrap();
        lab.emulate = !String::from_utf8_lossy(&doctor.stdout)
            .lines()
            .any(|l| l.starts_with("ok") && l.contains("/dev/kvm is usable"));
        lab.tidy_up_at_the_end();
        eprintln!("real guests run {}", if lab.emulate { "in the emulated host" } else { "on this machine's KVM" });
        lab
    }

    /// The home is a static's, which nothing drops: a shell waits for this process's end, ends the emulated host that stays up, and
    /// deletes the home.
    fn tidy_up_at_the_end(&self) {
        let script = r#"while kill -0 "$1" 2>/dev/null; do sleep 1; done; "$2" emulate stop >/dev/null 2>&1; rm -rf "$AMIABLE_HOME""#;
        let binary = target("x86_64-unknown-linux-musl/release/amiable");
        // It outlives this process, so nobody here waits for it.
        #[expect(clippy::zombie_processes)]
        let _shell = Command::new("sh")
            .args(["-c", script, "tidy-up", &std::process::id().to_string()])
            .arg(binary)
            .env("AMIABLE_HOME", self.home.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
    }

    fn import(&self, image: &str) {
        if !self.amiable(&["image", "describe", image]).output().unwrap().status.success() {
            let file = target(&format!("images/{image}.raw"));
            let import = self.amiable(&["image", "import", file.to_str().unwrap(), "--name", image]).output().unwrap();
            assert!(import.status.success(), "{}", text(&import.stderr));
        }
    }

    /// The command with these arguments.
    pub fn amiable(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(target("x86_64-unknown-linux-musl/release/amiable"));
        command.args(arguments).env("AMIABLE_HOME", self.home.path()).env_remove("AMIABLE_EMULATE");
        if self.emulate {
            command.env("AMIABLE_EMULATE", "1");
            if std::env::var_os("AMIABLE_EMULATE_KERNEL").is_none() {
                command.env("AMIABLE_EMULATE_KERNEL", target("images/emulated-host"));
            }
        }
        command
    }

    /// Run it to its end; what it printed is shown if the test fails. What takes longer than a test may is ended, with the emulated
    /// host, in which a guest then hangs: the next test gets another.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut child =
            self.amiable(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (drain(child.stdout.take().unwrap()), drain(child.stderr.take().unwrap()));
        let ended = ends_within(&child, LIMIT);
        if !ended {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        if !ended && self.emulate {
            let _ = self.amiable(&["emulate", "stop"]).output();
        }
        let output = Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() };
        println!("$ amiable {}\n{}\n{}", arguments.join(" "), text(&output.stdout), text(&output.stderr));
        assert!(ended, "amiable {}: not within {LIMIT:?}", arguments.join(" "));
        output
    }

    /// A file in the home.
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A path in the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

/// The longest that one command may take: two boots of Debian in an emulated host on a slow machine.
const LIMIT: Duration = Duration::from_secs(600);

/// All that a child writes, read beside it.
fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        // What came until the end is what counts.
        let _ = pipe.read_to_end(&mut all);
        all
    })
}

fn ends_within(child: &Child, limit: Duration) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let mut event = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::event::poll(&mut event, Some(&limit.try_into().unwrap())).unwrap() == 1
}

/// Bytes as text without carriage returns.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}
