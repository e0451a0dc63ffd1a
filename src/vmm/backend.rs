//! What the devices need from outside the machine: blocks, frames and a place for console output.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::VolatileSlice;

/// Whether an access may wait for the host's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Block until the data moved.
    Allowed,
    /// Give up with [`io::ErrorKind::WouldBlock`], with nothing changed that a repeat would not do again, where the
    /// data is not at hand in the page cache. A back end that can't tell always gives up.
    Never,
}

/// A disk as a device sees it: bytes at offsets, straight from and to guest memory.
///
/// Callers keep `offset + length` within [`size`](Self::size) and aligned to [`BLOCK_SIZE`]; a back end answers
/// anything else with [`io::ErrorKind::InvalidInput`]. Methods are called from several threads at once.
pub trait BlockBackend: Send + Sync {
    /// Size in bytes, a multiple of [`BLOCK_SIZE`]. It may grow while the machine runs.
    fn size(&self) -> u64;
    /// Fill all of `to` from `offset`.
    fn read(&self, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()>;
    /// Write all of `from` at `offset`. Durable only after [`flush`](Self::flush).
    fn write(&self, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()>;
    /// Make completed writes durable.
    fn flush(&self) -> io::Result<()>;
    /// Make the range read as zeros; `deallocate` allows to give its space back.
    fn write_zeroes(&self, offset: u64, length: u64, deallocate: bool) -> io::Result<()>;
    /// The guest no longer needs the range: it reads as zeros or as before afterwards.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;
    /// What holds accesses to this disk back, if anything does. A device asks once, and then for each access before it makes it.
    fn throttle(&self) -> Option<Arc<dyn Throttle>> {
        None
    }
}

/// An access to a disk that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether the disk is written.
    pub write: bool,
    /// Where, in bytes.
    pub offset: u64,
    /// The bytes that are moved.
    pub length: u64,
}

/// Holds accesses to a disk back, as the limits of a volume do.
pub trait Throttle: Send + Sync {
    /// An access is to be made, and will be. Answers how long after `now` that may be.
    fn take(&self, access: Access, now: Instant) -> Duration;
    /// For how long accesses were held back so far.
    fn held_back(&self) -> HeldBack {
        HeldBack::default()
    }
}

/// For how long accesses were held back, in microseconds, by what held each back longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// The volume's operations.
    pub volume_operations: u64,
    /// The volume's bytes.
    pub volume_bytes: u64,
    /// The operations of all of the instance's volumes.
    pub instance_operations: u64,
    /// Their bytes.
    pub instance_bytes: u64,
}

/// The unit of disk addresses, in bytes.
pub const BLOCK_SIZE: u64 = 512;

/// What the sender of a frame left to the receiver (the useful part of `virtio_net_hdr`, VIRTIO 1.2 §5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The TCP or UDP checksum is not complete: it covers the pseudo header only, from this offset of the frame ...
    pub checksum: Option<PartialChecksum>,
    /// A TCP frame to be cut into segments with this much payload each.
    pub tcp_segment: Option<u16>,
    /// The checksum was verified (towards the guest: it need not look).
    pub checksum_valid: bool,
}

/// Where an unfinished checksum starts and is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Offset in the frame from which the checksum is summed.
    pub start: u16,
    /// Offset from `start` at which it is stored.
    pub offset: u16,
}

/// An Ethernet frame on its way to the guest, without virtio header.
#[derive(Debug, Default)]
pub struct Frame {
    /// The frame's bytes, from the destination address on.
    pub bytes: Vec<u8>,
    /// What is left to the guest.
    pub offload: Offload,
}

/// The network behind a NIC. It belongs to the NIC's thread alone.
pub trait NetBackend: Send {
    /// What the guest's driver accepts, once it is known: frames whose checksum is [`Offload::checksum`]
    /// (VIRTIO_NET_F_GUEST_CSUM) and frames to be cut by [`Offload::tcp_segment`] (VIRTIO_NET_F_GUEST_TSO4). A back end
    /// uses neither before it is told, and neither again after a call that says so (a driver that was reset).
    fn set_guest_offload(&mut self, _checksum: bool, _tcp_segment: bool) {}
    /// A frame from the guest. Answers may be ready for [`receive`](Self::receive) at once.
    fn transmit(&mut self, frame: &[u8], offload: Offload, now: Instant);
    /// The next frame for the guest. Called only when the guest has room for one; what is not fetched stays queued
    /// (bounded) in the back end.
    fn receive(&mut self) -> Option<Frame>;
    /// Take a delivered frame's buffer back for reuse.
    fn recycle(&mut self, _frame: Frame) {}
    /// Serve sockets and timers. Answers when it wants to be called again at the latest.
    fn poll(&mut self, now: Instant) -> Option<Duration>;
    /// A descriptor (an epoll instance, as a rule) that is readable when [`poll`](Self::poll) has work.
    fn event_fd(&self) -> RawFd;
}

/// Takes what the guest writes to its serial console.
pub trait ConsoleSink: Send {
    /// Some bytes, as the guest wrote them. Must not block for long: a vCPU waits.
    fn write(&mut self, bytes: &[u8]);
}
