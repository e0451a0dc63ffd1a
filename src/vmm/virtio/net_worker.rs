//! The thread of a network card: frames from the transmit queue to the network behind it, and back to the receive queue.
//!
//! It sleeps in one `epoll_wait` on both doorbells, the network's descriptor and the stop signal. Each round takes what
//! is there, up to a budget, and raises at most one interrupt for each queue.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::ActiveQueue;
use super::interrupt::Interrupt;
use super::net::{F_GUEST_CSUM, F_GUEST_TSO4, F_MRG_RXBUF};
use super::net_header::{self, HEADER_SIZE};
use super::queue::{Buffers, Chain, QueueError, gather, scatter};
use crate::vmm::backend::{Frame, NetBackend};

/// The largest IP packet with an Ethernet header and a VLAN tag.
const MAX_FRAME: usize = 65_535 + 18;
/// No frame is shorter than its Ethernet header.
const MIN_FRAME: usize = 14;
/// Frames in each direction before the other one, the network and the stop signal get their turn.
const BUDGET: usize = 128;

const STOP: u64 = 0;
const WAKE: u64 = 1;
const RX_DOORBELL: u64 = 2;
const TX_DOORBELL: u64 = 3;

/// Why the thread gave up on its queues.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("can't wait for events: {0}")]
    Wait(#[from] io::Error),
}

/// What became of a frame for the driver.
enum Delivery {
    /// The driver has it, or nobody will.
    Done,
    /// There are too few buffers now. The driver will kick when it adds some.
    NoRoom,
}

/// The thread's state.
pub struct NetWorker {
    rx: ActiveQueue,
    tx: ActiveQueue,
    features: u64,
    interrupt: Interrupt,
    stop: Arc<EventFd>,
    /// Fetched from the network, but without room in the receive queue.
    pending: Option<Frame>,
    buffers: Buffers,
    chains: Vec<Chain>,
    /// Header and frame from the driver.
    packet: Vec<u8>,
}

impl NetWorker {
    /// For queues of a driver that negotiated `features`. `stop` ends it.
    pub fn new(rx: ActiveQueue, tx: ActiveQueue, features: u64, interrupt: Interrupt, stop: Arc<EventFd>) -> Self {
        NetWorker {
            rx,
            tx,
            features,
            interrupt,
            stop,
            pending: None,
            buffers: Buffers::default(),
            chains: Vec::new(),
            packet: vec![0; HEADER_SIZE + MAX_FRAME],
        }
    }

    /// Serve until stopped. The network is given back, for the next driver.
    pub fn run(mut self, mut backend: Box<dyn NetBackend>) -> Box<dyn NetBackend> {
        let _panics = TellOnPanic(self.interrupt.clone());
        backend.set_guest_offload(self.features & F_GUEST_CSUM != 0, self.features & F_GUEST_TSO4 != 0);
        if let Err(error) = self.serve_until_stopped(backend.as_mut()) {
            log::warn!("network card: {error}");
            self.interrupt.needs_reset();
        }
        backend
    }

