//! Network device (VIRTIO 1.2 §5.1): one pair of queues, served by one thread that owns the network behind it.
//!
//! Offloads make frames of up to 64 KiB in both directions: checksums are left to whoever can do without them, and TCP
//! is cut into segments only where it leaves for a real wire. Receive buffers are merged, so that the driver need not
//! post 64 KiB for each frame.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::net_worker::NetWorker;
use super::{Activation, VirtioDevice};
use crate::vmm::backend::NetBackend;
use crate::vmm::memory::THREAD_STACK;

const ID: u16 = 1;
const CLASS: u32 = 0x02_00_00;
const QUEUE_SIZES: [u16; 2] = [256, 256];

/// The device takes frames with unfinished checksums.
pub const F_CSUM: u64 = 1 << 0;
/// The driver takes them.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// The device says how large packets may be.
pub const F_MTU: u64 = 1 << 3;
/// The device has an address.
pub const F_MAC: u64 = 1 << 5;
/// The driver takes uncut TCP over IPv4.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// The device takes it.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// A frame for the driver may be spread over several chains.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// The device says whether the link is up.
pub const F_STATUS: u64 = 1 << 16;

const OFFERED: u64 = F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC | F_GUEST_TSO4 | F_HOST_TSO4 | F_MRG_RXBUF | F_STATUS;
const LINK_UP: u16 = 1;
/// RFC 791: every host forwards 68 bytes. The upper end is what EC2's jumbo frames leave room for.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 68..=9216;

/// A network card.
pub struct VirtioNet {
    config: [u8; 12],
    /// Here while no thread has it.
    backend: Option<Box<dyn NetBackend>>,
    worker: Option<Worker>,
}

struct Worker {
    thread: JoinHandle<Box<dyn NetBackend>>,
    stop: Arc<EventFd>,
}

impl VirtioNet {
    /// A card with this address, for packets of up to `mtu` bytes (68 to 9216).
    pub fn new(mac: [u8; 6], mtu: u16, backend: Box<dyn NetBackend>) -> io::Result<Self> {
        if !MTU_RANGE.contains(&mtu) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("MTU {mtu} is not from 68 to 9216")));
        }
        let mut config = [0; 12];
        config[..6].copy_from_slice(&mac);
        config[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
        // One pair of queues: read by nobody without VIRTIO_NET_F_MQ, and still true.
        config[8..10].copy_from_slice(&1u16.to_le_bytes());
        config[10..].copy_from_slice(&mtu.to_le_bytes());
        Ok(VirtioNet { config, backend: Some(backend), worker: None })
    }
}

impl VirtioDevice for VirtioNet {
    fn id(&self) -> u16 {
        ID
    }

    fn class(&self) -> u32 {
        CLASS
    }

    fn features(&self) -> u64 {
        OFFERED
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn accepts(&self, features: u64) -> bool {
        // Segmentation needs checksums (§5.1.3.1).
        let implies = |feature: u64, needed: u64| features & feature == 0 || features & needed != 0;
        implies(F_GUEST_TSO4, F_GUEST_CSUM) && implies(F_HOST_TSO4, F_CSUM)
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { features, queues, interrupt } = activation;
        let [Some(rx), Some(tx)] = <[_; 2]>::try_from(queues).unwrap_or_default() else {
            return Err(io::Error::other("the receive or the transmit queue is missing"));
        };
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let backend = self.backend.take().ok_or_else(|| io::Error::other("the network behind it is gone"))?;
        let worker = NetWorker::new(rx, tx, features, interrupt, Arc::clone(&stop));
        let thread =
            thread::Builder::new().name("net".into()).stack_size(THREAD_STACK).spawn(move || worker.run(backend))?;
        self.worker = Some(Worker { thread, stop });
        Ok(())
    }

    fn reset(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        // Full or not, it is readable then.
        let _ = worker.stop.write(1);
        match worker.thread.join() {
            Ok(backend) => self.backend = Some(backend),
            Err(_) => log::error!("the network's thread panicked; the card is dead"),
        }
    }

    fn shutdown(&mut self) {
        self.reset();
        self.backend = None;
    }
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
