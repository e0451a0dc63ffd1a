//! Unix sockets at paths of any length: `sockaddr_un` has room for 107 bytes, and a region may lie deeper than that. The
//! directory is opened, and named by its descriptor under `/proc/self/fd` (proc(5)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

/// Listen at `path` for processes of this user. A socket that an earlier process left is replaced, so the caller must know that
/// there is no other.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_directory, short) = short(path)?;
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connect to the socket at `path`.
///
/// # Errors
/// `WouldBlock` where the other side has stopped taking connections and its queue is full: it is not waited for.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_directory, short) = short(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(&short)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Whether the peer is this user or root.
pub fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket needs a directory and a name"));
    };
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(parent)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((directory, short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_takes_no_connections_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control");
        let _listener = listen(&path).unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            match connect(&path) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(!waiting.is_empty());
    }

    #[test]
    fn paths_may_be_longer_than_an_address_has_room_for() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("control");
        let first = listen(&path).unwrap();
        drop(first);
        let listener = listen(&path).unwrap();
        let client = connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(is_ours(&server) && is_ours(&client));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(connect(&deep.join("none")).is_err());
    }
}
