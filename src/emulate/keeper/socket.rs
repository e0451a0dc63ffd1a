//! Where the keeper is found: a Unix socket in its directory, reached through a descriptor of that directory, for the
//! name of a socket has at most 108 bytes and a path may have more.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The lock's name in the directory.
pub const LOCK: &str = "emulated-host.lock";
/// The log's.
pub const LOG: &str = "emulated-host.log";
const SOCKET: &str = "emulated-host.sock";

/// The socket's path, for people and for removing it.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(SOCKET)
}

fn short(directory: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()).into()
}

/// Listens, in place of whoever did before. Only for the holder of the lock; the umask decides who may connect.
pub(super) fn listen(directory: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path(directory)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let directory = File::open(directory)?;
    UnixListener::bind(short(&directory))
}

/// Connects; `None` where nobody listens.
pub(in crate::emulate) fn connect(directory: &Path) -> io::Result<Option<UnixStream>> {
    let connected = File::open(directory).and_then(|directory| UnixStream::connect(short(&directory)));
    match connected {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
