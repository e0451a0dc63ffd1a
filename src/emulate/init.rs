//! Process 1 inside the emulated host: mounts, modules, network, then the one command, its streams over the port, its
//! status, power-off. When the host's end of the port goes away, the machine goes away too.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::system::{RebootCommand, init_module, reboot};
use serde::{Deserialize, Serialize};

use super::channel::{self, Kind, PORT_NAME};
use super::netlink;

/// The description of what to run; its presence makes process 1 this program.
pub const PLAN: &str = "/amiable-emulate.json";
/// The address that QEMU's user network expects its guest at, and the ends it plays itself.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The way out; connections to it reach the outer host's loopback.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Forwards to the outer host's resolver.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// How long devices may take to appear, and the host to say goodbye.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to do inside.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The executable.
    pub program: PathBuf,
    /// All arguments, the program's name first.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Module files in load order, each with its parameters.
    pub modules: Vec<(PathBuf, String)>,
}

/// Whether this process is `/init` of an emulated host. To be asked first of all in `main`.
pub fn is_init() -> bool {
    std::process::id() == 1 && Path::new(PLAN).exists()
}

/// Runs the plan and powers the machine off.
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
    netlink::up("lo").map_err(context("lo"))?;
    netlink::configure("eth0", ADDRESS, 24, GATEWAY).map_err(context("eth0"))?;

    let port = open_port()?;
    let output = Arc::new(Mutex::new(port.try_clone()?));
    send(&output, Kind::Hello, &[])?;
    match spawn(&plan) {
        Ok(child) => serve(child, port, &output),
        Err(error) => {
            send(&output, Kind::Failed, format!("{}: {error}", plan.program.display()).as_bytes())?;
            await_bye(port);
            Ok(())
        }
    }
}

fn spawn(plan: &Plan) -> io::Result<Child> {
    let (name, arguments) = plan.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Command::new(&plan.program)
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(plan.env.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Moves bytes until the command ends, then reports its status.
fn serve(mut child: Child, port: File, output: &Arc<Mutex<File>>) -> io::Result<()> {
    let pid = Pid::from_child(&child);
    let (drained, both_drained) = mpsc::channel();
    let pipes: [(Kind, Option<Box<dyn Read + Send>>); 2] = [
        (Kind::Stdout, child.stdout.take().map(|pipe| Box::new(pipe) as _)),
        (Kind::Stderr, child.stderr.take().map(|pipe| Box::new(pipe) as _)),
    ];
    for (kind, pipe) in pipes {
        let (output, drained) = (Arc::clone(output), drained.clone());
        thread::spawn(move || {
            if let Some(pipe) = pipe {
                forward(pipe, kind, &output);
            }
            let _ = drained.send(());
        });
    }
    let (bye, wait_for_bye) = mpsc::channel();
    let stdin = child.stdin.take();
    thread::spawn(move || {
        obey(port, pid, stdin);
        let _ = bye.send(());
    });

    let status = loop {
        // Process 1 also inherits and buries the command's orphans.
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => break status.as_raw(),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // A daemon that the command left behind may keep the pipes open for ever.
    let deadline = Instant::now() + Duration::from_secs(2);
    for _ in 0..2 {
        let _: Result<(), RecvTimeoutError> =
            both_drained.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    rustix::fs::sync();
    send(output, Kind::Exit, &status.to_le_bytes())?;
    let _ = wait_for_bye.recv_timeout(PATIENCE);
    Ok(())
}

fn send(output: &Mutex<File>, kind: Kind, payload: &[u8]) -> io::Result<()> {
    channel::send(&mut *output.lock().unwrap_or_else(PoisonError::into_inner), kind, payload)
}

/// A pipe's bytes as frames until its end.
fn forward(mut pipe: impl Read, kind: Kind, output: &Mutex<File>) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if send(output, kind, buffer.get(..length).unwrap_or_default()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Does what the host says until it says goodbye or is gone; then the command must go.
fn obey(mut port: File, pid: Pid, mut stdin: Option<impl Write>) {
    let mut payload = Vec::new();
    loop {
        match channel::receive(&mut port, &mut payload) {
            Ok(Some(Kind::Stdin)) => {
                // A command that has closed its input does not want it.
                if stdin.as_mut().is_some_and(|pipe| pipe.write_all(&payload).is_err()) {
                    stdin = None;
                }
            }
            Ok(Some(Kind::StdinEnd)) => stdin = None,
            Ok(Some(Kind::Signal)) => {
                let number = <[u8; 4]>::try_from(&payload[..]).map(i32::from_le_bytes).unwrap_or_default();
                if let Some(signal) = Signal::from_named_raw(number) {
                    let _ = kill_process(pid, signal);
                }
            }
            Ok(Some(Kind::Bye)) => return,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                let _ = kill_process(pid, Signal::KILL);
                return;
            }
        }
    }
}

fn await_bye(mut port: File) {
    let (done, wait_for_it) = mpsc::channel();
    thread::spawn(move || {
        let mut payload = Vec::new();
        while matches!(channel::receive(&mut port, &mut payload), Ok(Some(kind)) if kind != Kind::Bye) {}
        let _ = done.send(());
    });
    let _ = wait_for_it.recv_timeout(PATIENCE);
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