    fn serve_until_stopped(&mut self, backend: &mut dyn NetBackend) -> Result<(), WorkerError> {
        let epoll = Epoll::new()?;
        let watch = |fd: RawFd, what| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, what));
        watch(self.stop.as_raw_fd(), STOP)?;
        watch(self.rx.doorbell.as_raw_fd(), RX_DOORBELL)?;
        watch(self.tx.doorbell.as_raw_fd(), TX_DOORBELL)?;
        watch(backend.event_fd(), WAKE)?;
        let mut events = [EpollEvent::default(); 4];
        loop {
            let timeout = self.serve(backend)?;
            let count = match epoll.wait(timeout.map_or(-1, milliseconds), &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                result => result?,
            };
            for event in events.iter().take(count) {
                // The counters only wake; what they counted is in the rings.
                match event.data() {
                    STOP => return Ok(()),
                    RX_DOORBELL => drop(self.rx.doorbell.read()),
                    TX_DOORBELL => drop(self.tx.doorbell.read()),
                    _ => {}
                }
            }
        }
    }

    /// One round. Answers how long to sleep at most.
    fn serve(&mut self, backend: &mut dyn NetBackend) -> Result<Option<Duration>, QueueError> {
        let now = Instant::now();
        let more_to_send = self.transmit(backend, now)?;
        self.tx.queue.interrupt()?;
        let timeout = backend.poll(now);
        let more_to_receive = self.receive(backend)?;
        self.rx.queue.interrupt()?;
        Ok(if more_to_send || more_to_receive { Some(Duration::ZERO) } else { timeout })
    }

    /// Frames of the driver to the network. Answers whether there may be more.
    fn transmit(&mut self, backend: &mut dyn NetBackend, now: Instant) -> Result<bool, QueueError> {
        let queue = &mut self.tx.queue;
        queue.disable_kicks()?;
        for _ in 0..BUDGET {
            self.buffers.clear();
            let Some(chain) = queue.pop(&mut self.buffers)? else {
                if queue.enable_kicks()? {
                    continue;
                }
                return Ok(false);
            };
            // What can't be a frame is used up and forgotten, as a wire would.
            if (HEADER_SIZE + MIN_FRAME..=self.packet.len()).contains(&(chain.readable as usize)) {
                let length = gather(queue.memory(), &self.buffers.readable, &mut self.packet)?;
                if let Some((header, frame)) = self.packet[..length].split_first_chunk::<HEADER_SIZE>()
                    && let Some(offload) = net_header::parse(header, frame, self.features)
                {
                    backend.transmit(frame, offload, now);
                }
            }
            queue.push_used(chain.head, 0)?;
            queue.publish()?;
        }
        Ok(true)
    }

    /// Frames of the network to the driver. Answers whether there may be more.
    fn receive(&mut self, backend: &mut dyn NetBackend) -> Result<bool, QueueError> {
        self.rx.queue.disable_kicks()?;
        for _ in 0..BUDGET {
            let frame = match self.pending.take() {
                Some(frame) => frame,
                None => {
                    if !self.rx.queue.has_available()? && !self.rx.queue.enable_kicks()? {
                        return Ok(false);
                    }
                    let Some(frame) = backend.receive() else { return Ok(false) };
                    frame
                }
            };
            let mut frame = frame;
            match self.deliver(&mut frame)? {
                Delivery::Done => backend.recycle(frame),
                Delivery::NoRoom => {
                    self.pending = Some(frame);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Put one frame into as many of the driver's buffers as it takes.
    fn deliver(&mut self, frame: &mut Frame) -> Result<Delivery, QueueError> {
        if !(MIN_FRAME..=MAX_FRAME).contains(&frame.bytes.len()) {
            return Ok(Delivery::Done);
        }
        let Some(mut header) = net_header::build(frame, self.features) else {
            return Ok(Delivery::Done);
        };
        let needed = (HEADER_SIZE + frame.bytes.len()) as u64;
        if !self.find_room(needed)? {
            // Buffers that are there are not enough. With the whole ring on the table they never will be.
            let count = self.chains.len() as u16;
            self.rx.queue.put_back(count);
            let hopeless = count == self.rx.queue.size() || count > 0 && self.features & F_MRG_RXBUF == 0;
            return Ok(if hopeless { Delivery::Done } else { Delivery::NoRoom });
        }
        net_header::set_buffers(&mut header, self.chains.len() as u16);
        scatter(self.rx.queue.memory(), &self.buffers.writable, &[&header, &frame.bytes])?;
        let mut left = needed;
        for chain in &self.chains {
            let written = left.min(chain.writable);
            self.rx.queue.push_used(chain.head, written as u32)?;
            left -= written;
        }
        self.rx.queue.publish()?;
        Ok(Delivery::Done)
    }

    /// Take chains with `needed` writable bytes: one, or several where the driver merges. `false`: all there were are
    /// taken, and the driver will kick when it adds one.
    fn find_room(&mut self, needed: u64) -> Result<bool, QueueError> {
        let most = if self.features & F_MRG_RXBUF == 0 { 1 } else { usize::from(self.rx.queue.size()) };
        let mut room = 0;
        self.buffers.clear();
        self.chains.clear();
        // Twice, as each chain may come just between the look and the request for a kick.
        for _ in 0..2 * most {
            if let Some(chain) = self.rx.queue.pop(&mut self.buffers)? {
                self.chains.push(chain);
                room += chain.writable;
                if room >= needed {
                    return Ok(true);
                }
            } else if !self.rx.queue.enable_kicks()? {
                return Ok(false);
            }
            if self.chains.len() == most {
                return Ok(false);
            }
        }
        Err(QueueError::Flooded)
    }
}

/// Asks the driver for a reset when the network's code panicked.
struct TellOnPanic(Interrupt);

impl Drop for TellOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.needs_reset();
        }
    }
}

/// Rounded up: waking too early would only mean to wait again.
fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}
