//! Message-signalled interrupts, as devices see them and as the machine provides them.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// One MSI or MSI-X message: what the device would write to memory (PCI 3.0 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Target address; the local APIC window on x86.
    pub address: u64,
    /// Data: vector and delivery mode on x86.
    pub data: u32,
}

/// An interrupt line of the machine: a write to `fd` injects the message that was routed to it last.
#[derive(Clone, Debug)]
pub struct MsiLine {
    /// The machine's number of the line (a GSI on KVM).
    pub gsi: u32,
    /// Writing 1 raises the interrupt (an irqfd on KVM).
    pub fd: Arc<EventFd>,
}

/// Where PCI functions get their interrupt lines from. KVM implements it; tests use a table of eventfds.
pub trait MsiRouter: Send + Sync {
    /// Allocate a line. It injects nothing until a message is routed to it.
    fn allocate(&self) -> io::Result<MsiLine>;
    /// From now on `line` injects `message`; `None` takes the route away.
    fn route(&self, line: &MsiLine, message: Option<MsiMessage>) -> io::Result<()>;
    /// Give `line` back: it injects nothing any more, and its number may be allocated again.
    fn free(&self, line: &MsiLine) -> io::Result<()> {
        self.route(line, None)
    }
}

/// A level-triggered pin of an interrupt controller: the guest is interrupted as long as it is raised and not masked, also
/// when it was raised before the guest unmasked it.
pub trait LevelLine: Send + Sync {
    /// Raise or lower the pin.
    fn set(&self, raised: bool);
}
