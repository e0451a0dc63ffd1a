//! An instance inside the emulated host, seen from outside as any other.
//!
//! Only the instance's process moves, into the one emulated host that the region has for all of them: region, images, volumes and
//! records stay on this machine. The volumes' files, the image and the unpacked kernel go in as drives; the specification goes in as a file with those paths replaced; events
//! come out on the inner process's standard output, and orders go in on its standard input (see
//! [`running::serve`](super::running::serve)).

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::emulated_volumes::{Plugs, RootFiles, plug};
use super::event::{Control, Event, Seen, read_events, write_line};
use super::running::{OpenDisk, Running, StartError};
use super::session::Session;
use super::spec::{InstanceSpec, PortForward, ReadyFiles};
use super::{bootfiles, firewall, services, store_disk};
use crate::emulate::kernel::{KERNEL_VARIABLE, NotFound, Search};
use crate::emulate::{Cache, Drive, Forward, Kernel, Protocol, Settings, SharedCommand, SharedHost};

/// What the emulated host is made of, found before anything is launched.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Tools {
    kernel: Kernel,
    /// Where the emulated host that stays up is found.
    state: PathBuf,
}

impl Tools {
    /// Look for a kernel: in the folder that the environment names, in `data` (see [`crate::emulate::kernel`]), on this
    /// machine. The emulated host's socket and log are in `state`.
    pub fn find(data: &Path, state: PathBuf) -> Result<Self, NotFound> {
        let named = std::env::var_os(KERNEL_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        let search = Search { named, data: Some(data.to_owned()), root: Some("/".into()), from_image: None };
        Ok(Tools { kernel: search.find()?, state })
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", self.kernel.image.display())
    }
}

/// What the emulated host's own kernel and programs take beside the guest's memory, in MiB.
const HOST_MEMORY_MIB: u64 = 512;
/// How long an instance's process inside may take to let go of its volumes when its outer one is gone.
const GRACE: Duration = Duration::from_secs(60);
/// QEMU's own name server and its address for the outer host's loopback.
const OUTER_DNS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3)), 53);
const OUTER_LOOPBACK: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Start an instance in the region's emulated host, which is started if it is not up. What happens is recorded in `records`; times
/// count from `started`.
pub fn start(tools: &Tools, spec: &InstanceSpec, records: &Path, started: Instant) -> Result<Running, StartError> {
    let host = Arc::new(SharedHost::open(Settings::new(&tools.state, tools.kernel.clone()))?);
    let (command, forwards, plugs) = command(&host, spec).inspect_err(|_| {
        spec.instance_store.iter().for_each(|disk| drop(std::fs::remove_file(&disk.path)));
    })?;
    let inner = command.start();
    // QEMU has them open, or will not open them any more: their names are not needed.
    spec.instance_store.iter().for_each(|disk| drop(std::fs::remove_file(&disk.path)));
    let mut inner = inner?;
    let (sender, seen) = mpsc::channel::<Seen>();
    let stdin = Arc::new(Mutex::new(inner.stdin.take()));
    let tell = move |event| sender.send(Seen { at: Instant::now(), event }).is_ok();
    let plugs = Arc::new(plugs);
    let write = move |control: Control| {
        if let Ok(mut stdin) = stdin.lock()
            && let Some(pipe) = stdin.as_mut()
            && write_line(pipe, &control).is_err()
        {
            *stdin = None;
        }
    };
    let disk: Arc<OpenDisk> = {
        let root = plugs.root();
        Arc::new(move || {
            let files = root.lock().unwrap_or_else(PoisonError::into_inner).clone();
            files.look()
        })
    };
    let (plug_in, answer) = (plugs.clone(), tell.clone());
    let orders = Arc::new(move |control| match control {
        Control::Volume { id, change } => {
            let answer = answer.clone();
            plug_in.change(&host, id, change, write.clone(), move |event| {
                // An owner that is gone hears nothing any more.
                let _ = answer(event);
            });
        }
        control => write(control),
    });
    let session = Session::new(seen, orders, records, started)?;
    tell(Event::Published { forwards });
    let stdout = inner.stdout.take().ok_or("the emulated host has no standard output")?;
    let stderr = inner.stderr.take().ok_or("the emulated host has no standard error")?;
    let warn = tell.clone();
    std::thread::Builder::new().name("inner stderr".into()).spawn(move || {
        // What the inner process says beside its events: an error before the first of them, as a rule.
        BufReader::new(stderr).lines().map_while(Result::ok).all(|text| warn(Event::Warning { text }))
    })?;
    let thread = std::thread::Builder::new().name("emulated".into()).spawn(move || {
        let mut ended = false;
        let read = read_events(stdout, |event| {
            ended |= matches!(event, Event::Ended { .. });
            if let Event::Answer { id, error } = &event {
                plugs.answered(*id, error.is_none());
            }
            // Its ports are the emulated host's own; what leads to them is known here.
            matches!(event, Event::Published { .. }) || tell(event)
        });
        let status = inner.wait(None);
        if !ended {
            let error: StartError = match (read, status) {
                (_, Err(error)) => error.into(),
                (Err(error), _) => error.into(),
                (Ok(()), Ok(status)) => {
                    format!("the instance's process inside the emulated host ended: {status}").into()
                }
            };
            tell(Event::Ended { end: super::instance::failed(&*error) });
        }
    })?;
    Ok(Running::new(session, disk, thread))
}

