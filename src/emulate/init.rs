//! Process 1 inside the emulated host: mounts, modules, network, then the commands that come over the port
//! ([`inner`](super::inner)), and power-off. When the host's end of the port goes away, the machine goes away too.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, init_module, reboot};
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use super::channel::PORT_NAME;
use super::inner::{self, disks::ScsiDisks};
use super::netlink;

/// What to do before commands can run; its presence makes process 1 this program.
pub const PLAN: &str = "/amiable-emulate.json";
/// The address that QEMU's user network expects its guest at, and the ends it plays itself.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The way out; connections to it reach the outer host's loopback.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Forwards to the outer host's resolver.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// How long devices may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to do inside.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Module files in load order, each with its parameters.
    pub modules: Vec<(PathBuf, String)>,
}

/// Whether this process is `/init` of an emulated host. To be asked first of all in `main`.
pub fn is_init() -> bool {
    std::process::id() == 1 && Path::new(PLAN).exists()
}

/// Does what the plan says, serves the host and powers the machine off.
pub fn main() -> ! {
    if let Err(error) = run() {
        eprintln!("amiable: emulated host: {error}");
    }
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    // Process 1 must not end: the kernel would panic. It does not come here on a machine with ACPI.
    loop {
        thread::park();
    }
}

fn context<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

fn run() -> io::Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(PLAN)?)?;
    for (kind, target) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("tmpfs", "/run")]
    {
        mount(kind, target, kind, MountFlags::empty(), None).map_err(context(target))?;
    }
    for (kind, target) in [("devpts", "/dev/pts"), ("tmpfs", "/dev/shm")] {
        fs::create_dir_all(target)?;
        mount(kind, target, kind, MountFlags::empty(), None).map_err(context(target))?;
    }
    for (path, parameters) in &plan.modules {
        let parameters = CString::new(parameters.as_str())?;
        let module = fs::read(path)?;
        match init_module(&module, &parameters) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            // The command finds out that a device is missing; here, the reason is known.
            Err(error) => eprintln!("amiable: emulated host: {}: {error}", path.display()),
        }
        // The unpacked file lies in memory: it is not needed twice.
        let _ = fs::remove_file(path);
    }
    leave_the_first_cpu().map_err(context("CPU affinity"))?;
    netlink::up("lo").map_err(context("lo"))?;
    netlink::configure("eth0", ADDRESS, 24, GATEWAY).map_err(context("eth0"))?;

    let port = open_port()?;
    let output = port.try_clone()?;
    inner::serve(io::BufReader::with_capacity(64 << 10, port), output, ScsiDisks::find());
    Ok(())
}

/// Keep this process and all that it starts off the first CPU, if there are others: QEMU can't run guests on it reliably (see
/// [`qemu`](super::qemu)).
fn leave_the_first_cpu() -> io::Result<()> {
    let mut cpus = sched_getaffinity(None)?;
    if cpus.count() > 1 {
        cpus.unset(0);
        sched_setaffinity(None, &cpus)?;
    }
    Ok(())
}

/// The port with our name, once it is there and the host is at its other end.
fn open_port() -> io::Result<File> {
    let deadline = Instant::now() + PATIENCE;
    let mut port = None;
    loop {
        if port.is_none() {
            port = find_port().map(|path| OpenOptions::new().read(true).write(true).open(path)).transpose()?;
        }
        // Until the host is connected, a port polls as hung up, and reads as at its end.
        if let Some(file) = &port {
            let mut fds = [PollFd::new(file, PollFlags::OUT)];
            poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            if fds[0].revents().contains(PollFlags::OUT) && !fds[0].revents().contains(PollFlags::HUP) {
                break;
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("no virtio-serial port named {PORT_NAME}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
    port.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn find_port() -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == PORT_NAME).then(|| Path::new("/dev").join(entry.file_name()))
    })
}
