//! What an instance's process keeps in memory of its own program.
//!
//! A start touches most of the program once: what parses, what opens the store, what builds a machine. Those are pages of a file;
//! the host could take them back at any time, but it does not without need, and until then they count as this process's memory.
//! Given back, only what is used again returns, from the page cache: a fault for each 64 KiB or so. One of the few files with
//! `unsafe` code.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;

/// Let go of the program's code and constants: what a running guest needs of them comes back.
pub fn give_back() {
    // SAFETY: `release` has the signature that is asked for, keeps nothing of what it is given, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(release), ptr::null_mut()) };
}

/// Called with the program itself first, and ends the iteration there: libraries, where there are any, are everybody's.
unsafe extern "C" fn release(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: the C library calls with a valid record, whose headers are those of a loaded program.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    // The headers lie in the first segment themselves: it goes last.
    for range in headers.iter().rev().filter_map(|header| unwritten(base, header)) {
        // SAFETY: the pages are those of a segment that is never written, relocations included, so each is as it is in the file,
        // from which it is mapped again when it is touched next, be it by this very function.
        unsafe { libc::madvise(range.start as *mut c_void, range.len(), libc::MADV_DONTNEED) };
    }
    1
}

/// The whole pages of a segment that is read or executed only. What the loader relocates lies in writable segments, also where it is
/// protected afterwards.
fn unwritten(base: usize, header: &libc::Elf64_Phdr) -> Option<Range<usize>> {
    if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
        return None;
    }
    let page = rustix::param::page_size();
    let start = base.checked_add(header.p_vaddr as usize)?;
    let end = start.checked_add(header.p_memsz as usize)?;
    let range = start.checked_next_multiple_of(page)?..end - end % page;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
#[path = "footprint_tests.rs"]
mod tests;
