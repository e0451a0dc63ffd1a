//! Whole-file locks (flock(2)), so that two processes never write one volume.
//!
//! The kernel drops a lock when its file is closed, also after `kill -9`: there is never a stale one to clean up.

use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::StorageError;

/// Lock `file`: alone (`exclusive`), or together with others that don't write.
pub fn lock(file: &File, path: &Path, exclusive: bool) -> Result<(), StorageError> {
    // A process that another thread of the last holder has just forked has it, too, until it executes its program.
    let until = Instant::now() + A_FORK;
    loop {
        let result = if exclusive { file.try_lock() } else { file.try_lock_shared() };
        return match result {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse { path: path.into(), holder: holder(file) }),
            // A file system without locks (some network ones): nothing better can be had there.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => Ok(()),
            Err(TryLockError::Error(source)) => Err(StorageError::Io { action: "lock", path: path.into(), source }),
        };
    }
}

/// How long a lock is tried for.
const A_FORK: Duration = Duration::from_millis(50);

/// Name who holds the lock, as `/proc/locks` tells it (proc_locks(5)).
fn holder(file: &File) -> String {
    let Some(pid) = holder_pid(file) else { return "another process".into() };
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

fn holder_pid(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (dev, ino) = (metadata.dev(), metadata.ino());
    let device = format!("{:02x}:{:02x}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let locks = BufReader::new(File::open("/proc/locks").ok()?);
    locks.lines().map_while(Result::ok).find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, id, ..] = fields[..] else { return None };
        let (on, inode) = id.rsplit_once(':')?;
        let pid: u32 = pid.parse().ok().filter(|pid| *pid != 0)?;
        // Btrfs has another device number there than in stat(2).
        let same = inode.parse() == Ok(ino) && (on == device || has_open(pid, dev, ino));
        same.then_some(pid)
    })
}

fn has_open(pid: u32, dev: u64, ino: u64) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|entry| {
        std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.dev() == dev && metadata.ino() == ino)
    })
}
