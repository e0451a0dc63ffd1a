//! PCI functions out of a machine's configuration.

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex};

use super::config::{NicConfig, VolumeConfig};
use super::hotplug::Hotplug;
use super::interrupt::MsiRouter;
use super::machine::MachineError;
use super::memory::GuestMemory;
use super::pci::PciFunction;
use super::pci::root::{PciRoot, SLOTS};
use super::virtio::VirtioDevice;
use super::virtio::net::VirtioNet;
use super::virtio::pci::VirtioPci;
use super::virtio::rng::VirtioRng;

/// The entropy device's place, if no configured device has it: below the root volume's on EC2.
const RNG_SLOT: u8 = 2;

/// The slots of the bus that the guest is to know of.
#[derive(Debug)]
pub struct Slots {
    /// Those whose devices stay as long as the machine.
    pub fixed: Vec<u8>,
    /// Those of volumes that come and go, ascending: all free ones behind the root volume's. A slot in front of it would make
    /// the guest find another volume first, after a reboot; and each costs the guest some time at boot.
    pub changeable: Vec<u8>,
}

/// What devices need of the machine.
pub struct Surroundings<'a> {
    /// The bus.
    pub pci: &'a PciRoot,
    /// The volumes.
    pub hotplug: &'a Arc<Hotplug>,
    /// Interrupt lines.
    pub router: &'a Arc<dyn MsiRouter>,
    /// Guest RAM.
    pub memory: &'a GuestMemory,
}

impl Surroundings<'_> {
    /// Put all configured devices into their slots, and an entropy device into a free one.
    pub fn build(&self, volumes: Vec<VolumeConfig>, nics: Vec<NicConfig>) -> Result<Slots, MachineError> {
        let root = volumes.first().map_or(0, |volume| volume.slot);
        let mut slots = Vec::with_capacity(volumes.len() + nics.len() + 1);
        let mut removable = Vec::with_capacity(volumes.len());
        for (index, volume) in volumes.into_iter().enumerate() {
            let slot = volume.slot;
            let list = if self.hotplug.add(volume, index == 0)? { &mut removable } else { &mut slots };
            list.push(slot);
        }
        for NicConfig { slot, mac, mtu, backend } in nics {
            let device = VirtioNet::new(mac, mtu, backend).map_err(|e| MachineError::Device(slot, e))?;
            self.add(&mut slots, slot, self.virtio(slot, Box::new(device)))?;
        }
        let free = (RNG_SLOT..SLOTS).chain(1..RNG_SLOT).find(|slot| !slots.contains(slot) && !removable.contains(slot));
        if let Some(slot) = free {
            self.add(&mut slots, slot, self.virtio(slot, Box::new(VirtioRng::new())))?;
        }
        let changeable = |slot: &u8| removable.contains(slot) || *slot > root && !slots.contains(slot);
        let changeable: Vec<u8> = (1..SLOTS).filter(changeable).collect();
        self.hotplug.set_changeable(&changeable);
        Ok(Slots { fixed: slots, changeable })
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

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
