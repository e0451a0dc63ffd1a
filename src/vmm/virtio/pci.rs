//! A virtio device as a PCI function (VIRTIO 1.2 §4.1): one BAR with all register blocks, MSI-X with a vector for each
//! queue and one for configuration changes.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::common::{COMMON_CONFIG_SIZE, CommonConfig, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Request};
use super::interrupt::Interrupt;
use super::queue::DeviceQueue;
use super::{Activation, ActiveQueue, Service, VirtioDevice, status};
use crate::vmm::interrupt::MsiRouter;
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::config::{BarKind, ConfigSpace, Identity};
use crate::vmm::pci::msix::Msix;
use crate::vmm::pci::{Doorbell, PciFunction};

const VENDOR: u16 = 0x1af4;
const FIRST_MODERN_DEVICE: u16 = 0x1040;

// The register blocks in BAR 0.
const BAR: usize = 0;
const BAR_SIZE: u64 = 0x4000;
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x0100;
const DEVICE: u64 = 0x0200;
const DEVICE_SIZE: u64 = 0x0e00;
/// A page for the doorbells alone.
const NOTIFY: u64 = 0x1000;
const NOTIFY_SIZE: u64 = 0x1000;
const NOTIFY_MULTIPLIER: u32 = 4;
const MSIX_TABLE: u32 = 0x2000;
const MSIX_PENDING: u32 = 0x3000;

const CAPABILITY_VENDOR: u8 = 0x09;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// A virtio device on the bus.
pub struct VirtioPci {
    slot: u8,
    config: ConfigSpace,
    /// Offset of the capability through which configuration space reaches the BAR.
    window: u16,
    msix: Msix,
    common: CommonConfig,
    interrupt: Interrupt,
    device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    doorbells: Vec<Arc<EventFd>>,
    active: bool,
    bus_master: bool,
}

impl VirtioPci {
    /// Put `device` on the bus. `slot` is where it will be, for messages.
    pub fn new(
        slot: u8,
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        router: Arc<dyn MsiRouter>,
    ) -> io::Result<Self> {
        let queues = device.queue_sizes().len();
        let vectors = queues as u16 + 1;
        let mut config = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: FIRST_MODERN_DEVICE + device.id(),
            class: device.class(),
            revision: 1,
            subsystem_vendor: VENDOR,
            subsystem: FIRST_MODERN_DEVICE + device.id(),
        });
        config.add_bar(BAR, BAR_SIZE, BarKind::Mmio32)?;
        let mut msix = Msix::new(vectors, BAR as u8, MSIX_TABLE, MSIX_PENDING, router)?;
        msix.add_capability(&mut config)?;
        for (kind, offset, size) in
            [(CFG_COMMON, COMMON, COMMON_CONFIG_SIZE), (CFG_ISR, ISR, 4), (CFG_DEVICE, DEVICE, DEVICE_SIZE)]
        {
            config.add_capability(CAPABILITY_VENDOR, &capability(kind, offset, size, &[]), &[])?;
        }
        let notify = capability(CFG_NOTIFY, NOTIFY, NOTIFY_SIZE, &NOTIFY_MULTIPLIER.to_le_bytes());
        config.add_capability(CAPABILITY_VENDOR, &notify, &[])?;
        // The driver chooses BAR, offset and length, and reads or writes the data after them.
        let mut writable = [0xff; 18];
        writable[..2].fill(0);
        writable[3..6].fill(0);
        let window = config.add_capability(CAPABILITY_VENDOR, &capability(CFG_PCI, 0, 0, &[0; 4]), &writable)?;

        let interrupt = Interrupt::new(msix.handle(), queues);
        let features = device.features() | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC;
        let common = CommonConfig::new(features, device.queue_sizes(), vectors, interrupt.clone());
        let doorbells =
            (0..queues).map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Arc::new)).collect::<io::Result<_>>()?;
        Ok(VirtioPci {
            slot,
            config,
            window,
            msix,
            common,
            interrupt,
            device,
            memory,
            doorbells,
            active: false,
            bus_master: false,
        })
    }

    /// Do what a write to the common registers asks for.
    fn act(&mut self, request: Request) {
        match request {
            Request::None => {}
            Request::Reset => {
                self.stop();
                self.common.reset();
            }
            Request::NegotiateFeatures => {
                if self.common.features_valid() && self.device.accepts(self.common.features()) {
                    self.common.accept_features();
                } else {
                    log::warn!("virtio device in slot {}: features {:#x} refused", self.slot, self.common.features());
                }
            }
            Request::Activate => {
                self.interrupt.add_status(status::DRIVER_OK);
                if let Err(error) = self.activate() {
                    log::warn!("virtio device in slot {} can't start: {error}", self.slot);
                    self.device.reset();
                    self.interrupt.needs_reset();
                }
            }
        }
    }

    fn activate(&mut self) -> io::Result<()> {
        let queues = self.common.build_queues(&self.memory).map_err(io::Error::other)?;
        let active_queue = |(index, (queue, doorbell)): (usize, (Option<_>, &Arc<EventFd>))| {
            // A kick of the driver before this one is none of its business.
            let _ = doorbell.read();
            queue.map(|queue| ActiveQueue {
                queue: DeviceQueue::new(index as u16, queue, self.memory.clone(), self.interrupt.clone()),
                doorbell: Arc::clone(doorbell),
            })
        };
        let queues = queues.into_iter().zip(&self.doorbells).enumerate().map(active_queue).collect();
        let features = self.common.features();
        self.device.activate(Activation { features, queues, interrupt: self.interrupt.clone() })?;
        self.active = true;
        Ok(())
    }

    fn stop(&mut self) {
        self.device.reset();
        self.active = false;
    }

    fn kick(&mut self, offset: u64) {
        let queue = offset / u64::from(NOTIFY_MULTIPLIER);
        let Some(doorbell) = usize::try_from(queue).ok().and_then(|index| self.doorbells.get(index)) else { return };
        match self.device.service() {
            Service::Inline if self.active => self.device.kicked(queue as u16),
            Service::Inline => {}
            // The kernel did not take the write. A full counter means that it is signalled already.
            Service::Thread => {
                let _ = doorbell.write(1);
            }
        }
    }

    /// An access through the window in configuration space: where it goes and how wide it is.
    fn window_target(&self) -> Option<(u64, usize)> {
        let bar = self.config.read_u32(self.window + 4) & 0xff;
        let offset = self.config.read_u32(self.window + 8);
        let length = self.config.read_u32(self.window + 12);
        let valid = bar == BAR as u32 && matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
        let inside = u64::from(offset) + u64::from(length) <= BAR_SIZE;
        (valid && inside).then_some((offset.into(), length as usize))
    }

    fn window_data(&self) -> u16 {
        self.window + 16
    }
}

