//! Gets the machine up.

use std::io::BufReader;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};

use super::Keeper;
use super::plugs::Plugs;
use super::qmp::Qmp;
use crate::emulate::channel::{self, Kind, MACHINE};
use crate::emulate::error::{Error, io_error};
use crate::emulate::machine::{Machine, find_program};
use crate::emulate::{binary, initramfs, modules, qemu};

/// A machine that takes orders.
pub(super) struct Host {
    pub(super) machine: Machine,
    pub(super) plugs: Plugs,
    channel: Mutex<UnixStream>,
}

impl Host {
    /// Frames to the inside; whole ones, so one writer at a time.
    pub(super) fn channel(&self) -> MutexGuard<'_, UnixStream> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts QEMU and waits until the inside takes orders. What comes from there goes to the clients from then on.
pub(super) fn boot(keeper: &Arc<Keeper>, binary: &Path) -> Result<Arc<Host>, Error> {
    let settings = &keeper.settings;
    let qemu = find_program(Path::new(&settings.qemu))
        .ok_or_else(|| Error::NoQemu(settings.qemu.to_string_lossy().into_owned()))?;
    let binary = binary::read_static(binary)?;
    let modules = modules::collect(&settings.kernel.modules, &modules::WANTED_SHARED)?;
    let (folder, initramfs) = initramfs::write(&binary, &modules, &[])?;
    drop((binary, modules));

    let (channel, inner) = UnixStream::pair().map_err(io_error("a channel"))?;
    let (control, inner_control) = UnixStream::pair().map_err(io_error("a channel"))?;
    // To be inherited by QEMU, the only process that is started from here.
    fcntl_setfd(&inner_control, FdFlags::empty()).map_err(|error| io_error("a channel")(error.into()))?;
    let arguments = qemu::arguments(&qemu::Config {
        kernel: &settings.kernel.image,
        initramfs: &initramfs,
        memory_mib: settings.memory_mib,
        cpus: settings.cpus,
        icount: false,
        drives: &[],
        forwards: &[],
        control: Some(inner_control.as_raw_fd()),
    });
    let machine =
        Machine::launch(&qemu, arguments, OwnedFd::from(inner)).map_err(io_error(qemu.display().to_string()))?;
    drop(inner_control);

    let receiver = channel.try_clone().map_err(io_error("a channel"))?;
    let (up, wait_until_up) = mpsc::channel();
    let for_streams = Arc::clone(keeper);
    thread::spawn(move || receive(&for_streams, receiver, &up));
    let died = |when| match machine.wait(std::time::Duration::from_secs(10)) {
        Some(status) => Error::Died { status, when, tail: machine.tail() },
        None => Error::Lost { when },
    };
    let qmp = Qmp::new(control).map_err(|_| died("at once"))?;
    match wait_until_up.recv_timeout(settings.boot_timeout) {
        Ok(channel::VERSION) => {}
        Ok(_) => return Err(Error::OtherVersion),
        Err(mpsc::RecvTimeoutError::Disconnected) => return Err(died("before it was up")),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            return Err(Error::TimedOut { what: "up", after: settings.boot_timeout, tail: machine.tail() });
        }
    }
    // QEMU has read the initramfs.
    drop(folder);
    Ok(Arc::new(Host { machine, plugs: Plugs::new(qmp), channel: Mutex::new(channel) }))
}

/// Sorts frames from the inside into the clients' boxes until the channel ends. It never waits.
fn receive(keeper: &Keeper, channel: UnixStream, up: &mpsc::Sender<u32>) {
    let mut channel = BufReader::with_capacity(64 << 10, channel);
    let mut payload = Vec::new();
    while let Ok(Some(frame)) = channel::receive(&mut channel, &mut payload) {
        if (frame.kind, frame.stream) == (Kind::Hello, MACHINE) {
            let _ = up.send(channel::read_u32(&payload).unwrap_or_default());
        } else if let Some(outbox) = keeper.streams().get(&frame.stream) {
            outbox.put(frame.kind, &payload);
        }
    }
}
