//! The machine: guest memory, vCPUs, interrupts, PCI, ACPI, SMBIOS and devices on Linux KVM.
//!
//! The room knows neither EC2 nor disk formats. It takes a [`config::MachineConfig`] with back ends behind the traits of
//! [`backend`], runs until the guest ends, and says how it ended. A device is a value: it is read, written and told to
//! process its queues, answers with a [`device::Action`], and never holds the machine.

pub mod acpi;
pub mod backend;
pub mod build;
pub mod bus;
pub mod config;
pub mod device;
pub mod devices;
pub mod footprint;
pub mod groundwork;
pub mod hotplug;
pub mod interrupt;
pub mod kvm;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod nvme;
pub mod pci;
pub mod run;
pub mod smbios;
pub mod virtio;
pub mod volatile_io;
pub mod x86_64;
