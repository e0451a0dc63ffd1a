//! COM1: a 16550A (vm-superio's model) with the guest's console output collected into bursts.
//!
//! Each byte that the guest writes is an exit. KVM could collect them (coalesced port I/O), and must not: a guest whose
//! driver has filled the FIFO halts until the "transmitter empty" interrupt, the halt does not leave KVM, and the
//! interrupt would wait for the bytes that wait in KVM's ring.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial as Uart, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::backend::ConsoleSink;
use crate::vmm::device::{Action, BusDevice};

/// Ports taken.
pub const PORTS: u16 = 8;
/// Offset of the transmit and receive register.
pub const DATA_OFFSET: u16 = 0;
/// Offset of the line status register.
const LINE_STATUS_OFFSET: u64 = 5;
/// Line status: the byte to be read next is a break (PC16550D, LSR bit 4).
const LINE_STATUS_BREAK: u8 = 1 << 4;
/// Input that waits for the guest to read is bounded; more is dropped, as a wire would.
const MAX_PENDING_INPUT: usize = 16 << 10;
/// Output that waits for the end of its burst.
const BURST: usize = 256;

/// The interrupt line.
struct Line(Arc<EventFd>);

impl Trigger for Line {
    type E = io::Error;
    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Collects bytes.
struct Output(Vec<u8>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The serial port.
pub struct Serial {
    uart: Uart<Line, NoEvents, Output>,
    sink: Box<dyn ConsoleSink>,
    pending: VecDeque<u8>,
    /// The guest has written since it last read the line status.
    busy: bool,
    /// The receive FIFO holds nothing but a break.
    breaking: bool,
    /// Bytes that the receive FIFO takes.
    fifo_size: usize,
}

impl Serial {
    /// A port that raises `interrupt` and sends the guest's output to `sink`.
    pub fn new(interrupt: Arc<EventFd>, sink: Box<dyn ConsoleSink>) -> Self {
        let uart = Uart::new(Line(interrupt), Output(Vec::with_capacity(BURST)));
        let fifo_size = uart.fifo_capacity();
        Self { uart, sink, pending: VecDeque::new(), busy: false, breaking: false, fifo_size }
    }

    /// Give the guest `bytes` to read. Returns how many were taken.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(MAX_PENDING_INPUT - self.pending.len());
        self.pending.extend(&bytes[..taken]);
        self.feed();
        taken
    }

    /// Send a break and then `key`: the magic SysRq sequence of a Linux console (sysrq.rst). It jumps the queue of input that the
    /// guest has not read, and replaces what is in the FIFO.
    pub fn sysrq(&mut self, key: u8) {
        for _ in 0..self.fifo_size - self.uart.fifo_capacity() {
            self.uart.read(DATA_OFFSET as u8);
        }
        self.pending.push_front(key);
        self.breaking = self.uart.enqueue_raw_bytes(&[0]).is_ok_and(|n| n == 1);
    }

    /// Take a byte that the guest wrote to register `offset`, without sending output on yet.
    pub fn write_register(&mut self, offset: u16, value: u8) {
        // The only failures are of an eventfd that overflows, which takes 2^64 unread writes.
        let _ = self.uart.write(offset as u8, value);
        self.busy = true;
        if self.uart.writer().0.len() >= BURST {
            self.flush();
        }
    }

    /// Send collected output to the sink.
    pub fn flush(&mut self) {
        let output = &mut self.uart.writer_mut().0;
        if !output.is_empty() {
            self.sink.write(output);
            output.clear();
        }
    }

    /// Move pending input into the receive FIFO as far as it has room.
    fn feed(&mut self) {
        if self.breaking {
            return;
        }
        let room = self.uart.fifo_capacity().min(self.pending.len());
        if room > 0 {
            let bytes: Vec<u8> = self.pending.iter().take(room).copied().collect();
            // None are taken in loop-back mode; they wait.
            let taken = self.uart.enqueue_raw_bytes(&bytes).unwrap_or(0);
            self.pending.drain(..taken.min(room));
        }
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.uart.read(offset as u8);
            if offset == LINE_STATUS_OFFSET && self.breaking {
                *byte |= LINE_STATUS_BREAK;
            }
            if offset != LINE_STATUS_OFFSET || !std::mem::take(&mut self.busy) {
                self.flush();
            }
            if offset == u64::from(DATA_OFFSET) {
                self.breaking = false;
            }
            if offset == u64::from(DATA_OFFSET) && !self.pending.is_empty() {
                self.feed();
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if let &[value] = data {
            self.write_register(offset as u16, value);
            self.flush();
        }
        Action::None
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
#[path = "serial_tests.rs"]
mod tests;
