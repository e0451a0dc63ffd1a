//! Interrupt routing: pins of the in-kernel controllers, and message-signalled interrupts by irqfd.
//!
//! KVM knows interrupts by number (GSI): 0 to 23 are the pins of the I/O APIC, the first 16 of them also those of the two
//! 8259; from 24 on each number stands for one MSI message. `KVM_SET_GSI_ROUTING` replaces the whole table, and is dear; it
//! is called only when a message really changed.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::{KvmError, call};
use crate::vmm::interrupt::{LevelLine, MsiLine, MsiMessage, MsiRouter};
use crate::vmm::layout::GSI_MSI_BASE;

/// Pins of the two 8259 interrupt controllers.
const PIC_PINS: u32 = 16;
/// KVM's limit on routing entries, and on GSI numbers.
const MAX_ROUTES: u32 = 4096;
/// Numbers that are left for MSI: the fixed entries take from the same budget.
const MAX_LINES: u32 = MAX_ROUTES - GSI_MSI_BASE - PIC_PINS;

/// An irqfd for a pin of the I/O APIC: each write is an edge.
pub fn pin(vm: &VmFd, gsi: u32) -> Result<Arc<EventFd>, KvmError> {
    let fd = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
        .map_err(|e| KvmError::Call("an eventfd", vmm_sys_util::errno::Error::new(e.raw_os_error().unwrap_or(0))))?;
    call("KVM_IRQFD", vm.register_irqfd(&fd, gsi))?;
    Ok(Arc::new(fd))
}

/// One MSI line: what it is routed to, and whether its eventfd is known to KVM.
#[derive(Default)]
struct Line {
    message: Option<MsiMessage>,
    attached: bool,
}

/// MSI lines of a VM.
pub struct KvmMsiRouter {
    vm: Arc<VmFd>,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    all: Vec<Line>,
    /// Indices of those that were given back.
    free: Vec<u32>,
}

impl KvmMsiRouter {
    /// A router for `vm`.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, lines: Mutex::default() }
    }
}

fn os_error(e: vmm_sys_util::errno::Error) -> io::Error {
    io::Error::from_raw_os_error(e.errno())
}

impl MsiRouter for KvmMsiRouter {
    fn allocate(&self) -> io::Result<MsiLine> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let index = match lines.free.pop() {
            Some(index) => index,
            None => {
                let index = lines.all.len() as u32;
                if index >= MAX_LINES {
                    return Err(io::Error::new(
                        io::ErrorKind::QuotaExceeded,
                        "the machine has no interrupt numbers left",
                    ));
                }
                lines.all.push(Line::default());
                index
            }
        };
        Ok(MsiLine { gsi: GSI_MSI_BASE + index, fd: Arc::new(fd) })
    }

    fn route(&self, line: &MsiLine, message: Option<MsiMessage>) -> io::Result<()> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, entry) = lines.find(line)?;
        if entry.message == message {
            return Ok(());
        }
        entry.message = message;
        let attach = message.is_some() && !entry.attached;
        entry.attached |= attach;
        let messages = lines.all.iter().enumerate().filter_map(|(i, l)| Some((GSI_MSI_BASE + i as u32, l.message?)));
        let table = routing_table(messages);
        let table = KvmIrqRouting::from_entries(&table).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.vm.set_gsi_routing(&table).map_err(os_error)?;
        if attach {
            self.vm.register_irqfd(&line.fd, line.gsi).map_err(os_error)?;
        }
        Ok(())
    }

    fn free(&self, line: &MsiLine) -> io::Result<()> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, entry) = lines.find(line)?;
        // The route stays in KVM's table until the next change: nothing raises it.
        let Line { attached, .. } = std::mem::take(entry);
        if attached {
            self.vm.unregister_irqfd(&line.fd, line.gsi).map_err(os_error)?;
        }
        lines.free.push(index);
        Ok(())
    }
}

impl Lines {
    fn find(&mut self, line: &MsiLine) -> io::Result<(u32, &mut Line)> {
        let index = line.gsi.checked_sub(GSI_MSI_BASE);
        let entry = index.and_then(|i| Some((i, self.all.get_mut(i as usize)?)));
        entry.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not a line of this machine"))
    }
}

/// A pin of the I/O APIC that is driven by level.
pub struct KvmLevelLine {
    vm: Arc<VmFd>,
    gsi: u32,
}

impl KvmLevelLine {
    /// The pin `gsi` of `vm`.
    pub fn new(vm: Arc<VmFd>, gsi: u32) -> Self {
        Self { vm, gsi }
    }
}

impl LevelLine for KvmLevelLine {
    fn set(&self, raised: bool) {
        if let Err(error) = self.vm.set_irq_line(self.gsi, raised) {
            log::warn!("KVM refused to drive interrupt line {}: {error}", self.gsi);
        }
    }
}

/// The pins of the interrupt controllers as KVM has them by default, and the messages.
fn routing_table(messages: impl Iterator<Item = (u32, MsiMessage)>) -> Vec<kvm_irq_routing_entry> {
    let mut table = Vec::with_capacity((GSI_MSI_BASE + PIC_PINS) as usize + messages.size_hint().0);
    for gsi in 0..GSI_MSI_BASE {
        if gsi < PIC_PINS {
            let chip = if gsi < 8 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
            table.push(pin_entry(gsi, chip, gsi % 8));
        }
        table.push(pin_entry(gsi, KVM_IRQCHIP_IOAPIC, gsi));
    }
    table.extend(messages.map(|(gsi, message)| msi_entry(gsi, message)));
    table
}

fn pin_entry(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = irqchip;
    entry.u.irqchip.pin = pin;
    entry
}

fn msi_entry(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}

#[cfg(test)]
#[path = "irq_tests.rs"]
mod tests;
