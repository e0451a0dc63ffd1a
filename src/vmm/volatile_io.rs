//! File I/O straight from and to guest memory.
//!
//! Guest memory may change under us at any time, so it is never a `&[u8]`: it is a [`VolatileSlice`], and the kernel
//! moves the bytes. One of the few files with `unsafe` code, so that every user of it can do without.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

use super::backend::Wait;

/// The most slices that one system call takes (`IOV_MAX` is 1024; more are moved in rounds).
const MAX_IOVECS: usize = 256;

/// Read exactly the length of `to` from `fd` at `offset`. The end of the file reads as
/// [`io::ErrorKind::UnexpectedEof`].
pub fn read_exact_at(fd: BorrowedFd<'_>, to: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
    transfer(to, offset, |iov, at, first| {
        // SAFETY: every iovec points into a live `VolatileSlice` of guest memory that the caller's borrow keeps mapped
        // for the call; the kernel copies, and no Rust reference to the bytes exists.
        unsafe { libc::preadv2(fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32, at, flags(wait, first)) }
    })
}

/// Write exactly the length of `from` to `fd` at `offset`.
pub fn write_all_at(fd: BorrowedFd<'_>, from: &[VolatileSlice<'_>], offset: u64, wait: Wait) -> io::Result<()> {
    transfer(from, offset, |iov, at, first| {
        // SAFETY: as in `read_exact_at`; the kernel only reads from the slices.
        unsafe { libc::pwritev2(fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32, at, flags(wait, first)) }
    })
}

/// A transfer that began without waiting is finished with waiting: half a transfer helps nobody.
fn flags(wait: Wait, first: bool) -> i32 {
    if wait == Wait::Never && first { libc::RWF_NOWAIT } else { 0 }
}

fn transfer(
    slices: &[VolatileSlice<'_>],
    offset: u64,
    mut call: impl FnMut(&[libc::iovec], i64, bool) -> isize,
) -> io::Result<()> {
    let mut iovecs: [libc::iovec; MAX_IOVECS] =
        [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_IOVECS];
    let mut at = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut first = true;
    // (index of the slice to go on with, bytes of it already done)
    let (mut index, mut done) = (0, 0);
    while index < slices.len() {
        let guards: Vec<_> = slices[index..].iter().take(MAX_IOVECS).map(|s| s.ptr_guard_mut()).collect();
        for (i, guard) in guards.iter().enumerate() {
            let skip = if i == 0 { done } else { 0 };
            iovecs[i] = libc::iovec { iov_base: guard.as_ptr().wrapping_add(skip).cast(), iov_len: guard.len() - skip };
        }
        let n = call(&iovecs[..guards.len()], at, first);
        if n < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                // A file system that cannot tell whether it would block.
                Some(libc::EOPNOTSUPP) if first => return Err(io::ErrorKind::WouldBlock.into()),
                _ => return Err(error),
            }
        }
        if n == 0 && iovecs[..guards.len()].iter().any(|v| v.iov_len > 0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        first = false;
        at += n as i64;
        let mut left = n as usize;
        while index < slices.len() && left >= slices[index].len() - done {
            left -= slices[index].len() - done;
            index += 1;
            done = 0;
        }
        done += left;
    }
    Ok(())
}
