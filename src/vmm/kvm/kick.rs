//! Getting a vCPU thread out of `KVM_RUN`, without a chance of losing the request.
//!
//! A signal alone is not enough: if it arrives just before the thread enters the kernel, its handler returns and the guest
//! runs on. So the handler, which runs in the vCPU's own thread, sets `kvm_run.immediate_exit`: whatever comes first, the
//! next or the current `KVM_RUN` ends with EINTR. Whoever kicks stores its request first; the thread clears
//! `immediate_exit` first and looks for requests then.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering, compiler_fence};

use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::errno;
use vmm_sys_util::signal::{register_signal_handler, unblock_signal};

use super::vcpu::Vcpu;

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs. Constant initialisation and no destructor: a signal handler may
    /// use it.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

fn signal() -> c_int {
    libc::SIGRTMIN()
}

extern "C" fn handler(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: the pointer is set and cleared by `Kickable`, which outlives neither the thread nor the mapping; the
        // kernel reads this byte, and nothing in this process holds a reference to it while the vCPU runs.
        unsafe { flag.write_volatile(1) };
    }
}

/// Where a vCPU thread can be reached. Zero while it can't be.
#[derive(Debug, Default)]
pub struct ThreadId(AtomicI32);

impl ThreadId {
    /// Kick the thread, if it runs a vCPU. Store the request that it shall see before.
    pub fn kick(&self) {
        let thread = self.0.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: `tgkill` touches no memory, and reaches only threads of this process. Should the thread have just
            // ended and its number been taken by another one of ours, the handler does nothing there.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }
}

/// While it lives, the current thread's vCPU can be kicked.
pub struct Kickable<'a> {
    thread: &'a ThreadId,
}

impl<'a> Kickable<'a> {
    /// Announce that this thread runs `vcpu` from now on. Look for requests after this, before the first run.
    pub fn new(thread: &'a ThreadId, vcpu: &mut Vcpu) -> Result<Self, errno::Error> {
        register_signal_handler(signal(), handler)?;
        // The mask is inherited from whoever started the thread.
        unblock_signal(signal()).map_err(|_| errno::Error::last())?;
        IMMEDIATE_EXIT.set(vcpu.immediate_exit());
        compiler_fence(Ordering::SeqCst);
        // SAFETY: `gettid` has no preconditions.
        let id = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
        thread.0.store(id, Ordering::SeqCst);
        Ok(Self { thread })
    }
}

impl Drop for Kickable<'_> {
    fn drop(&mut self) {
        self.thread.0.store(0, Ordering::SeqCst);
        IMMEDIATE_EXIT.set(ptr::null_mut());
        compiler_fence(Ordering::SeqCst);
    }
}
