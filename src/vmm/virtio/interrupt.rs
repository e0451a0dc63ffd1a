//! From the device to its driver: interrupts, and the device's part of the status (VIRTIO 1.2 §4.1.4.3, §4.1.4.5).
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use super::status;
use crate::vmm::pci::msix::MsixHandle;

/// No interrupt for this event.
pub const NO_VECTOR: u16 = 0xffff;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

struct Inner {
    msix: MsixHandle,
    isr: AtomicU8,
    status: AtomicU8,
    config_vector: AtomicU16,
    queue_vectors: Box<[AtomicU16]>,
}

/// Tells the driver what happened. Cheap to clone, takes no lock.
#[derive(Clone)]
pub struct Interrupt(Arc<Inner>);

impl Interrupt {
    /// For a device with `queues` queues. No event has a vector yet.
    pub fn new(msix: MsixHandle, queues: usize) -> Self {
        Interrupt(Arc::new(Inner {
            msix,
            isr: AtomicU8::new(0),
            status: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
        }))
    }

    /// Buffers of `queue` were used.
    pub fn queue_used(&self, queue: u16) {
        self.0.isr.fetch_or(ISR_QUEUE, Ordering::Relaxed);
        self.0.msix.signal(self.queue_vector(queue));
    }

    /// The device's configuration changed.
    pub fn config_changed(&self) {
        self.0.isr.fetch_or(ISR_CONFIG, Ordering::Relaxed);
        self.0.msix.signal(self.config_vector());
    }

    /// The device can't go on until the driver resets it: a ring is broken.
    pub fn needs_reset(&self) {
        let before = self.0.status.fetch_or(status::NEEDS_RESET, Ordering::SeqCst);
        if before & status::DRIVER_OK != 0 {
            self.config_changed();
        }
    }

    /// The status register.
    pub fn status(&self) -> u8 {
        self.0.status.load(Ordering::SeqCst)
    }

    /// The driver's progress: add bits to the status.
    pub(super) fn add_status(&self, bits: u8) {
        self.0.status.fetch_or(bits, Ordering::SeqCst);
    }

    /// Read and clear the ISR register.
    pub(super) fn take_isr(&self) -> u8 {
        self.0.isr.swap(0, Ordering::SeqCst)
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.0.config_vector.load(Ordering::Relaxed)
    }

    pub(super) fn set_config_vector(&self, vector: u16) {
        self.0.config_vector.store(vector, Ordering::Relaxed);
    }

    /// [`NO_VECTOR`] for a queue that does not exist.
    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        self.0.queue_vectors.get(usize::from(queue)).map_or(NO_VECTOR, |vector| vector.load(Ordering::Relaxed))
    }

    pub(super) fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(slot) = self.0.queue_vectors.get(usize::from(queue)) {
            slot.store(vector, Ordering::Relaxed);
        }
    }

    /// Back to the state after power-on.
    pub(super) fn reset(&self) {
        self.0.isr.store(0, Ordering::SeqCst);
        self.0.status.store(0, Ordering::SeqCst);
        self.set_config_vector(NO_VECTOR);
        self.0.queue_vectors.iter().for_each(|vector| vector.store(NO_VECTOR, Ordering::Relaxed));
    }
}
