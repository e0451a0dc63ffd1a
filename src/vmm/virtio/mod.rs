//! Virtio over PCI (VIRTIO 1.2 §4.1): transport, network device, entropy device.
//!
//! A device is a [`VirtioDevice`]: it says what it offers, gets its queues when the driver is ready, and lets go of them
//! on reset. [`pci::VirtioPci`] is everything between it and the driver: registers, status, feature negotiation, queue
//! set-up, interrupts. Modern devices only: no legacy interface, no transitional ids.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

pub mod common;
pub mod interrupt;
pub mod net;
mod net_header;
mod net_worker;
pub mod pci;
pub mod queue;
pub mod rng;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;

use interrupt::Interrupt;
use queue::DeviceQueue;

/// Who answers when the driver kicks a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A thread of the device, woken by the queue's [`ActiveQueue::doorbell`].
    Thread,
    /// [`VirtioDevice::kicked`], on the vCPU that wrote the doorbell. For requests that take microseconds and are rare.
    Inline,
}

/// A kind of device.
pub trait VirtioDevice: Send {
    /// The device's id (VIRTIO 1.2 §5): 1 is a network card.
    fn id(&self) -> u16;
    /// PCI class, sub-class and programming interface.
    fn class(&self) -> u32;
    /// The device's own feature bits (0 to 23 and from 50). The transport adds those of queues and transport.
    fn features(&self) -> u64;
    /// The largest size of each queue, a power of two.
    fn queue_sizes(&self) -> &[u16];
    /// Who answers kicks.
    fn service(&self) -> Service {
        Service::Thread
    }
    /// The device's configuration registers.
    fn config(&self) -> &[u8] {
        &[]
    }
    /// Whether the driver's choice of the offered features can be worked with.
    fn accepts(&self, _features: u64) -> bool {
        true
    }
    /// The driver is ready: begin to serve its queues. An error makes the device ask for a reset.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;
    /// The driver kicked a queue. Only called for [`Service::Inline`], between activation and reset.
    fn kicked(&mut self, _queue: u16) {}
    /// Stop. When this returns, guest memory is no longer touched and the queues are dropped. Also called when the
    /// device is not active.
    fn reset(&mut self);
    /// Stop for good and let go of back ends.
    fn shutdown(&mut self) {
        self.reset();
    }
}

/// What a device gets when the driver is ready.
pub struct Activation {
    /// The negotiated features, all of them.
    pub features: u64,
    /// The queues in their order; `None` where the driver did not enable one.
    pub queues: Vec<Option<ActiveQueue>>,
    /// For configuration changes and for giving up.
    pub interrupt: Interrupt,
}

/// A queue and its doorbell.
pub struct ActiveQueue {
    /// The rings.
    pub queue: DeviceQueue,
    /// Readable after the driver's kick.
    pub doorbell: Arc<EventFd>,
}
