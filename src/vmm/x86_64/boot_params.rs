//! The Linux boot protocol, 64-bit entry (`Documentation/x86/boot.rst`, §"64-bit Boot Protocol"; the zero page is
//! `Documentation/x86/zero-page.rst`).

#![forbid(unsafe_code)]

use super::bytes::{u16_at, u32_at, u64_at};
use crate::vmm::layout;
use crate::vmm::memory::MapEntry;

/// Offset of the setup header, in the image and in the zero page.
const SETUP_HEADER: usize = 0x1F1;
/// Protocol 2.12 brought `xloadflags`.
const VERSION_XLOADFLAGS: u16 = 0x20C;
const XLF_KERNEL_64: u16 = 1;
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 2;
/// A loader without an id of its own.
const LOADER_UNDEFINED: u8 = 0xFF;
const ZERO_PAGE_SIZE: usize = 4096;
const E820_TABLE: usize = 0x2D0;
const MAX_E820_ENTRIES: usize = 128;
/// The 64-bit entry lies this far into the protected-mode kernel.
const ENTRY_64: u64 = 0x200;

/// Why an image can't be booted by the 64-bit protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BzImageError {
    /// Not a bzImage.
    #[error("the kernel is not a bzImage")]
    NotBzImage,
    /// A protocol before 2.12, or a 32-bit kernel.
    #[error("the kernel has no 64-bit entry point (boot protocol {0:#x}, xloadflags {1:#x})")]
    No64BitEntry(u16, u16),
    /// Headers that contradict each other or the file.
    #[error("the bzImage's headers are damaged: {0}")]
    Damaged(&'static str),
}

/// What the setup header of a bzImage says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    /// The setup header's own bytes, from offset 0x1F1.
    raw: Vec<u8>,
    /// Offset of the protected-mode kernel in the file.
    pub kernel_offset: usize,
    /// Where the kernel wants to be loaded.
    pub load_address: u64,
    /// Bytes from the load address that the kernel needs until it knows the memory map.
    pub init_size: u64,
    /// The longest command line, without the final NUL.
    pub cmdline_size: u64,
    /// The highest address that a byte of the initial RAM disk may have.
    pub initrd_max: u64,
}

impl SetupHeader {
    /// Read the header of the bzImage `image`.
    pub fn parse(image: &[u8]) -> Result<Self, BzImageError> {
        if u16_at(image, 0x1FE) != Some(0xAA55) || image.get(0x202..0x206) != Some(b"HdrS") {
            return Err(BzImageError::NotBzImage);
        }
        let damaged = || BzImageError::Damaged("it is cut short");
        let version = u16_at(image, 0x206).ok_or_else(damaged)?;
        let flags = u16_at(image, 0x236).ok_or_else(damaged)?;
        if version < VERSION_XLOADFLAGS || flags & XLF_KERNEL_64 == 0 {
            return Err(BzImageError::No64BitEntry(version, flags));
        }
        let end = 0x202 + usize::from(*image.get(0x201).ok_or_else(damaged)?);
        let raw = image.get(SETUP_HEADER..end).ok_or_else(damaged)?.to_vec();
        // 0 means 4, for the sake of very old kernels.
        let sectors = match *image.get(SETUP_HEADER).ok_or_else(damaged)? {
            0 => 4,
            n => usize::from(n),
        };
        let kernel_offset = (sectors + 1) * 512;
        if kernel_offset >= image.len() {
            return Err(BzImageError::Damaged("there is no kernel behind the setup code"));
        }
        let load_address = u64_at(image, 0x258).ok_or_else(damaged)?;
        let init_size = u64::from(u32_at(image, 0x260).ok_or_else(damaged)?);
        if load_address < layout::HIGH_MEMORY {
            return Err(BzImageError::Damaged("its preferred address lies below 1 MiB"));
        }
        if init_size < (image.len() - kernel_offset) as u64 {
            return Err(BzImageError::Damaged("it is larger than the memory it asks for"));
        }
        let initrd_max = if flags & XLF_CAN_BE_LOADED_ABOVE_4G != 0 {
            layout::HOLE - 1
        } else {
            u64::from(u32_at(image, 0x22C).ok_or_else(damaged)?)
        };
        let cmdline_size = u64::from(u32_at(image, 0x238).ok_or_else(damaged)?);
        Ok(Self { raw, kernel_offset, load_address, init_size, cmdline_size, initrd_max })
    }

    /// The address of the first instruction.
    pub fn entry(&self) -> u64 {
        self.load_address + ENTRY_64
    }

    /// The zero page: `boot_params` with this header, the memory map, the command line and the initial RAM disk.
    pub fn zero_page(&self, map: &[MapEntry], initrd: Option<(u64, u64)>, rsdp: u64) -> Vec<u8> {
        let mut page = vec![0u8; ZERO_PAGE_SIZE];
        let mut put = |offset: usize, bytes: &[u8]| {
            if let Some(to) = page.get_mut(offset..offset + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        put(SETUP_HEADER, &self.raw);
        put(0x070, &rsdp.to_le_bytes()); // acpi_rsdp_addr
        put(0x210, &[LOADER_UNDEFINED]); // type_of_loader
        put(0x228, &(layout::CMDLINE as u32).to_le_bytes()); // cmd_line_ptr
        if let Some((address, size)) = initrd {
            put(0x218, &(address as u32).to_le_bytes()); // ramdisk_image
            put(0x21C, &(size as u32).to_le_bytes()); // ramdisk_size
            put(0x0C0, &((address >> 32) as u32).to_le_bytes()); // ext_ramdisk_image
            put(0x0C4, &((size >> 32) as u32).to_le_bytes()); // ext_ramdisk_size
        }
        let entries = map.len().min(MAX_E820_ENTRIES);
        put(0x1E8, &[entries as u8]);
        for (i, entry) in map.iter().take(entries).enumerate() {
            put(E820_TABLE + i * 20, &entry.start.to_le_bytes());
            put(E820_TABLE + i * 20 + 8, &entry.size.to_le_bytes());
            put(E820_TABLE + i * 20 + 16, &(entry.kind as u32).to_le_bytes());
        }
        page
    }
}

#[cfg(test)]
#[path = "boot_params_tests.rs"]
mod tests;
