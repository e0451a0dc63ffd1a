//! What comes and goes with a command: drives on the SCSI bus, forwards of the user network, inner ports.

use std::collections::BTreeSet;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::protocol::Lease;
use super::qmp::Qmp;
use crate::emulate::channel::Failure;
use crate::emulate::inner::InnerDisk;
use crate::emulate::qemu::{DRIVE_BUS, NETDEV, is_block_device};
use crate::emulate::{Cache, Drive, Forward, Protocol};

/// The targets of a virtio-scsi controller; each is one drive.
pub(super) const MOST_DRIVES: u8 = 255;
/// Inner ports for commands, below those that Linux gives to outgoing connections.
pub(super) const PORTS: std::ops::Range<u16> = 20_000..32_768;

/// All there is.
pub(super) struct Plugs {
    qmp: Mutex<Qmp>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    targets: BTreeSet<u8>,
    ports: BTreeSet<u16>,
    last_number: u32,
}

impl Taken {
    fn lease(&mut self, ports: u16) -> Option<(u32, Vec<u16>)> {
        let free: Vec<u16> = PORTS.filter(|port| !self.ports.contains(port)).take(ports.into()).collect();
        if free.len() < usize::from(ports) {
            return None;
        }
        self.last_number = self.last_number.checked_add(1)?;
        self.ports.extend(&free);
        Some((self.last_number, free))
    }

    fn target(&mut self) -> Option<u8> {
        let free = (0..MOST_DRIVES).find(|target| !self.targets.contains(target))?;
        self.targets.insert(free);
        Some(free)
    }
}

/// What one command has; to be given to [`Plugs::take_out`].
#[derive(Default)]
pub(super) struct Plugged {
    drives: Vec<PluggedDrive>,
    forwards: Vec<String>,
}

struct PluggedDrive {
    disk: InnerDisk,
    /// The node of the block layer, if it is there.
    node: Option<String>,
    /// The device on the bus, if it is there.
    device: Option<String>,
}

impl Plugged {
    /// The drives as the inside finds them.
    pub(super) fn disks(&self) -> Vec<InnerDisk> {
        self.drives.iter().map(|drive| drive.disk.clone()).collect()
    }
}

impl Plugs {
    pub(super) fn new(qmp: Qmp) -> Self {
        Plugs { qmp: Mutex::new(qmp), taken: Mutex::default() }
    }

    fn qmp(&self) -> MutexGuard<'_, Qmp> {
        self.qmp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number, and ports. `None` when there are not so many left.
    pub(super) fn lease(&self, ports: u16) -> Option<(u32, Vec<u16>)> {
        self.taken().lease(ports)
    }

    /// The ports are free again.
    pub(super) fn end_lease(&self, lease: &Lease) {
        let mut taken = self.taken();
        for port in &lease.ports {
            taken.ports.remove(port);
        }
    }

    /// Puts drives and forwards in. What is in when something fails is in `plugged` as well.
    pub(super) fn put_in(
        &self,
        lease: &Lease,
        drives: &[Drive],
        forwards: &[Forward],
        plugged: &mut Plugged,
    ) -> Result<(), Failure> {
        for (n, drive) in drives.iter().enumerate() {
            let Some(target) = self.taken().target() else {
                return Err(Failure::Drive(format!("{}: it has {MOST_DRIVES} already", drive.path.display())));
            };
            let disk = InnerDisk { path: lease.drive(n), target };
            plugged.drives.push(PluggedDrive { disk, node: None, device: None });
            if let Some(place) = plugged.drives.last_mut() {
                self.put_in_drive(&id(lease.number, n), drive, place)
                    .map_err(|why| Failure::Drive(format!("{}: {why}", drive.path.display())))?;
            }
        }
        for forward in forwards {
            if !lease.ports.contains(&forward.port) {
                return Err(Failure::Port(format!("the inner port {} is not this command's", forward.port)));
            }
            let rule = format!("hostfwd_add {NETDEV} {}-:{}", forward.outer(), forward.port);
            self.qmp().human(&rule).map_err(|error| Failure::Port(why_not(forward, &error)))?;
            plugged.forwards.push(forward.outer());
        }
        Ok(())
    }

    /// A drive has `size` bytes now; its controller says so inside.
    pub(super) fn resize(&self, number: u32, n: usize, size: u64) -> io::Result<()> {
        let node = node(&id(number, n));
        self.qmp().execute("block_resize", json!({ "node-name": node, "size": size })).map(drop)
    }

    fn put_in_drive(&self, id: &str, drive: &Drive, place: &mut PluggedDrive) -> io::Result<()> {
        // QEMU's own words for a missing file are these as well; but it might create or detect something.
        std::fs::OpenOptions::new().read(true).write(!drive.read_only).open(&drive.path)?;
        let driver = if is_block_device(&drive.path) { "host_device" } else { "file" };
        let cache = json!({ "direct": false, "no-flush": drive.cache == Cache::Unsafe });
        // One that is only read takes no lock, and none is in its way: a layer that was frozen while it is in use has a
        // writer that does not write any more. One that is written is one command's alone.
        let locking = if drive.read_only { "off" } else { "auto" };
        let node = node(id);
        self.qmp().execute(
            "blockdev-add",
            json!({
                "driver": "raw", "node-name": node, "read-only": drive.read_only, "discard": "unmap", "cache": cache,
                "file": {
                    "driver": driver, "filename": drive.path, "read-only": drive.read_only, "discard": "unmap",
                    "cache": cache, "locking": locking,
                },
            }),
        )?;
        place.node = Some(node.clone());
        // An error of this machine's disk is the guest's to see; by default a full one would stop all guests.
        self.qmp().execute(
            "device_add",
            json!({
                "driver": "scsi-hd", "id": id, "bus": DRIVE_BUS, "channel": 0, "scsi-id": place.disk.target, "lun": 0,
                "drive": node, "serial": id, "werror": "report", "rerror": "report",
            }),
        )?;
        place.device = Some(id.to_owned());
        Ok(())
    }

    /// Takes out what a command had, when the inside has let go of it. All is tried; the first that went wrong.
    pub(super) fn take_out(&self, plugged: Plugged) -> io::Result<()> {
        let mut result = Ok(());
        for forward in plugged.forwards {
            // It answers with text in any case.
            let _ = self.qmp().human(&format!("hostfwd_remove {NETDEV} {forward}"));
        }
        for drive in plugged.drives {
            let mut out = drive.device.map_or(Ok(()), |device| self.qmp().delete_device(&device));
            if let (Some(node), Ok(())) = (drive.node, &out) {
                out = self.qmp().execute("blockdev-del", json!({ "node-name": node })).map(drop);
            }
            match out {
                Ok(()) => drop(self.taken().targets.remove(&drive.disk.target)),
                Err(_) => result = result.and(out),
            }
        }
        result
    }
}

/// The device of a command's `n`th drive.
fn id(number: u32, n: usize) -> String {
    format!("d{number}-{n}")
}

/// The block layer's node below a device.
fn node(id: &str) -> String {
    format!("{id}-node")
}

/// QEMU does not say why it cannot listen. Trying it finds out.
fn why_not(forward: &Forward, error: &io::Error) -> String {
    let tried = match forward.protocol {
        Protocol::Tcp => TcpListener::bind(forward.host).map(drop),
        Protocol::Udp => UdpSocket::bind(forward.host).map(drop),
    };
    let why = tried.err().map_or_else(|| error.to_string(), |error| error.to_string());
    format!("can't listen on {}: {why}", forward.host)
}

#[cfg(test)]
#[path = "plugs_tests.rs"]
mod tests;
