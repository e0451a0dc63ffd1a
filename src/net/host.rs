//! Host sockets: non-blocking, close-on-exec, edge-triggered in one epoll instance.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, listen, recv, send,
    socket_with, sockopt,
};

use super::slab::Key;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// Watch a stream: each new readiness, either way, is told once.
pub(crate) fn watch(epoll: &OwnedFd, fd: &OwnedFd, key: Key) -> Result<(), Errno> {
    add(epoll, fd, key, EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP)
}

/// Watch a listener or a socket of datagrams: each arrival is told once.
pub(crate) fn watch_arrivals(epoll: &OwnedFd, fd: &OwnedFd, key: Key) -> Result<(), Errno> {
    add(epoll, fd, key, EventFlags::IN)
}

fn add(epoll: &OwnedFd, fd: &OwnedFd, key: Key, flags: EventFlags) -> Result<(), Errno> {
    epoll::add(epoll, fd, EventData::new_u64(key.to_u64()), flags | EventFlags::ET)
}

/// Begin a TCP connection. `Ok(true)`: it is there already.
pub(crate) fn tcp_connect(to: SocketAddr) -> Result<(OwnedFd, bool), Errno> {
    let fd = socket_with(family(to.ip()), SocketType::STREAM, FLAGS, None)?;
    prepare_stream(&fd);
    match connect(&fd, &to) {
        Ok(()) => Ok((fd, true)),
        Err(Errno::INPROGRESS) => Ok((fd, false)),
        Err(error) => Err(error),
    }
}

/// The guest's own TCP decides what to hold back.
pub(crate) fn prepare_stream(fd: &OwnedFd) {
    // Failure costs latency, nothing else.
    let _ = sockopt::set_tcp_nodelay(fd, true);
}

/// A UDP socket that talks to `to` only.
pub(crate) fn udp_connect(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let fd = socket_with(family(to.ip()), SocketType::DGRAM, FLAGS, None)?;
    connect(&fd, &to)?;
    Ok(fd)
}

/// An unprivileged ICMP echo socket (`net.ipv4.ping_group_range` permits it, or not).
pub(crate) fn ping_connect(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let protocol: Option<Protocol> = Some(ipproto::ICMP);
    let fd = socket_with(AddressFamily::INET, SocketType::DGRAM, FLAGS, protocol)?;
    connect(&fd, &to)?;
    Ok(fd)
}

/// A TCP listener.
pub(crate) fn tcp_listen(at: SocketAddr, backlog: i32) -> Result<OwnedFd, Errno> {
    let fd = socket_with(family(at.ip()), SocketType::STREAM, FLAGS, None)?;
    // A port in TIME_WAIT is free, as every server has it.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    bind(&fd, &at)?;
    listen(&fd, backlog)?;
    Ok(fd)
}

/// A UDP socket for many peers.
pub(crate) fn udp_bind(at: SocketAddr) -> Result<OwnedFd, Errno> {
    let fd = socket_with(family(at.ip()), SocketType::DGRAM, FLAGS, None)?;
    bind(&fd, &at)?;
    Ok(fd)
}

/// Take the next connection of a listener, and who made it.
pub(crate) fn accept(listener: &OwnedFd) -> Result<(OwnedFd, Option<SocketAddr>), Errno> {
    let (fd, from) = rustix::net::acceptfrom_with(listener, FLAGS)?;
    prepare_stream(&fd);
    Ok((fd, from.and_then(|from| SocketAddr::try_from(from).ok())))
}

/// The outcome of a connection attempt, or an error that came later.
pub(crate) fn pending_error(fd: &OwnedFd) -> Option<Errno> {
    match sockopt::socket_error(fd) {
        Ok(Ok(())) => None,
        Ok(Err(error)) | Err(error) => Some(error),
    }
}

/// Whether the other end has ended its direction of a stream, be there data before that or not.
pub(crate) fn has_hung_up(fd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&at_once)).is_ok()
        && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

/// Let the other end see a reset when `fd` is dropped.
pub(crate) fn reset_on_close(fd: &OwnedFd) {
    let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}

/// The address that the socket has.
pub(crate) fn local_address(fd: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(fd).ok()?).ok()
}

/// Read what is there.
pub(crate) fn receive(fd: impl AsFd, into: &mut [u8]) -> Result<usize, Errno> {
    retry(|| recv(&fd, &mut *into, RecvFlags::DONTWAIT).map(|(length, _)| length))
}

/// Write what fits.
pub(crate) fn transmit(fd: impl AsFd, from: &[u8]) -> Result<usize, Errno> {
    retry(|| send(&fd, from, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
}

/// Read a datagram and who sent it.
pub(crate) fn receive_from(fd: impl AsFd, into: &mut [u8]) -> Result<(usize, Option<SocketAddr>), Errno> {
    retry(|| {
        let (length, _, from) = rustix::net::recvfrom(&fd, &mut *into, RecvFlags::DONTWAIT)?;
        Ok((length, from.and_then(|from| SocketAddr::try_from(from).ok())))
    })
}

/// Send a datagram.
pub(crate) fn transmit_to(fd: impl AsFd, from: &[u8], to: SocketAddr) -> Result<usize, Errno> {
    retry(|| rustix::net::sendto(&fd, from, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to))
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => continue,
            other => return other,
        }
    }
}
