//! Whether an instance's process lives: a lock (flock(2)) that it holds from before its record says so until it has let go of
//! everything.
//!
//! The kernel drops the lock with the last process that has it, also after `kill -9` and a power failure, so the answer is never
//! out of date. The command that launches an instance takes the lock and hands it down, so there is no moment without it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the lock is tried for.
const A_LOOK: Duration = Duration::from_millis(200);

/// A held lock.
#[derive(Debug)]
pub struct InstanceLock(File);

impl InstanceLock {
    /// Take the lock at `path`, whose directory is made. `None` if a process has it.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let until = Instant::now() + A_LOOK;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    let lock = InstanceLock(file);
                    // Whether there is room for it shows now, and not when there is a process.
                    lock.sign(std::process::id())?;
                    return Ok(Some(lock));
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
                // Another command may be having a look (`is_held`), which takes the lock for a moment.
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// The lock as it was handed down.
    pub fn handed_down(file: File) -> Self {
        InstanceLock(file)
    }

    /// The file, to hand it down.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Write into it the number of the process that it is handed down to, and in which boot of the machine that runs.
    pub fn sign(&self, process: u32) -> io::Result<()> {
        let text = format!("{process:<10}\n{}\n", boot_id());
        self.0.write_all_at(text.as_bytes(), 0)?;
        self.0.set_len(text.len() as u64)
    }
}

/// Whether a process holds the lock at `path`.
pub fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The number of the process that holds the lock at `path`.
pub fn holder(path: &Path) -> Option<u32> {
    if is_held(path) { pid_in(&File::open(path).ok()?) } else { None }
}

/// Whether the last process that held the lock at `path` ran before the machine was restarted.
pub fn is_of_an_earlier_boot(path: &Path) -> bool {
    let signed = File::open(path).ok().and_then(|file| text_in(&file));
    signed.and_then(|text| text.lines().nth(1).map(|boot| boot != boot_id())).unwrap_or(false)
}

/// The boot of the machine: random(4).
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn pid_in(file: &File) -> Option<u32> {
    text_in(file)?.lines().next()?.trim().parse().ok()
}

fn text_in(mut file: &File) -> Option<String> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(100).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_lives_as_long_as_its_last_holder() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("i-1/lock");
        assert!(!is_held(&path));
        let lock = InstanceLock::take(&path).unwrap().unwrap();
        assert!(is_held(&path));
        assert_eq!(holder(&path), Some(std::process::id()));
        lock.sign(1).unwrap();
        assert_eq!(holder(&path), Some(1));
        assert!(InstanceLock::take(&path).unwrap().is_none());
        let handed = InstanceLock::handed_down(lock.file().try_clone().unwrap());
        drop(lock);
        assert!(is_held(&path));
        drop(handed);
        assert!(!is_held(&path));
        // A number that a dead process left does not count.
        assert_eq!(holder(&path), None);
        assert!(!is_of_an_earlier_boot(&path));
        std::fs::write(&path, "1\n00000000-0000-0000-0000-000000000000\n").unwrap();
        assert!(is_of_an_earlier_boot(&path));
        // As older versions signed.
        std::fs::write(&path, "1\n").unwrap();
        assert!(!is_of_an_earlier_boot(&path));
        assert!(InstanceLock::take(&path).unwrap().is_some());
    }
}
