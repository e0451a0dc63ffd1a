//! Puts kernel, initial RAM disk, command line and boot structures into guest memory and says how to enter.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

use super::boot_params::{BzImageError, SetupHeader};
use super::copy::{self, Copying};
use super::elf::{self, ElfError};
use super::pvh;
use super::registers::{self, Entry};
use crate::vmm::backend::Wait;
use crate::vmm::config::{Initrd, Kernel};
use crate::vmm::layout;
use crate::vmm::memory::{GuestMemory, MapEntry, MemoryError, PAGE_SIZE};
use crate::vmm::volatile_io;

/// The longest command line that an x86 kernel takes, without the final NUL.
const CMDLINE_MAX: usize = 2047;

/// Why the guest's kernel could not be put into memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The ELF file is unusable.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The bzImage is unusable.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
    /// An ELF kernel without `CONFIG_PVH`.
    #[error("the kernel has no PVH entry point (built without CONFIG_PVH)")]
    NoPvhEntry,
    /// It does not fit.
    #[error("the kernel needs memory from {0:#x} to {1:#x}, and the machine has RAM from {2:#x} to {3:#x} there")]
    KernelDoesNotFit(u64, u64, u64, u64),
    /// It does not fit beside the kernel.
    #[error("the initial RAM disk of {0} bytes does not fit into memory")]
    InitrdDoesNotFit(u64),
    /// Too long.
    #[error("the kernel command line has {0} bytes, more than the {1} that the kernel takes")]
    CmdlineTooLong(usize, usize),
    /// The kernel would see only its start.
    #[error("the kernel command line contains a NUL byte")]
    CmdlineNul,
    /// Reading the kernel or the initial RAM disk failed.
    #[error("cannot read the {0}")]
    Read(&'static str, #[source] io::Error),
    /// Mapping failed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Writing into guest memory failed.
    #[error("cannot write boot data into guest memory")]
    Write(#[from] GuestMemoryError),
}

/// Put everything that the kernel finds at its start into `memory`.
///
/// `map` is the memory map that the kernel gets, `rsdp` the address of the ACPI root pointer, `loading` what was begun with the
/// same memory and kernel, if anything.
pub fn load(
    memory: &GuestMemory,
    kernel: &Kernel,
    initrd: Option<&Initrd>,
    cmdline: &str,
    map: &[MapEntry],
    rsdp: u64,
    loading: Option<Loading>,
) -> Result<Entry, LoadError> {
    let low_ram = low_ram(map);
    match kernel {
        Kernel::Elf(file) => {
            let loading = match loading {
                Some(loading) => loading,
                None => begin(memory, file, map)?,
            };
            let (address, kernel_end) = (loading.entry, loading.end);
            let initrd = initrd.map(|i| load_initrd(memory, i, kernel_end, low_ram)).transpose()?;
            write_cmdline(memory, cmdline, CMDLINE_MAX)?;
            memory.write_slice(&pvh::memory_map(map), GuestAddress(layout::PVH_MEMMAP))?;
            let info = pvh::start_info(map.len(), initrd.is_some(), rsdp);
            memory.write_slice(&info, GuestAddress(layout::PVH_START_INFO))?;
            if let Some((address, size)) = initrd {
                memory.write_slice(&pvh::module_list(address, size), GuestAddress(layout::PVH_MODLIST))?;
            }
            write_gdt(memory, false)?;
            loading.copying.finish().map_err(|e| LoadError::Read("kernel", e))?;
            Ok(Entry::Pvh { address })
        }
        Kernel::BzImage(image) => {
            let header = SetupHeader::parse(image)?;
            let kernel_end = header.load_address.saturating_add(header.init_size);
            check_fit(header.load_address, kernel_end, low_ram)?;
            let code = image.get(header.kernel_offset..).unwrap_or_default();
            memory.write_slice(code, GuestAddress(header.load_address))?;
            let limit = low_ram.min(header.initrd_max.saturating_add(1));
            let initrd = initrd.map(|i| load_initrd(memory, i, kernel_end, limit)).transpose()?;
            write_cmdline(memory, cmdline, CMDLINE_MAX.min(header.cmdline_size as usize))?;
            memory.write_slice(&header.zero_page(map, initrd, rsdp), GuestAddress(layout::ZERO_PAGE))?;
            memory.write_slice(&registers::identity_page_tables(), GuestAddress(layout::PAGE_TABLES))?;
            write_gdt(memory, true)?;
            Ok(Entry::Linux64 { address: header.entry() })
        }
    }
}

fn check_fit(start: u64, end: u64, low_ram: u64) -> Result<(), LoadError> {
    if start < layout::HIGH_MEMORY || end > low_ram || end < start {
        return Err(LoadError::KernelDoesNotFit(start, end, layout::HIGH_MEMORY, low_ram));
    }
    Ok(())
}

/// An ELF kernel on its way into guest memory.
#[derive(Debug)]
pub struct Loading {
    file: Arc<File>,
    entry: u32,
    /// Where the kernel ends.
    end: u64,
    copying: Copying,
}

impl Loading {
    /// Help with it for a moment. `false`: there is nothing to help with any more.
    pub fn help(&self) -> Result<bool, LoadError> {
        self.copying.help().map_err(|e| LoadError::Read("kernel", e))
    }

    /// Whether it is this kernel: the same file, however it was opened.
    pub fn is_of(&self, kernel: &Kernel) -> bool {
        let Kernel::Elf(file) = kernel else { return false };
        let both = || Ok::<_, io::Error>((self.file.metadata()?, file.metadata()?));
        both().is_ok_and(|(a, b)| a.dev() == b.dev() && a.ino() == b.ino())
    }
}

/// Where RAM ends, or has its hole.
fn low_ram(map: &[MapEntry]) -> u64 {
    map.iter().find(|e| e.start == layout::HIGH_MEMORY).map_or(0, |e| e.start + e.size)
}

/// Begin to put an ELF kernel into `memory`, whose map is `map`. Threads copy, and [`load`] waits for them.
pub fn begin(memory: &GuestMemory, file: &Arc<File>, map: &[MapEntry]) -> Result<Loading, LoadError> {
    let low_ram = low_ram(map);
    let read = |e| LoadError::Read("kernel", e);
    let size = length(file).map_err(read)?;
    let mut head = vec![0; elf::HEADER_BYTES.min(size.try_into().unwrap_or(usize::MAX))];
    file.read_exact_at(&mut head, 0).map_err(read)?;
    let headers = elf::parse(&head, size)?;
    let mut entry = None;
    for &(offset, length) in &headers.notes {
        let mut notes = vec![0; length as usize];
        file.read_exact_at(&mut notes, offset).map_err(read)?;
        entry = entry.or(elf::pvh_entry(&notes));
    }
    let entry = entry.ok_or(LoadError::NoPvhEntry)?;
    let mut end = 0;
    for segment in &headers.segments {
        let segment_end = segment.address.saturating_add(segment.memory_size);
        check_fit(segment.address, segment_end, low_ram)?;
        end = end.max(segment_end);
    }
    Ok(Loading { file: Arc::clone(file), entry, end, copying: copy::begin(memory, file, &headers.segments) })
}

/// The size of a file, or of a block device, which has none in its metadata.
fn length(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Put the initial RAM disk as high as possible below `limit`, above the kernel. Returns its address and size.
fn load_initrd(memory: &GuestMemory, initrd: &Initrd, kernel_end: u64, limit: u64) -> Result<(u64, u64), LoadError> {
    let read = |e| LoadError::Read("initial RAM disk", e);
    let size = match initrd {
        Initrd::Bytes(bytes) => bytes.len() as u64,
        Initrd::File(file) => length(file).map_err(read)?,
    };
    let room = size.checked_next_multiple_of(PAGE_SIZE).ok_or(LoadError::InitrdDoesNotFit(size))?;
    let address = (limit / PAGE_SIZE * PAGE_SIZE)
        .checked_sub(room)
        .filter(|address| *address >= kernel_end)
        .ok_or(LoadError::InitrdDoesNotFit(size))?;
    match initrd {
        Initrd::Bytes(bytes) => memory.write_slice(bytes, GuestAddress(address))?,
        Initrd::File(file) => {
            let to = memory.get_slice(GuestAddress(address), size as usize)?;
            volatile_io::read_exact_at(file.as_fd(), &[to], 0, Wait::Allowed).map_err(read)?;
        }
    }
    Ok((address, size))
}

fn write_cmdline(memory: &GuestMemory, cmdline: &str, limit: usize) -> Result<(), LoadError> {
    if cmdline.len() > limit {
        return Err(LoadError::CmdlineTooLong(cmdline.len(), limit));
    }
    if cmdline.contains('\0') {
        return Err(LoadError::CmdlineNul);
    }
    // Fresh memory is zero: the final NUL is there.
    Ok(memory.write_slice(cmdline.as_bytes(), GuestAddress(layout::CMDLINE))?)
}

fn write_gdt(memory: &GuestMemory, long: bool) -> Result<(), LoadError> {
    let bytes: Vec<u8> = registers::gdt(long).iter().flat_map(|d| d.to_le_bytes()).collect();
    Ok(memory.write_slice(&bytes, GuestAddress(layout::GDT))?)
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
