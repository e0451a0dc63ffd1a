//! One TCP connection: a smoltcp socket towards the guest, and on the other side a host socket or a session in this
//! process. The state of both sides is driven from one place, [`Flow::pump`].

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};

use super::host;
use super::session::Session;

/// The guest's port, and the other end as the guest sees it.
pub(crate) type FlowKey = (u16, SocketAddrV4);

/// A guest that lost its memory of a connection is found out by these.
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
const SILENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(300);
/// How long a connection attempt towards the guest lasts.
const ATTEMPT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(20);
/// Long enough for a delayed acknowledgement of the last segment.
pub(crate) const LINGER: Duration = Duration::from_millis(50);

/// A connection.
pub(crate) struct Flow {
    pub key: FlowKey,
    /// A set with just this socket: smoltcp visits every socket of a set for each packet.
    pub set: SocketSet<'static>,
    handle: SocketHandle,
    pub peer: Peer,
    /// It waits for room in the outbox.
    pub blocked: bool,
    /// When it last had something to do that was due at a time.
    pub armed: Option<Instant>,
    /// Since when it waits out its end.
    pub ended: Option<Instant>,
    /// The guest's first sequence number, for error messages.
    pub sequence: u32,
}

/// The far side.
pub(crate) enum Peer {
    Host(HostPeer),
    Local(Session),
}

/// A host socket.
pub(crate) struct HostPeer {
    pub fd: OwnedFd,
    /// `connect` has not finished.
    pub connecting: bool,
    /// The connection came from the host, and the guest has not accepted yet.
    attempt: bool,
    pub readable: bool,
    pub writable: bool,
    /// The other end or an error ended reading, maybe behind data.
    pub hung_up: bool,
    /// All was read.
    eof: bool,
    /// The guest's end was passed on.
    shut: bool,
}

impl HostPeer {
    pub fn new(fd: OwnedFd, connecting: bool, attempt: bool) -> HostPeer {
        HostPeer {
            fd,
            connecting,
            attempt,
            readable: !connecting,
            writable: !connecting,
            hung_up: false,
            eof: false,
            shut: false,
        }
    }
}

impl Flow {
    /// A flow with buffers of `receive` and `send` bytes. Memory is taken as they fill: fresh zeroed pages are the
    /// kernel's, and rings that run empty start over at the front.
    pub fn new(key: FlowKey, peer: Peer, receive: usize, send: usize, sequence: u32) -> Flow {
        let mut socket = Socket::new(SocketBuffer::new(vec![0; receive]), SocketBuffer::new(vec![0; send]));
        // The link to the guest loses nothing.
        socket.set_congestion_control(CongestionControl::None);
        // The far side decides what to hold back.
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(SILENCE));
        if let Peer::Host(host) = &peer {
            socket.pause_synack(host.connecting);
            if host.attempt {
                socket.set_timeout(Some(ATTEMPT));
            }
        }
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Flow { key, set, handle, peer, blocked: false, armed: None, ended: None, sequence }
    }

    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }

    pub fn state(&self) -> State {
        self.set.get::<Socket<'_>>(self.handle).state()
    }

    /// Whether nothing is left to say to the guest.
    pub fn is_over(&self) -> bool {
        let socket = self.set.get::<Socket<'_>>(self.handle);
        socket.remote_endpoint().is_none() && matches!(socket.state(), State::Closed | State::Listen)
    }

    pub fn is_connecting(&self) -> bool {
        matches!(&self.peer, Peer::Host(host) if host.connecting)
    }

    /// Move what can be moved.
    pub fn pump(&mut self, now: Instant) -> Pumped {
        let socket: &mut Socket<'static> = self.set.get_mut(self.handle);
        match &mut self.peer {
            Peer::Host(host) if host.connecting => Pumped::default(),
            Peer::Host(host) => {
                host.pump(socket);
                Pumped::default()
            }
            Peer::Local(session) => Pumped { request: session.pump(socket, now) },
        }
    }

    /// The connection ends here; let the host's side see how.
    pub fn finish(self) {
        if let Peer::Host(host) = self.peer
            && !(host.eof && host.shut)
        {
            host::reset_on_close(&host.fd);
        }
    }
}

/// What [`Flow::pump`] found.
#[derive(Default)]
pub(crate) struct Pumped {
    /// A DNS message to be resolved.
    pub request: Option<Vec<u8>>,
}

/// Whether the guest has ended its direction.
pub(crate) fn guest_ended(state: State) -> bool {
    matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait)
}

impl HostPeer {
    fn pump(&mut self, socket: &mut Socket<'static>) {
        if self.attempt && socket.state() == State::Established {
            self.attempt = false;
            socket.set_timeout(Some(SILENCE));
        }
        if self.guest_to_host(socket).is_err() || self.host_to_guest(socket).is_err() {
            // The host's side is gone: the guest gets a reset.
            socket.abort();
        }
    }

    fn guest_to_host(&mut self, socket: &mut Socket<'static>) -> Result<(), Errno> {
        while self.writable && socket.can_recv() {
            let moved = socket.recv(|bytes| match host::transmit(&self.fd, bytes) {
                Ok(length) => (length, Ok(length == bytes.len())),
                Err(error) => (0, Err(error)),
            });
            match moved {
                Ok(Ok(all)) => self.writable = all,
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        if !self.shut && socket.recv_queue() == 0 && guest_ended(socket.state()) {
            self.shut = true;
            // An error means that nobody is left to be told.
            let _ = shutdown(&self.fd, Shutdown::Write);
        }
        Ok(())
    }

    fn host_to_guest(&mut self, socket: &mut Socket<'static>) -> Result<(), Errno> {
        while self.readable && !self.eof && socket.can_send() {
            let moved = socket.send(|room| match host::receive(&self.fd, room) {
                Ok(length) => (length, Ok((length, length == room.len()))),
                Err(error) => (0, Err(error)),
            });
            match moved {
                Ok(Ok((0, _))) => self.eof = true,
                // A short read took all there was (epoll(7)), unless the end was announced: then it must be fetched.
                Ok(Ok((_, all))) => self.readable = all || self.hung_up,
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        if self.eof && socket.may_send() {
            socket.close();
        }
        Ok(())
    }
}
