//! Connections from the host that may not enter. The host's kernel has accepted them already, so they can't be dropped as a packet
//! is: they are held and nothing is said, so that a client waits as it does before a filter that drops its SYN. Its attempts
//! would go on, so the gate is asked again now and then, and one that may enter by now enters.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::config::{NewFlow, PortForward};
use super::core::Core;
use super::host;
use super::slab::{Key, Kind};
use super::tcp::TcpFlows;

/// The most at once; beyond, the oldest is reset.
const MOST: usize = 64;
/// How long Linux goes on trying to connect, about (`tcp_syn_retries`, tcp(7)).
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const RETRY: Duration = Duration::from_secs(1);

/// The connections that are held.
#[derive(Default)]
pub(crate) struct Held {
    /// The oldest first.
    sockets: VecDeque<Socket>,
    armed: Option<Instant>,
}

struct Socket {
    fd: OwnedFd,
    forward: PortForward,
    from: SocketAddr,
    since: Instant,
}

impl Held {
    /// Hold a connection.
    pub fn hold(&mut self, core: &mut Core, fd: OwnedFd, forward: PortForward, from: SocketAddr) {
        if self.sockets.len() >= MOST {
            self.sockets.pop_front().into_iter().for_each(reset);
        }
        self.sockets.push_back(Socket { fd, forward, from, since: core.now });
        self.arm(core);
    }

    /// Look whether some may enter by now, and give up the old ones.
    pub fn expire(&mut self, core: &mut Core, tcp: &mut TcpFlows, at: Instant) {
        if self.armed != Some(at) {
            return;
        }
        self.armed = None;
        for socket in std::mem::take(&mut self.sockets) {
            let Socket { forward, from, since, .. } = socket;
            // Who gave up makes no more attempts.
            if host::has_hung_up(&socket.fd) || core.now.saturating_duration_since(since) >= PATIENCE {
                reset(socket);
            } else if core.admits(&NewFlow::In { forward, from }) {
                tcp.forward(core, socket.fd, forward.guest_port);
            } else {
                self.sockets.push_back(socket);
            }
        }
        self.arm(core);
    }

    fn arm(&mut self, core: &mut Core) {
        if !self.sockets.is_empty() {
            core.timers.arm(Key::fixed(Kind::Held, 0), core.now + RETRY, &mut self.armed);
        }
    }

    /// When the timer goes off.
    pub fn armed(&self) -> Option<Instant> {
        self.armed
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }
}

fn reset(socket: Socket) {
    host::reset_on_close(&socket.fd);
}
