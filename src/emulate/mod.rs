//! The emulated host: for machines without usable KVM, a small Linux VM under QEMU (TCG, nested SVM) that runs this very
//! binary, so that the same machine monitor works on a real, if slow, `/dev/kvm`. Never used silently: the caller asks
//! for it, [`kvm_usable`] says when it is needed.
//!
//! How it works: an initramfs ([`cpio`]) holds the static binary as `/init` and the kernel modules it needs
//! ([`modules`]); QEMU starts it on a stock kernel ([`kernel`]); and [`channel`] frames go over one virtio-serial port.
//! Inside, the binary finds itself as process 1 ([`init`]): it loads modules, configures `eth0`, runs the commands that
//! are ordered over the port with their standard streams connected to it ([`inner`]), and reports their exit status.
//!
//! There are two kinds. [`EmulatedHost`] is a machine for one command, which ends with it. [`SharedHost`] is one for many
//! commands at once, whose drives and ports come and go with them; a keeper process holds it from its first use on.

#![forbid(unsafe_code)]

pub mod binary;
pub mod channel;
pub mod cpio;
mod error;
pub mod host;
pub mod init;
mod initramfs;
pub mod inner;
pub mod keeper;
pub mod kernel;
mod machine;
pub mod modules;
mod netlink;
pub mod qemu;
mod running;
pub mod shared;
pub mod usable;
pub mod window;

pub use error::Error;
pub use host::EmulatedHost;
pub use inner::rescan;
pub use keeper::protocol::{Phase, Settings, Status};
pub use kernel::Kernel;
pub use qemu::{Cache, Drive, Forward, Protocol};
pub use running::Running;
pub use shared::{SharedCommand, SharedHost};
pub use usable::{NotUsable, kvm_usable};
