//! File I/O straight from and to guest memory.
//!
//! Guest memory may change under us at any time, so it is never a `&[u8]`: it is a [`VolatileSlice`], and the kernel
//! moves the bytes. One of the few files with `unsafe` code, so that every user of it can do without.
//!
//! With [`Wait::Never`] the kernel is asked not to block (`RWF_NOWAIT`, preadv2(2)). [`io::ErrorKind::WouldBlock`] then
//! means that not all of the data was at hand; a part of it may have moved, which a repeat moves again.
//! [`io::ErrorKind::Unsupported`] means that this file system can never tell (ext4's buffered writes, for one).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;
use vm_memory::volatile_memory::PtrGuardMut;

use super::backend::Wait;

/// The most slices that one system call takes (`IOV_MAX` is 1024; more are moved in rounds).
const MAX_IOVECS: usize = 256;
/// Most requests are this short or shorter; they should not pay for setting up the large table.
const FEW_IOVECS: usize = 8;

/// A range of bytes within a list of slices.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a, 'm> {
    slices: &'a [VolatileSlice<'m>],
    /// Bytes of `slices` before the window; less than the length of the first slice, if there is one.
    start: usize,
    len: usize,
}

impl<'a, 'm> Window<'a, 'm> {
    /// All bytes of `slices`. `None` if they are more than a `usize` counts.
    pub fn whole(slices: &'a [VolatileSlice<'m>]) -> Option<Self> {
        let len = slices.iter().try_fold(0usize, |sum, slice| sum.checked_add(slice.len()))?;
        Some(Window { slices, start: 0, len })
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cut off the first `mid` bytes: `(first, rest)`. With a `mid` beyond the end, the rest is empty.
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let mid = mid.min(self.len);
        let first = Window { len: mid, ..self };
        let (mut slices, mut start) = (self.slices, self.start + mid);
        while let Some((head, tail)) = slices.split_first()
            && start >= head.len()
        {
            start -= head.len();
            slices = tail;
        }
        (first, Window { slices, start, len: self.len - mid })
    }

    /// Set all bytes to zero.
    pub fn zero(self) {
        static ZEROS: [u8; 4096] = [0; 4096];
        let (mut skip, mut left) = (self.start, self.len);
        for slice in self.slices {
            if left == 0 {
                break;
            }
            let mut at = skip;
            skip = 0;
            while at < slice.len() && left > 0 {
                let n = (slice.len() - at).min(left).min(ZEROS.len());
                if let Ok(part) = slice.subslice(at, n) {
                    part.copy_from(&ZEROS[..n]);
                }
                at += n;
                left -= n;
            }
        }
    }
}

/// Read exactly the length of `to` from `fd` at `offset`. The end of the file reads as
/// [`io::ErrorKind::UnexpectedEof`].
pub fn read_exact_at(fd: BorrowedFd<'_>, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
    read_window_at(fd, Window::whole(to).ok_or(io::ErrorKind::InvalidInput)?, offset, wait)
}

/// Write exactly the length of `from` to `fd` at `offset`.
pub fn write_all_at(fd: BorrowedFd<'_>, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
    write_window_at(fd, Window::whole(from).ok_or(io::ErrorKind::InvalidInput)?, offset, wait)
}

/// Fill exactly the window from `fd` at `offset`, as [`read_exact_at`].
pub fn read_window_at(fd: BorrowedFd<'_>, to: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()> {
    sized_transfer(to, offset, wait, |iov, at, flags| {
        // SAFETY: every iovec points into a live `VolatileSlice` of guest memory that the caller's borrow keeps mapped
        // for the call; the kernel copies, and no Rust reference to the bytes exists.
        unsafe { libc::preadv2(fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32, at, flags) }
    })
}

/// Write exactly the window to `fd` at `offset`.
pub fn write_window_at(fd: BorrowedFd<'_>, from: Window<'_, '_>, offset: u64, wait: Wait) -> io::Result<()> {
    sized_transfer(from, offset, wait, |iov, at, flags| {
        // SAFETY: as in `read_window_at`; the kernel only reads from the slices.
        unsafe { libc::pwritev2(fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32, at, flags) }
    })
}

fn sized_transfer(
    window: Window<'_, '_>,
    offset: u64,
    wait: Wait,
    call: impl FnMut(&[libc::iovec], i64, i32) -> isize,
) -> io::Result<()> {
    if window.slices.len() <= FEW_IOVECS {
        transfer::<FEW_IOVECS>(window, offset, wait, call)
    } else {
        transfer::<MAX_IOVECS>(window, offset, wait, call)
    }
}

fn transfer<const N: usize>(
    mut window: Window<'_, '_>,
    offset: u64,
    wait: Wait,
    mut call: impl FnMut(&[libc::iovec], i64, i32) -> isize,
) -> io::Result<()> {
    let flags = if wait == Wait::Never { libc::RWF_NOWAIT } else { 0 };
    let mut at = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    while window.len > 0 {
        let mut iovecs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; N];
        // The guards must outlive the call.
        let mut guards: [Option<PtrGuardMut>; N] = [const { None }; N];
        let (mut used, mut skip, mut bytes) = (0, window.start, 0);
        for slice in window.slices.iter().take(N) {
            if bytes == window.len {
                break;
            }
            let len = (slice.len() - skip).min(window.len - bytes);
            let guard = guards[used].insert(slice.ptr_guard_mut());
            iovecs[used] = libc::iovec { iov_base: guard.as_ptr().wrapping_add(skip).cast(), iov_len: len };
            bytes += len;
            used += 1;
            skip = 0;
        }
        let n = call(&iovecs[..used], at, flags);
        if n < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EOPNOTSUPP) if wait == Wait::Never => return Err(io::ErrorKind::Unsupported.into()),
                _ => return Err(error),
            }
        }
        let n = n as usize;
        if n == 0 && bytes > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if n < bytes && wait == Wait::Never {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        at = at.checked_add(n as i64).ok_or(io::ErrorKind::InvalidInput)?;
        window = window.split_at(n).1;
    }
    Ok(())
}

#[cfg(test)]
#[path = "volatile_io_tests.rs"]
mod tests;
