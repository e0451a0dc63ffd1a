//! PCI: functions with type 0 headers on bus 0, MSI-X, and the root that maps them (PCI Local Bus 3.0, PCI Express
//! Base 4.0 for the extended configuration space).
#![forbid(unsafe_code)]

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

pub mod config;
pub mod msix;
pub mod root;
#[cfg(test)]
pub(crate) mod testing;

use config::ConfigSpace;

/// A function on the bus. The root calls it with its lock held, from vCPU threads.
pub trait PciFunction: Send {
    /// The function's configuration space.
    fn config(&self) -> &ConfigSpace;
    /// The function's configuration space, for the root's writes and its moving of BARs.
    fn config_mut(&mut self) -> &mut ConfigSpace;
    /// Fill `data` from configuration register `offset` (0 to 4095; the access does not cross a multiple of 4).
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }
    /// Write `data` at configuration register `offset`. The root then looks at [`ConfigSpace::bar_address`] and maps the BARs anew.
    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config_mut().write(offset, data);
    }
    /// Fill `data` from `offset` in BAR `bar`.
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]);
    /// Write `data` at `offset` in BAR `bar`.
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]);
    /// Registers whose writes need no look at the value and end in an eventfd inside the kernel. Constant for a function's life.
    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }
    /// A way around the function's lock for writes that need none of its state under it, so that several vCPUs can use
    /// the function at once. Constant for a function's life.
    fn direct_writes(&self) -> Option<Arc<dyn DirectWrites>> {
        None
    }
    /// Stop worker threads and let go of back ends. Called once, when the machine ends.
    fn shutdown(&mut self);
}

/// Takes BAR writes of a function without its lock.
pub trait DirectWrites: Send + Sync {
    /// Write `data` at `offset` in BAR `bar`, or do nothing and answer `false`: then [`PciFunction::write_bar`] is called.
    fn write(&self, bar: usize, offset: u64, data: &[u8]) -> bool;
}

/// A register that the kernel turns into an eventfd (an ioeventfd on KVM).
#[derive(Clone, Debug)]
pub struct Doorbell {
    /// The BAR the register is in.
    pub bar: usize,
    /// Its offset in the BAR.
    pub offset: u64,
    /// Bytes of the write; 0 matches any.
    pub length: u32,
    /// Only writes of this value count.
    pub datamatch: Option<u64>,
    /// Signalled on each write.
    pub fd: Arc<EventFd>,
}
