//! amiable launches local EC2 instances: a small virtual machine monitor on Linux KVM that boots Linux from AMI disk
//! images, sizes the machine from an EC2 instance type and serves user-data at `http://169.254.169.254`.
//!
//! The rooms, from the front door to the ground. A room uses only rooms below it:
//!
//! - [`cli`]: what a person types. Parses, calls [`region`], prints. No EC2 rule lives here.
//! - [`region`]: the local region: every EC2 action, its transactions and its store.
//! - [`host`]: one instance's process: puts machine, network, metadata and disks together, records what happens,
//!   and finds the verdict of the user-data.
//! - [`imds`]: the instance metadata service: request bytes in, response bytes out.
//! - [`net`]: the user-mode network: frames in, frames out, host sockets behind it.
//! - [`storage`]: volumes, copy-on-write, image formats: blocks in, blocks out.
//! - [`boot`]: from a disk to kernel, initrd and command line.
//! - [`vmm`]: the machine: KVM, memory, vCPUs, PCI, interrupts, ACPI, SMBIOS, devices.
//! - [`emulate`]: a small host under QEMU TCG, for machines without usable KVM.
//! - [`ec2`]: what EC2 means: ids, instance types, user-data rules, error codes. Pure values.

pub mod boot;
pub mod cli;
pub mod ec2;
pub mod emulate;
pub mod host;
pub mod imds;
pub mod net;
pub mod region;
pub mod storage;
pub mod vmm;
