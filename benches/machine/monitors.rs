//! How each monitor is started on the tiny guest, and what its process tells.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use base64::Engine;

use super::Failure;
use super::beside::Plan;
use super::settings::Monitor;

/// The guest's memory in MiB, in so far as it uses it.
pub const MEMORY_MIB: u64 = 256;
/// The smallest instance type with one vCPU, and its memory.
const TYPE: &str = "t2.nano";
const TYPE_MIB: u64 = 512;
/// The disk's size. Behind the image's 256 MiB lies the area that is measured.
const DISK: &str = "512M";
pub const DISK_BYTES: u64 = 512 << 20;
/// No guest lives longer.
const TIMEOUT: &str = "40s";
/// The image's name.
pub const IMAGE: &str = "machine-bench";

/// The memory that the monitor gives its guest.
pub fn guest_mib(monitor: Monitor) -> u64 {
    match monitor {
        Monitor::Amiable => TYPE_MIB,
        Monitor::Qemu => MEMORY_MIB,
    }
}

/// The host's loopback, as a guest reaches it.
pub fn host_alias(monitor: Monitor) -> &'static str {
    match monitor {
        Monitor::Amiable => "169.254.169.250",
        Monitor::Qemu => "10.0.2.2",
    }
}

/// The command that boots the tiny guest and runs `script` in it; its output is the guest's console.
pub fn command(plan: &Plan, monitor: Monitor, script: Option<&str>) -> Command {
    let script = script.map(|s| format!(" tiny.run={}", base64::engine::general_purpose::STANDARD.encode(s)));
    let words = format!("mem={MEMORY_MIB}M{}", script.unwrap_or_default());
    match monitor {
        Monitor::Amiable => {
            let mut command = amiable(plan);
            command.args([
                "run",
                IMAGE,
                "-t",
                TYPE,
                "--rm",
                "--host-loopback",
                "--root-size",
                DISK,
                "--append",
                &words,
                // Then it says what the vCPU was doing.
                "--timeout",
                TIMEOUT,
            ]);
            command
        }
        Monitor::Qemu => qemu(plan, &words),
    }
}

/// amiable with the benchmark's home.
pub fn amiable(plan: &Plan) -> Command {
    let mut command = Command::new(&plan.amiable);
    command.env("AMIABLE_HOME", plan.work.join("home")).env_remove("AMIABLE_EMULATE");
    command
}

/// A q35 machine that starts the unpacked kernel directly (PVH), the root disk on NVMe as in amiable, a second on virtio-blk.
fn qemu(plan: &Plan, words: &str) -> Command {
    let mut command = Command::new(&plan.qemu);
    let drive = |id: &str| {
        format!(
            "if=none,id={id},driver=raw,discard=unmap,file.driver=file,file.filename={}",
            qemu_disk(plan, id).display()
        )
    };
    command.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.args(["-machine", "q35,accel=kvm", "-cpu", "host", "-smp", "1", "-m", &MEMORY_MIB.to_string()]);
    command.arg("-kernel").arg(&plan.kernel).args(["-append", &format!("{} {words}", plan.cmdline)]);
    command.args(["-drive", &drive("root"), "-device", "nvme,drive=root,serial=root"]);
    command.args(["-drive", &drive("data"), "-device", "virtio-blk-pci,drive=data"]);
    command.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]);
    command
}

/// QEMU's disks.
pub fn qemu_disk(plan: &Plan, id: &str) -> PathBuf {
    plan.work.join(format!("qemu-{id}.raw"))
}

/// A started process whose output is the guest's console.
pub struct Guest {
    child: Child,
    lines: Receiver<(Instant, String)>,
    pub started: Instant,
    console: Vec<String>,
    errors: PathBuf,
}

/// A console that is silent for longer, on this host's clock, is a dead guest's.
const LIMIT: Duration = Duration::from_secs(50);

impl Guest {
    /// Start a process. What it says on standard error is kept in `work` for a failure's sake.
    pub fn start(mut command: Command, work: &Path) -> Result<Self, Failure> {
        let errors = work.join("errors");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&errors)?);
        let started = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", command.get_program().display()))?;
        let output = child.stdout.take().ok_or("no output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while let Ok(1..) = output.read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send((Instant::now(), text)).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Ok(Guest { child, lines, started, console: Vec::new(), errors })
    }

    /// The next line of the console, or `None` at its end.
    pub fn line(&mut self) -> Result<Option<(Instant, String)>, Failure> {
        match self.lines.recv_timeout(LIMIT) {
            Ok((at, line)) => {
                self.console.push(line.clone());
                Ok(Some((at, line)))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(self.failure("it says nothing any more")),
        }
    }

    /// Up to the line that begins with `start`.
    pub fn wait_for(&mut self, start: &str) -> Result<Instant, Failure> {
        while let Some((at, line)) = self.line()? {
            if line.contains(start) {
                return Ok(at);
            }
        }
        Err(self.failure(&format!("it ended without saying {start:?}")))
    }

    /// The ids of the process and of those that it started.
    pub fn processes(&self) -> Result<Vec<u32>, Failure> {
        let mut all = vec![self.child.id()];
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let children = std::fs::read_to_string(thread?.path().join("children"))?;
            all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
        Ok(all)
    }

    /// Up to its end.
    pub fn finish(mut self) -> Result<(), Failure> {
        while self.line()?.is_some() {}
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(self.failure(&status.to_string())) }
    }

    /// An error with all that is known.
    pub fn failure(&self, what: &str) -> Failure {
        let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let last = self.console.len().saturating_sub(20);
        format!("the guest failed: {what}\nconsole:\n{}\nmessages:\n{errors}", self.console[last..].join("\n")).into()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
