//! Starts an emulated host and stands for what runs inside it, much like [`std::process::Child`] stands for a child.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

use super::init::{DNS, PLAN, Plan};
use super::modules::Module;
use super::qemu::{Config, Drive, Forward, MAX_DRIVES};
use super::{Kernel, binary, cpio, modules, qemu};

mod running;

pub use running::Running;

/// Where the binary lies inside.
pub const BINARY: &str = "/usr/bin/amiable";
const QEMU: &str = "qemu-system-x86_64";

/// Why an emulated host did not start, or did not end as it should.
#[derive(Debug, Error)]
pub enum Error {
    /// QEMU is not installed.
    #[error("{0} is not installed, and the emulated host runs in it: `sudo apt-get install qemu-system-x86`")]
    NoQemu(String),
    /// The binary cannot run inside.
    #[error(transparent)]
    Binary(#[from] binary::Error),
    /// The kernel's modules cannot be used.
    #[error(transparent)]
    Modules(#[from] modules::Error),
    /// More drives than there are slots.
    #[error("an emulated host takes at most {MAX_DRIVES} drives, not {0}")]
    TooManyDrives(usize),
    /// A step on the outer host failed.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The command could not be run inside.
    #[error("inside the emulated host: {0}")]
    Command(String),
    /// QEMU ended before the command did: the inner kernel died, or QEMU refused its arguments.
    #[error("the emulated host ended ({status}) {when}{tail}")]
    Died {
        /// How QEMU ended.
        status: ExitStatus,
        /// At what stage.
        when: &'static str,
        /// The last lines of its console and of QEMU's messages.
        tail: String,
    },
    /// It did not get ready, or did not end, in time.
    #[error("the emulated host was not {what} within {} s{tail}", after.as_secs())]
    TimedOut {
        /// `up` or `done`.
        what: &'static str,
        /// The limit.
        after: Duration,
        /// The last lines of its console.
        tail: String,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// An emulated host to be: what runs in it, with which resources.
#[derive(Debug)]
pub struct EmulatedHost {
    kernel: Kernel,
    binary: Option<PathBuf>,
    program: PathBuf,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    files: Vec<(String, u32, Vec<u8>)>,
    drives: Vec<Drive>,
    forwards: Vec<Forward>,
    memory_mib: u32,
    cpus: u32,
    icount: bool,
    boot_timeout: Duration,
    qemu: OsString,
}

impl EmulatedHost {
    /// A host on `kernel` that runs this binary with `arguments` (without the program's name). 2 GiB, one CPU.
    pub fn new<S: Into<String>>(kernel: Kernel, arguments: impl IntoIterator<Item = S>) -> Self {
        let argv = ["amiable".to_owned()].into_iter().chain(arguments.into_iter().map(Into::into)).collect();
        Self {
            kernel,
            binary: None,
            program: BINARY.into(),
            argv,
            env: vec![
                ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
                ("HOME".into(), "/root".into()),
            ],
            files: Vec::new(),
            drives: Vec::new(),
            forwards: Vec::new(),
            memory_mib: 2048,
            cpus: 1,
            icount: false,
            boot_timeout: Duration::from_secs(120),
            qemu: QEMU.into(),
        }
    }

    /// The static executable to use; without, the one that runs.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Runs another program than this binary: a path inside, of a file placed there.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        if let Some(name) = self.argv.first_mut() {
            *name = self.program.to_string_lossy().into_owned();
        }
        self
    }

    /// An environment variable.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.env.retain(|(k, _)| *k != key);
        self.env.push((key, value.into()));
        self
    }

    /// A small file to place inside (in memory) with permission bits `mode`.
    pub fn file(mut self, path: impl Into<String>, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.into(), mode, content.into()));
        self
    }

    /// Adds a drive; the first is `/dev/vda` inside, the second `/dev/vdb`. Asks for the name with [`Self::device`].
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drives.push(drive);
        self
    }

    /// The device name inside of the `n`th drive, counted from 0.
    pub fn device(n: usize) -> String {
        let letter = u8::try_from(n).ok().filter(|n| *n < 26).map_or('?', |n| char::from(b'a' + n));
        format!("/dev/vd{letter}")
    }

    /// A port of the outer host that leads inside.
    pub fn forward(mut self, forward: Forward) -> Self {
        self.forwards.push(forward);
        self
    }

    /// Memory in MiB. What runs inside must fit beside about 200 MiB of kernel and initramfs.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// The number of CPUs. One is the quickest for most uses.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus.max(1);
        self
    }

    /// A clock that counts instructions, for measurements that repeat. About three times slower.
    pub fn icount(mut self, icount: bool) -> Self {
        self.icount = icount;
        self
    }

    /// How long it may take until the command is started inside.
    pub fn boot_timeout(mut self, limit: Duration) -> Self {
        self.boot_timeout = limit;
        self
    }

    /// Another QEMU than the one on the PATH.
    pub fn qemu(mut self, path: impl Into<OsString>) -> Self {
        self.qemu = path.into();
        self
    }

    /// Starts it and waits until the command is about to run.
    pub fn start(self) -> Result<Running, Error> {
        if self.drives.len() > MAX_DRIVES {
            return Err(Error::TooManyDrives(self.drives.len()));
        }
        let qemu = find_program(Path::new(&self.qemu))
            .ok_or_else(|| Error::NoQemu(self.qemu.to_string_lossy().into_owned()))?;
        let path = match &self.binary {
            Some(path) => path.clone(),
            None => std::env::current_exe().map_err(io_error("this executable's path"))?,
        };
        let binary = binary::read_static(&path)?;
        let modules = modules::collect(&self.kernel.modules)?;
        for drive in &self.drives {
            let opened = std::fs::OpenOptions::new().read(true).write(!drive.read_only).open(&drive.path);
            opened.map_err(io_error(drive.path.display().to_string()))?;
        }
        let folder = tempfile::Builder::new()
            .prefix("amiable-emulate.")
            .tempdir()
            .map_err(io_error("a temporary folder for the emulated host"))?;
        let initramfs = folder.path().join("initramfs");
        self.write_initramfs(&initramfs, &binary, &modules).map_err(io_error(initramfs.display().to_string()))?;
        let arguments = qemu::arguments(&Config {
            kernel: &self.kernel.image,
            initramfs: &initramfs,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            icount: self.icount,
            drives: &self.drives,
            forwards: &self.forwards,
        });
        let running = Running::launch(&qemu, arguments)?;
        running.wait_until_up(self.boot_timeout)?;
        // QEMU has read the initramfs: nothing of it stays behind, whatever happens from here on.
        drop(folder);
        Ok(running)
    }

    fn write_initramfs(&self, path: &Path, binary: &[u8], modules: &[Module]) -> io::Result<()> {
        let mut archive = cpio::Writer::new(io::BufWriter::new(std::fs::File::create(path)?));
        for folder in ["dev", "proc", "sys", "tmp", "run", "root", "var/tmp"] {
            archive.directory(folder)?;
        }
        archive.character_device("dev/console", 0o600, 5, 1)?;
        archive.file(BINARY, 0o755, binary)?;
        archive.symlink("init", BINARY)?;
        archive.file("etc/resolv.conf", 0o644, format!("nameserver {DNS}\n").as_bytes())?;
        archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n")?;
        archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
        archive.file("etc/group", 0o644, b"root:x:0:\n")?;
        let mut plan =
            Plan { program: self.program.clone(), argv: self.argv.clone(), env: self.env.clone(), modules: Vec::new() };
        for module in modules {
            let inside = format!("/modules/{}.ko", module.name);
            archive.file(&inside, 0o644, &module.content)?;
            // Guests of the emulated host have no use for a third level, and do without its cost.
            let parameters = if module.name == "kvm_amd" { "nested=0" } else { "" };
            plan.modules.push((inside.into(), parameters.to_owned()));
        }
        archive.file(PLAN, 0o600, &serde_json::to_vec(&plan)?)?;
        for (path, mode, content) in &self.files {
            archive.file(path, *mode, content)?;
        }
        archive.finish().map(drop)
    }
}

/// A program by its path, or by its name on the PATH.
fn find_program(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The exit status from a wait status as it came over the channel.
fn exit_status(raw: &[u8]) -> Option<ExitStatus> {
    Some(ExitStatus::from_raw(i32::from_le_bytes(raw.try_into().ok()?)))
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
