//! Configuration space of a type 0 function.

/// To be filled.
#[derive(Debug)]
pub struct ConfigSpace;

impl ConfigSpace {
    /// Read.
    pub fn read(&self, _offset: u16, _data: &mut [u8]) {}
    /// Write.
    pub fn write(&mut self, _offset: u16, _data: &[u8]) {}
}
