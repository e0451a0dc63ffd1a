//! Entropy device (VIRTIO 1.2 §5.4), fed by the host's `getrandom`.
//!
//! Linux asks for some dozens of bytes now and then: the vCPU that kicks does the work, and no thread waits for it.
#![forbid(unsafe_code)]

use std::io;

use super::interrupt::Interrupt;
use super::queue::{Buffers, DeviceQueue, QueueError, scatter};
use super::{Activation, Service, VirtioDevice};

const ID: u16 = 4;
/// No defined class.
const CLASS: u32 = 0x00_ff_00;
const QUEUE_SIZES: [u16; 1] = [64];
/// The most bytes that one request gets.
const MAX_REQUEST: u64 = 64 << 10;
/// Rings full of requests served for one kick.
const MAX_ROUNDS: u32 = 8;
/// Bytes fetched at once.
const CHUNK: usize = 4096;

/// The device. It has no state but its queue.
#[derive(Default)]
pub struct VirtioRng {
    active: Option<(DeviceQueue, Interrupt)>,
    buffers: Buffers,
}

impl VirtioRng {
    /// A device that the driver has not found yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for VirtioRng {
    fn id(&self) -> u16 {
        ID
    }

    fn class(&self) -> u32 {
        CLASS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn service(&self) -> Service {
        Service::Inline
    }

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        let queue =
            activation.queues.pop().flatten().ok_or_else(|| io::Error::other("the request queue is missing"))?;
        self.active = Some((queue.queue, activation.interrupt));
        Ok(())
    }

    fn kicked(&mut self, _queue: u16) {
        let Some((queue, interrupt)) = &mut self.active else { return };
        if let Err(error) = serve(queue, &mut self.buffers) {
            log::warn!("entropy device: {error}");
            interrupt.needs_reset();
            self.active = None;
        }
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

/// Serve all that is there. A vCPU waits meanwhile, so that even a driver that refills the ring from another vCPU can't
/// have many rounds of it.
fn serve(queue: &mut DeviceQueue, buffers: &mut Buffers) -> Result<(), QueueError> {
    queue.disable_kicks()?;
    for _ in 0..MAX_ROUNDS * u32::from(queue.size()) {
        buffers.clear();
        if let Some(chain) = queue.pop(buffers)? {
            let written = fill(queue, buffers, chain.writable.min(MAX_REQUEST) as usize)?;
            queue.push_used(chain.head, written)?;
            queue.publish()?;
        } else if !queue.enable_kicks()? {
            return queue.interrupt();
        }
    }
    Err(QueueError::Flooded)
}

/// Fill the start of a request's buffers with `wanted` random bytes.
fn fill(queue: &DeviceQueue, buffers: &mut Buffers, wanted: usize) -> Result<u32, QueueError> {
    let mut chunk = [0; CHUNK];
    let mut done = 0;
    let mut segments = &mut buffers.writable[..];
    while done < wanted {
        let part = &mut chunk[..CHUNK.min(wanted - done)];
        if let Err(error) = getrandom::fill(part) {
            log::warn!("entropy device: the host has no random bytes: {error}");
            break;
        }
        let length = scatter(queue.memory(), segments, &[part])?;
        segments = super::queue::advance(segments, length);
        done += length;
    }
    Ok(done as u32)
}

#[cfg(test)]
#[path = "rng_tests.rs"]
mod tests;
