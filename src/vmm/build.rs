//! PCI functions out of a machine's configuration.

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex};

use super::config::{NicConfig, VolumeConfig};
use super::interrupt::MsiRouter;
use super::machine::MachineError;
use super::memory::GuestMemory;
use super::nvme::NvmeController;
use super::pci::PciFunction;
use super::pci::root::{PciRoot, SLOTS};
use super::virtio::VirtioDevice;
use super::virtio::net::VirtioNet;
use super::virtio::pci::VirtioPci;
use super::virtio::rng::VirtioRng;

/// The entropy device's place, if no configured device has it: below the root volume's on EC2.
const RNG_SLOT: u8 = 2;

/// What devices need of the machine.
pub struct Surroundings<'a> {
    /// The bus.
    pub pci: &'a PciRoot,
    /// Interrupt lines.
    pub router: &'a Arc<dyn MsiRouter>,
    /// Guest RAM.
    pub memory: &'a GuestMemory,
    /// The number of vCPUs.
    pub vcpus: u32,
}

impl Surroundings<'_> {
    /// Put all configured devices into their slots, and an entropy device into a free one. Returns the slots that are in
    /// use, ascending.
    pub fn build(&self, volumes: Vec<VolumeConfig>, nics: Vec<NicConfig>) -> Result<Vec<u8>, MachineError> {
        let mut slots = Vec::with_capacity(volumes.len() + nics.len() + 1);
        for VolumeConfig { slot, identity, backend } in volumes {
            let queues = u16::try_from(self.vcpus).unwrap_or(u16::MAX);
            let (memory, router) = (self.memory.clone(), Arc::clone(self.router));
            let controller = NvmeController::new(identity, backend, memory, router, queues);
            self.add(&mut slots, slot, controller)?;
        }
        for NicConfig { slot, mac, mtu, backend } in nics {
            let device = VirtioNet::new(mac, mtu, backend).map_err(|e| MachineError::Device(slot, e))?;
            self.add(&mut slots, slot, self.virtio(slot, Box::new(device)))?;
        }
        let free = (RNG_SLOT..SLOTS).chain(1..RNG_SLOT).find(|slot| !slots.contains(slot));
        if let Some(slot) = free {
            self.add(&mut slots, slot, self.virtio(slot, Box::new(VirtioRng::new())))?;
        }
        slots.sort_unstable();
        Ok(slots)
    }

    fn virtio(&self, slot: u8, device: Box<dyn VirtioDevice>) -> io::Result<VirtioPci> {
        VirtioPci::new(slot, device, self.memory.clone(), Arc::clone(self.router))
    }

    fn add(
        &self,
        slots: &mut Vec<u8>,
        slot: u8,
        function: io::Result<impl PciFunction + 'static>,
    ) -> Result<(), MachineError> {
        let function = function.map_err(|e| MachineError::Device(slot, e))?;
        self.pci.add(slot, Arc::new(Mutex::new(function))).map_err(|e| MachineError::Slot(slot, e))?;
        slots.push(slot);
        Ok(())
    }
}
