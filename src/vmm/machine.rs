//! A machine, from its configuration to the way it ended.
//!
//! ```text
//! MachineConfig -> Machine::new -> Machine::run -> Exit
//!                       |              |
//!                  MachineHandle: power button, stop, console input, volumes, what the vCPUs do
//! ```
//!
//! Everything is opened and allocated in [`Machine::new`]; [`Machine::run`] starts a thread for each vCPU and returns when all
//! have ended and every device has let go of its back end. A reboot is a new machine from the same configuration.

#![forbid(unsafe_code)]

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::acpi::{self, AcpiConfig};
use super::build::Surroundings;
use super::bus::{Bus, Decoder};
use super::config::{MachineConfig, VolumeConfig};
use super::devices::acpi::AcpiRegisters;
use super::devices::events::{self, EventRegisters, Events};
use super::devices::i8042::I8042;
use super::devices::rtc::Rtc;
use super::devices::serial::Serial;
use super::devices::{acpi as acpi_device, rtc, serial};
use super::groundwork::{Ground, Groundwork};
use super::hotplug::Hotplug;
pub use super::hotplug::{HotplugError, MachineEvent};
use super::interrupt::MsiRouter;
use super::kvm::KvmError;
use super::kvm::irq::{self, KvmLevelLine, KvmMsiRouter};
use super::kvm::vcpu::{Buses, Vcpu};
use super::kvm::vm::{KvmIoEventFds, Vm};
use super::layout;
use super::memory::{GuestMemory, MemoryError, memory_map};
use super::pci::root::{PciRoot, RootError};
use super::run::{self, Shared};
use super::smbios::{self, SmbiosError};
use super::x86_64::cpuid;
use super::x86_64::loader::{self, LoadError};