/// The body of a `virtio_pci_cap` (§4.1.4), after id and next pointer.
fn capability(kind: u8, offset: u64, size: u64, tail: &[u8]) -> Vec<u8> {
    let mut body = vec![16 + tail.len() as u8, kind, BAR as u8, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend((size as u32).to_le_bytes());
    body.extend(tail);
    body
}

impl PciFunction for VirtioPci {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        if let (true, Some((at, length))) = (offset == self.window_data(), self.window_target()) {
            let mut value = [0; 4];
            self.read_bar(BAR, at, &mut value[..length]);
            self.config.write(offset, &value);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        self.msix.config_written(&self.config);
        if let (true, Some((at, length))) = (offset == self.window_data(), self.window_target()) {
            let mut value = [0; 4];
            self.config.read(offset, &mut value);
            self.write_bar(BAR, at, &value[..length]);
        }
        // A kernel that hands over to another one (kexec) may end DMA only here.
        let bus_master = self.config.bus_master();
        if std::mem::replace(&mut self.bus_master, bus_master) && !bus_master && self.active {
            self.stop();
            self.interrupt.add_status(status::NEEDS_RESET);
        }
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset {
            _ if bar != BAR || self.msix.read_bar(offset, data) => {}
            COMMON..ISR => self.common.read(offset - COMMON, data),
            ISR => {
                if let Some(byte) = data.first_mut() {
                    *byte = self.interrupt.take_isr();
                }
            }
            DEVICE..NOTIFY => {
                let registers = self.device.config().get((offset - DEVICE) as usize..).unwrap_or_default();
                data.iter_mut().zip(registers).for_each(|(byte, register)| *byte = *register);
            }
            _ => {}
        }
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) {
        match offset {
            _ if bar != BAR || self.msix.write_bar(offset, data) => {}
            COMMON..ISR => {
                let request = self.common.write(offset - COMMON, data);
                self.act(request);
            }
            NOTIFY.. => self.kick(offset - NOTIFY),
            _ => {}
        }
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        if self.device.service() == Service::Inline {
            return Vec::new();
        }
        let doorbell = |(index, fd): (usize, &Arc<EventFd>)| Doorbell {
            bar: BAR,
            offset: NOTIFY + index as u64 * u64::from(NOTIFY_MULTIPLIER),
            // Any width: such an eventfd needs no decoding of the guest's instruction.
            length: 0,
            datamatch: None,
            fd: Arc::clone(fd),
        };
        self.doorbells.iter().enumerate().map(doorbell).collect()
    }

    fn shutdown(&mut self) {
        self.device.shutdown();
        self.active = false;
    }
}

#[cfg(test)]
#[path = "pci_tests.rs"]
mod tests;
