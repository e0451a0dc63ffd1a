//! An emulated host for one command: for measurements, and where nothing is to stay behind.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, io_error};
use super::inner::Order;
use super::machine::{Machine, find_program};
use super::qemu::{Config, Drive, Forward, MAX_DRIVES};
use super::running::Running;
use super::{Kernel, binary, initramfs, modules, qemu};

/// Where the binary lies inside.
pub const BINARY: &str = "/usr/bin/amiable";
pub(super) const QEMU: &str = "qemu-system-x86_64";

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
            env: initramfs::environment(),
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

    /// Starts it and waits until the command runs.
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
        let modules = modules::collect(&self.kernel.modules, &modules::WANTED)?;
        for drive in &self.drives {
            let opened = std::fs::OpenOptions::new().read(true).write(!drive.read_only).open(&drive.path);
            opened.map_err(io_error(drive.path.display().to_string()))?;
        }
        let (folder, initramfs) = initramfs::write(&binary, &modules, &self.files)?;
        let arguments = qemu::arguments(&Config {
            kernel: &self.kernel.image,
            initramfs: &initramfs,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            icount: self.icount,
            drives: &self.drives,
            forwards: &self.forwards,
            control: None,
        });
        let (channel, inner) = UnixStream::pair().map_err(io_error("a channel"))?;
        let machine =
            Machine::launch(&qemu, arguments, OwnedFd::from(inner)).map_err(io_error(qemu.display().to_string()))?;
        let running = Running::new(channel, Some(machine))?;
        running.wait_until_up(self.boot_timeout)?;
        // QEMU has read the initramfs: nothing of it stays behind, whatever happens from here on.
        drop(folder);
        let order = Order { program: self.program, argv: self.argv, env: self.env, ..Order::default() };
        running.order(&order)?;
        running.wait_until_started(self.boot_timeout)?;
        Ok(running)
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