/// An instance's process in the emulated host, its published ports and what it has plugged in.
fn command(host: &SharedHost, spec: &InstanceSpec) -> Result<(SharedCommand, Vec<PortForward>, Plugs), StartError> {
    let ports = u16::try_from(spec.network.forwards.len()).map_err(|_| "more published ports than there are")?;
    let mut command = host.command(["instance-process"], ports)?.grace(GRACE);
    let most = u64::from(command.host_memory_mib()).saturating_sub(HOST_MEMORY_MIB);
    if spec.memory_mib > most {
        let wanted = spec.memory_mib;
        return Err(format!("the emulated host has memory for {most} MiB of guests, and this one has {wanted}").into());
    }
    let folder = command.folder();
    let mut inner = spec.clone();
    for volume in std::iter::once(&mut inner.root).chain(&mut inner.volumes) {
        plug(&mut command, volume);
    }
    for disk in &mut inner.instance_store {
        store_disk::create(disk)?;
        disk.path = command.drive(Drive { path: disk.path.clone(), read_only: false, cache: Cache::Unsafe });
    }
    let mut drive = |path: &Path, read_only: bool| {
        let cache = if spec.root.throw_away { Cache::Unsafe } else { Cache::Writeback };
        command.drive(Drive { path: path.to_owned(), read_only, cache })
    };
    if let Some(kernel) = &spec.boot.kernel {
        inner.boot.kernel = Some(drive(kernel, true));
    } else {
        let root = RootFiles::of(spec);
        let (plan, kernel, initrd) = bootfiles::paths(&spec.boot, &move || root.look())?;
        let ready =
            ReadyFiles { kernel: drive(&kernel, true), initrd: initrd.as_deref().map(|path| drive(path, true)) };
        inner.boot.plan = Some(plan);
        inner.boot.ready = Some(ready);
    }
    if let Some(initrd) = &spec.boot.initrd {
        inner.boot.initrd = Some(drive(initrd, true));
    }
    inner.boot.cache = folder.join("boot");
    inner.identity_keys = folder.join("identity");
    inner.network.upstreams = vec![OUTER_DNS];
    inner.network.host_loopback = spec.network.host_loopback.map(|_| OUTER_LOOPBACK.into());

    let keys = services::identity_keys(&spec.identity_keys)?.to_pem()?;
    command.file(format!("identity/{}", services::KEYS_FILE), 0o600, keys.to_string().into_bytes());
    let mut published = Vec::new();
    inner.network.forwards.clear();
    inner.network.peers.clear();
    for (port, wanted) in command.ports().to_vec().into_iter().zip(&spec.network.forwards) {
        let outer = outer_port(wanted)?;
        published.push(PortForward { host: outer.into(), ..*wanted });
        let protocol = if wanted.udp { Protocol::Udp } else { Protocol::Tcp };
        command.forward(Forward { protocol, host: outer, port });
        let here = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        inner.network.forwards.push(PortForward { host: here, ..*wanted });
        // QEMU connects in its own name.
        inner.network.peers.push(firewall::stand_in(outer.into()));
    }
    let specification = command.file("instance.json", 0o600, serde_json::to_vec(&inner)?);
    command.arg(specification.to_string_lossy());
    Ok((command, published, Plugs::of(spec, &inner)?))
}

/// Where QEMU shall listen for a published port. It can't tell which port it took, so a free one is found for it.
fn outer_port(wanted: &PortForward) -> Result<SocketAddrV4, StartError> {
    let SocketAddr::V4(address) = wanted.host else {
        return Err(format!("{}: the emulated host publishes ports on IPv4 addresses only", wanted.host).into());
    };
    let found = if wanted.udp {
        UdpSocket::bind(address).and_then(|s| s.local_addr())
    } else {
        TcpListener::bind(address).and_then(|l| l.local_addr())
    };
    let port =
        found.map_err(|e| format!("can't listen on {address} for the guest's port {}: {e}", wanted.guest_port))?.port();
    Ok(SocketAddrV4::new(*address.ip(), port))
}