/// All the BIOS there is, at the reset vector: 16-bit code that writes the reset register. Linux before 6.8 takes a
/// hardware-reduced machine for one that reboots by EFI, finds no EFI, and goes for the BIOS next; the ACPI reset register and
/// the keyboard controller have no turn.
const RESET_CODE: [u8; 10] = {
    let [low, high] = (layout::PORT_ACPI + acpi_device::RESET_OFFSET).to_le_bytes();
    // mov dx, port; mov al, value; out dx, al; cli; hlt; jmp to the hlt
    [0xBA, low, high, 0xB0, acpi_device::RESET_VALUE, 0xEE, 0xFA, 0xF4, 0xEB, 0xFD]
};

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Guest memory.
    #[error("cannot set up guest memory")]
    Memory(#[from] MemoryError),
    /// KVM.
    #[error("cannot set up the virtual machine")]
    Kvm(#[from] KvmError),
    /// Kernel, initial RAM disk or command line.
    #[error("cannot load the guest's kernel")]
    Load(#[from] LoadError),
    /// The machine's identity.
    #[error("cannot describe the machine to the guest")]
    Smbios(#[from] SmbiosError),
    /// Firmware tables that do not fit in their place.
    #[error("cannot write firmware tables into guest memory")]
    Tables(#[from] GuestMemoryError),
    /// A device did not find a place.
    #[error("cannot add the device in PCI slot {0}")]
    Slot(u8, #[source] RootError),
    /// A device could not be built.
    #[error("cannot build the device in PCI slot {0}")]
    Device(u8, #[source] std::io::Error),
    /// A volume did not find a place.
    #[error("cannot add a volume")]
    Volume(#[from] HotplugError),
    /// No thread for KVM.
    #[error("cannot use a thread for KVM")]
    Thread(#[source] std::io::Error),
    /// No vCPU, or more threads per core than a core has.
    #[error("a machine with {0} cores of {1} threads cannot exist")]
    Topology(u32, u32),
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset: a reboot.
    Reset,
    /// The guest crashed so that a processor would have reset itself.
    TripleFault,
    /// A fault in this program, in a vCPU's thread.
    VcpuPanicked(String),
    /// KVM could not go on. The text holds the registers.
    InternalError(String),
    /// [`MachineHandle::stop`].
    Stopped,
}

/// A machine that is ready to run.
pub struct Machine {
    vcpus: Vec<Vcpu>,
    buses: Arc<Buses>,
    pci: Arc<PciRoot>,
    events: Arc<Events>,
    hotplug: Arc<Hotplug>,
    shared: Arc<Shared>,
    /// Dropped last: KVM's memory slots point into guest memory, and devices may use both until they are gone.
    _vm: Vm,
}

impl Machine {
    /// Build the machine and load the kernel.
    pub fn new(config: MachineConfig) -> Result<Self, MachineError> {
        let MachineConfig {
            memory: size,
            topology,
            kernel,
            initrd,
            cmdline,
            smbios,
            console,
            volumes,
            nics,
            groundwork,
        } = config;
        let count = topology.cores.saturating_mul(topology.threads_per_core);
        let groundwork = match groundwork.filter(|ground| ground.is_for(size, topology, &kernel)) {
            Some(begun) => begun,
            None => Groundwork::begin(size, topology, Some(&kernel))?,
        };
        let Ground { memory, vm, vcpus, loading } = groundwork.finish()?;

        let mmio64 = layout::pci_mmio64(size, cpuid::address_bits(vm.supported_cpuid()));
        let pci = pci_root(&vm, mmio64);
        let router: Arc<dyn MsiRouter> = Arc::new(KvmMsiRouter::new(Arc::clone(vm.fd())));
        let events = Arc::new(Events::new(Box::new(KvmLevelLine::new(Arc::clone(vm.fd()), layout::GSI_GED))));
        let hotplug = Hotplug::new(Arc::clone(&pci), Arc::clone(&router), memory.clone(), count, Arc::clone(&events));
        let hotplug = Arc::new(hotplug);
        let surroundings = Surroundings { pci: &pci, hotplug: &hotplug, router: &router, memory: &memory };
        let slots = surroundings.build(volumes, nics)?;

        let serial = Serial::new(irq::pin(vm.fd(), layout::GSI_COM1)?, console);
        let serial = Arc::new(Mutex::new(serial));
        let buses = Arc::new(Buses { pio: pio(&serial, &pci, &events, &hotplug), mmio: mmio(&pci), serial });

        let tables = AcpiConfig { vcpus: count, slots: slots.fixed, hotplug: slots.changeable, pci_mmio64: mmio64 };
        write_tables(&memory, &acpi::build(&tables), layout::ACPI_TABLES, layout::ACPI_TABLES_SIZE)?;
        write_tables(&memory, &smbios::build(&smbios, count, size)?, layout::SMBIOS, layout::SMBIOS_SIZE)?;
        memory.write_slice(&RESET_CODE, GuestAddress(layout::RESET_VECTOR))?;
        let map = memory_map(size);
        let entry = loader::load(&memory, &kernel, initrd.as_ref(), &cmdline, &map, layout::ACPI_TABLES, loading)?;
        if let Some(boot_processor) = vcpus.first() {
            boot_processor.enter_at(entry)?;
        }
        Ok(Self { vcpus, buses, pci, events, hotplug, shared: Arc::new(Shared::new(count)), _vm: vm })
    }

    /// Something to hold on to while the machine runs.
    pub fn handle(&self) -> MachineHandle {
        MachineHandle {
            shared: Arc::clone(&self.shared),
            events: Arc::clone(&self.events),
            hotplug: Arc::downgrade(&self.hotplug),
            serial: Arc::downgrade(&self.buses.serial),
        }
    }

    /// Run until the guest ends or is stopped. `on_first_run` gets the time just before the boot processor entered the guest.
    ///
    /// When this returns, all vCPU threads have ended and all back ends are released.
    pub fn run(mut self, on_first_run: impl FnOnce(Instant)) -> Exit {
        run::run(std::mem::take(&mut self.vcpus), &self.buses, &self.shared, on_first_run)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A machine that is dropped without having run has devices with threads, too.
        self.hotplug.end();
        self.pci.shutdown();
    }
}

/// Reaches into a running machine. After the machine's end its methods do nothing.
#[derive(Clone)]
pub struct MachineHandle {
    shared: Arc<Shared>,
    events: Arc<Events>,
    hotplug: Weak<Hotplug>,
    serial: Weak<Mutex<Serial>>,
}

impl MachineHandle {
    /// Press the power button: the guest is asked to shut down, and may take its time, or not listen.
    pub fn power_button(&self) {
        self.events.press_power_button();
    }

    /// Attach a volume in a free slot: an NVMe controller is plugged in, and the guest is told.
    pub fn attach_volume(&self, volume: VolumeConfig) -> Result<(), HotplugError> {
        self.hotplug()?.attach(volume)
    }

    /// Ask the guest to let go of the volume in `slot`. [`MachineEvent::Detached`] follows when it has, and the back end is
    /// released; the guest may take its time, or not listen.
    pub fn detach_volume(&self, slot: u8) -> Result<(), HotplugError> {
        self.hotplug()?.request_detach(slot)
    }

    /// Take the volume in `slot` away, whatever the guest is doing with it. Commands in flight are finished first; then
    /// [`MachineEvent::Detached`] follows. The slot is free again when the guest has noticed, or with the next machine.
    pub fn force_detach_volume(&self, slot: u8) -> Result<(), HotplugError> {
        self.hotplug()?.force_detach(slot)
    }

    /// Wait until `slot` has no volume, and the back end of the one that was there is released; `false` if that takes
    /// longer than `patience`.
    pub fn wait_detached(&self, slot: u8, patience: Duration) -> bool {
        self.hotplug().map_or(true, |hotplug| hotplug.wait_detached(slot, patience))
    }

    /// The slots in which a volume can be attached now, ascending.
    pub fn free_slots(&self) -> Vec<u8> {
        self.hotplug().map(|hotplug| hotplug.free_slots()).unwrap_or_default()
    }

    /// The back end of the volume in `slot` has a new size: let the guest look.
    pub fn resized(&self, slot: u8) -> Result<(), HotplugError> {
        self.hotplug()?.resized(slot)
    }

    /// What happens to the machine's devices from now on, on request or not. The channel closes with the machine's end.
    pub fn events(&self) -> Receiver<MachineEvent> {
        match self.hotplug() {
            Ok(hotplug) => hotplug.listen(),
            Err(_) => channel().1,
        }
    }

    fn hotplug(&self) -> Result<Arc<Hotplug>, HotplugError> {
        self.hotplug.upgrade().ok_or(HotplugError::Ended)
    }

    /// End the machine at once, as if the power were cut.
    pub fn stop(&self) {
        self.shared.end(Exit::Stopped);
    }

    /// Type `bytes` at the serial console. Returns how many were taken: what the guest does not read is bounded.
    pub fn serial_input(&self, bytes: &[u8]) -> usize {
        self.serial.upgrade().map_or(0, |s| s.lock().unwrap_or_else(PoisonError::into_inner).input(bytes))
    }

    /// Send the magic SysRq `key` over the serial line: `s` makes Linux write its dirty pages. The guest may have it
    /// switched off.
    pub fn serial_sysrq(&self, key: u8) {
        if let Some(serial) = self.serial.upgrade() {
            serial.lock().unwrap_or_else(PoisonError::into_inner).sysrq(key);
        }
    }

    /// What each vCPU is doing, one line each: mode, instruction pointer, whether it is halted. A vCPU that does not answer
    /// within `patience` is left out.
    pub fn describe_vcpus(&self, patience: Duration) -> Vec<String> {
        self.shared.describe(patience)
    }
}

fn write_tables(memory: &GuestMemory, bytes: &[u8], at: u64, room: u64) -> Result<(), MachineError> {
    if bytes.len() as u64 > room {
        return Err(GuestMemoryError::PartialBuffer { expected: bytes.len(), completed: room as usize }.into());
    }
    Ok(memory.write_slice(bytes, GuestAddress(at))?)
}

fn pci_root(vm: &Vm, mmio64: Option<(u64, u64)>) -> Arc<PciRoot> {
    let mmio32 = layout::PCI_MMIO32..layout::PCI_MMIO32 + layout::PCI_MMIO32_SIZE;
    let mmio64 = mmio64.map_or(0..0, |(start, size)| start..start + size);
    Arc::new(PciRoot::new(mmio32, mmio64, Arc::new(KvmIoEventFds(Arc::clone(vm.fd())))))
}

fn pio(serial: &Arc<Mutex<Serial>>, pci: &Arc<PciRoot>, events: &Arc<Events>, hotplug: &Arc<Hotplug>) -> Bus {
    let mut bus = Bus::default();
    bus.add(layout::PORT_COM1.into(), serial::PORTS.into(), Arc::clone(serial) as _);
    bus.add(layout::PORT_I8042_DATA.into(), 1, Arc::new(Mutex::new(I8042 { command: false })));
    bus.add(layout::PORT_I8042_COMMAND.into(), 1, Arc::new(Mutex::new(I8042 { command: true })));
    bus.add(layout::PORT_RTC.into(), rtc::PORTS.into(), Arc::new(Mutex::new(Rtc::new(SystemTime::now))));
    bus.add(layout::PORT_ACPI.into(), acpi_device::PORTS.into(), Arc::new(Mutex::new(AcpiRegisters)));
    let eject = {
        let hotplug = Arc::clone(hotplug);
        move |slots| hotplug.ejected(slots)
    };
    let events = EventRegisters::new(Arc::clone(events), eject);
    bus.add(layout::PORT_EVENTS.into(), events::PORTS.into(), Arc::new(Mutex::new(events)));
    bus.set_decoder(Arc::new(PciPorts(Arc::clone(pci))));
    bus
}

fn mmio(pci: &Arc<PciRoot>) -> Bus {
    let mut bus = Bus::default();
    bus.set_decoder(Arc::new(PciMemory(Arc::clone(pci))));
    bus
}

/// Configuration mechanism 1.
struct PciPorts(Arc<PciRoot>);

impl Decoder for PciPorts {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let Some(port) = config_port(address) else { return false };
        self.0.port_read(port, data);
        true
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some(port) = config_port(address) else { return false };
        self.0.port_write(port, data);
        true
    }
}

fn config_port(address: u64) -> Option<u16> {
    u16::try_from(address).ok().filter(|port| (layout::PORT_PCI_CONFIG..layout::PORT_PCI_CONFIG + 8).contains(port))
}

/// Configuration space and BARs.
struct PciMemory(Arc<PciRoot>);

impl Decoder for PciMemory {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        match config_offset(address, data.len()) {
            Some(offset) => self.0.ecam_read(offset, data),
            None => return self.0.mmio_read(address, data),
        }
        true
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        match config_offset(address, data.len()) {
            Some(offset) => self.0.ecam_write(offset, data),
            None => return self.0.mmio_write(address, data),
        }
        true
    }
}

fn config_offset(address: u64, length: usize) -> Option<u64> {
    let offset = address.checked_sub(layout::PCI_ECAM)?;
    (offset.checked_add(length as u64)? <= layout::PCI_ECAM_SIZE).then_some(offset)
}
