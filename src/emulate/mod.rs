//! The emulated host: for machines without usable KVM, a small Linux VM under QEMU (TCG, nested SVM) that runs this very
//! binary, so that the same machine monitor works on a real, if slow, `/dev/kvm`. Never used silently: the caller asks
//! for it, [`kvm_usable`] says when it is needed.
//!
//! How it works: [`EmulatedHost`] writes an initramfs ([`cpio`]) that holds the static binary as `/init`, the kernel
//! modules it needs ([`modules`]) and a description of what to run; starts QEMU on a stock kernel ([`kernel`]); and
//! speaks [`channel`] frames over one virtio-serial port. Inside, the binary finds itself as process 1 with that
//! description beside it ([`init`]): it loads modules, configures `eth0`, runs the command with its standard streams
//! connected to the port, reports the exit status and powers off.

#![forbid(unsafe_code)]

pub mod binary;
pub mod channel;
pub mod cpio;
pub mod host;
pub mod init;
pub mod kernel;
pub mod modules;
mod netlink;
pub mod qemu;
pub mod usable;

pub use host::{EmulatedHost, Error, Running};
pub use kernel::Kernel;
pub use qemu::{Cache, Drive, Forward, Protocol};
pub use usable::{NotUsable, kvm_usable};
