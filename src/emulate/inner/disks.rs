//! The machine's SCSI disks, by Linux's sysfs (Documentation/ABI/testing/sysfs-bus-scsi, SCSI's `scan` and `delete`).
//! They come and go on the orders of the commands that use them; the controller sends no events.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Disks, InnerDisk};

/// How long a disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// Those of the first virtio-scsi controller.
pub(in crate::emulate) struct ScsiDisks {
    /// The number of the SCSI host, if there is one.
    host: Option<u32>,
}

impl ScsiDisks {
    /// Looks for the controller, whose driver is loaded.
    pub(in crate::emulate) fn find() -> Self {
        let hosts = fs::read_dir("/sys/class/scsi_host").into_iter().flatten().flatten();
        let host = hosts.into_iter().find_map(|entry| {
            let driver = fs::read_to_string(entry.path().join("proc_name")).ok()?;
            (driver.trim_end() == "virtio_scsi").then_some(())?;
            entry.file_name().to_str()?.strip_prefix("host")?.parse().ok()
        });
        ScsiDisks { host }
    }

    fn host(&self) -> io::Result<u32> {
        self.host.ok_or_else(|| {
            io::Error::other(
                "the emulated host's kernel has no virtio_scsi module beside it: `guest-images/build emulated-host` \
                 fetches one that has",
            )
        })
    }
}

/// A drive has another size: make the kernel ask for it. `path` is what the drive is called inside.
pub fn rescan(path: &Path) -> io::Result<()> {
    let node = fs::canonicalize(path)?;
    let name = node.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    fs::write(Path::new("/sys/class/block").join(name).join("device/rescan"), "1")
}

fn device(host: u32, disk: &InnerDisk) -> PathBuf {
    format!("/sys/class/scsi_device/{host}:0:{}:0/device", disk.target).into()
}

/// The block device's node, once the disk driver is through with it: it makes the node before it lets anyone open it.
fn node(device: &Path) -> Option<(PathBuf, File)> {
    let entry = fs::read_dir(device.join("block")).ok()?.flatten().next()?;
    let node = Path::new("/dev").join(entry.file_name());
    let file = File::open(&node).ok()?;
    file.metadata().is_ok_and(|meta| meta.file_type().is_block_device()).then_some((node, file))
}

impl Disks for ScsiDisks {
    fn take(&self, disk: &InnerDisk) -> io::Result<()> {
        let host = self.host()?;
        fs::write(format!("/sys/class/scsi_host/host{host}/scan"), format!("0 {} 0", disk.target))?;
        let device = device(host, disk);
        let deadline = Instant::now() + PATIENCE;
        let node = loop {
            if let Some((node, _)) = node(&device) {
                break node;
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the disk did not appear"));
            }
            thread::sleep(Duration::from_millis(2));
        };
        if let Some(parent) = disk.path.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(node, &disk.path)
    }

    fn let_go(&self, disk: &InnerDisk) -> io::Result<()> {
        let device = device(self.host()?, disk);
        let _ = fs::remove_file(&disk.path);
        let synced = match node(&device) {
            Some((_, file)) => file.sync_all(),
            None => Ok(()),
        };
        match fs::write(device.join("delete"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => synced,
        }
    }
}
