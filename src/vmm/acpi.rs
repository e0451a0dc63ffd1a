//! ACPI tables of a hardware-reduced machine (ACPI 6.5): RSDP, XSDT, FADT, MADT, MCFG and a DSDT.
//!
//! The power button is a control-method one behind a generic event device (§5.6.9), sleep goes through the sleep control
//! register (§4.8.3.7), reset through the FADT's reset register (§4.8.3.6). Each PCI slot has a device node with
//! `_SUN`, from which Linux makes `/sys/bus/pci/slots` and udev the name `ens5`. Slots whose device may change have `_EJ0`,
//! which makes Linux watch them; the generic event device notifies them.

#![forbid(unsafe_code)]

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal, Field,
    FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method,
    MethodCall, Name, Notify, OpRegion, OpRegionSpace, Or, Package, Path, ResourceTemplate, Return, Store, Uuid, ZERO,
};
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::devices::acpi::{RESET_OFFSET, RESET_VALUE, S5_SLEEP_TYPE, SLEEP_CONTROL_OFFSET, SLEEP_STATUS_OFFSET};
use super::devices::events;
use super::layout;
use super::x86_64::cpuid::apic_id;

const OEM: [u8; 6] = *b"AMAZON";
const OEM_REVISION: u32 = 1;
/// `IAPC_BOOT_ARCH` (§5.2.9.3): no VGA. An i8042 and legacy devices are not announced, so that nothing probes for them;
/// the i8042's reset works all the same.
const BOOT_ARCH_NO_VGA: u16 = 1 << 2;
/// The RSDP takes 36 bytes; tables follow at the next multiple of 16.
const FIRST_TABLE: usize = 48;

/// What the tables depend on.
#[derive(Clone, Debug)]
pub struct AcpiConfig {
    /// Processors.
    pub vcpus: u32,
    /// PCI slots on bus 0 whose devices stay.
    pub slots: Vec<u8>,
    /// PCI slots on bus 0 whose devices may come and go.
    pub hotplug: Vec<u8>,
    /// The 64-bit PCI window (address, bytes).
    pub pci_mmio64: Option<(u64, u64)>,
}

/// The bytes at [`layout::ACPI_TABLES`]: the RSDP, and behind it all tables.
pub fn build(config: &AcpiConfig) -> Vec<u8> {
    let mut blob = vec![0; FIRST_TABLE];
    let mut place = |table: &dyn Aml| {
        blob.resize(blob.len().next_multiple_of(16), 0);
        let address = layout::ACPI_TABLES + blob.len() as u64;
        table.to_aml_bytes(&mut blob);
        address
    };
    let dsdt = place(&dsdt(config));
    let mut xsdt = XSDT::new(OEM, *b"AMZNXSDT", OEM_REVISION);
    for table in [place(&fadt(dsdt)), place(&madt(config.vcpus)), place(&mcfg())] {
        xsdt.add_entry(table);
    }
    let xsdt = place(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    blob[..rsdp.len()].copy_from_slice(&rsdp);
    blob
}

fn fadt(dsdt: u64) -> impl Aml {
    let register =
        |offset: u16| GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(layout::PORT_ACPI + offset));
    let mut fadt = FADTBuilder::new(OEM, *b"AMZNFACP", OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        // The power button is a control-method one; there is no sleep button, and no RTC wake status.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = BOOT_ARCH_NO_VGA.into();
    fadt.reset_reg = register(RESET_OFFSET);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = register(SLEEP_CONTROL_OFFSET);
    fadt.sleep_status_reg = register(SLEEP_STATUS_OFFSET);
    fadt.finalize()
}

fn madt(vcpus: u32) -> impl Aml {
    let local = LocalInterruptController::Address(layout::LOCAL_APIC as u32);
    let mut madt = MADT::new(OEM, *b"AMZNAPIC", OEM_REVISION, local);
    for index in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(index as u8, apic_id(index) as u8, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC as u32, 0));
    madt
}

fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM, *b"AMZNMCFG", OEM_REVISION);
    mcfg.add_ecam(layout::PCI_ECAM, 0, 0, 0);
    mcfg
}

fn dsdt(config: &AcpiConfig) -> impl Aml {
    let mut body = Vec::new();
    let sleep = S5_SLEEP_TYPE;
    Name::new("_S5_".into(), &Package::new(vec![&sleep, &ZERO, &ZERO, &ZERO])).to_aml_bytes(&mut body);
    pci_root(config, &mut body);
    legacy_devices(&mut body);
    events_device(&mut body);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 6, OEM, *b"AMZNDSDT", OEM_REVISION);
    dsdt.append_slice(&body);
    dsdt
}

fn hid(id: &str) -> Name {
    Name::new("_HID".into(), &EISAName::new(id))
}

fn pci_root(config: &AcpiConfig, body: &mut Vec<u8>) {
    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let config_ports = IO::new(layout::PORT_PCI_CONFIG, layout::PORT_PCI_CONFIG, 1, 8);
    let low_ports = AddressSpace::new_io(0u16, layout::PORT_PCI_CONFIG - 1, None);
    let high_ports = AddressSpace::new_io(layout::PORT_PCI_CONFIG + 8, 0xFFFF, None);
    let (start, end) = (layout::PCI_MMIO32 as u32, (layout::PCI_MMIO32 + layout::PCI_MMIO32_SIZE - 1) as u32);
    let mmio32 = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, start, end, None);
    let mmio64 = config.pci_mmio64.map(|(start, size)| {
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, start, start + size - 1, None)
    });
    let mut windows: Vec<&dyn Aml> = vec![&buses, &config_ports, &low_ports, &high_ports, &mmio32];
    windows.extend(mmio64.iter().map(|w| w as &dyn Aml));
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(windows));

    // The firmware keeps no PCI Express feature to itself (PCI Firmware 3.3 §4.5.1).
    let control = Uuid::new("33DB4D5B-1FF7-401C-9657-7441C03DD766");
    let is_control = Equal::new(&Arg(0), &control);
    let (return_all, bad_uuid) = (Return::new(&Arg(3)), 4u8);
    let (status_name, status) = (Path::new("CDW1"), Path::new("CDW1"));
    let (zero, target) = (ZERO, Path::new("CDW1"));
    let view = CreateDWordField::new(&status_name, &Arg(3), &zero);
    let mark = Or::new(&target, &status, &bad_uuid);
    let granted = If::new(&is_control, vec![&return_all]);
    let refused = Else::new(vec![&view, &mark, &return_all]);
    let osc = Method::new("_OSC".into(), 4, true, vec![&granted, &refused]);

    let (id, compatible) = (hid("PNP0A08"), Name::new("_CID".into(), &EISAName::new("PNP0A03")));
    let numbers: Vec<Name> = ["_UID", "_SEG", "_BBN"].iter().map(|n| Name::new((*n).into(), &ZERO)).collect();
    let fixed = config.slots.iter().map(|slot| Slot { number: *slot, hotplug: false });
    let hotplug = config.hotplug.iter().map(|slot| Slot { number: *slot, hotplug: true });
    let mut slots: Vec<Slot> = fixed.chain(hotplug).collect();
    slots.sort_unstable_by_key(|slot| slot.number);
    let (port, ports) = (layout::PORT_EVENTS, events::PORTS);
    let region = OpRegion::new("EVTR".into(), OpRegionSpace::SystemIO, &port, &ports);
    let registers = [BUTTONS, PLUGGED, EJECT_REQUESTED, EJECT].map(|name| FieldEntry::Named(*name, 32));
    let registers = Field::new(
        "EVTR".into(),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        registers.to_vec(),
    );
    let check = CheckSlots(&config.hotplug);
    let mut children: Vec<&dyn Aml> = vec![&id, &compatible];
    children.extend(numbers.iter().map(|n| n as &dyn Aml));
    children.extend([&resources as &dyn Aml, &osc, &region, &registers]);
    children.extend(slots.iter().map(|s| s as &dyn Aml));
    children.push(&check);
    Device::new("_SB_.PCI0".into(), children).to_aml_bytes(body);
}

/// Names of the registers in [`events`], in their order.
const BUTTONS: &[u8; 4] = b"BTNS";
const PLUGGED: &[u8; 4] = b"PLGD";
const EJECT_REQUESTED: &[u8; 4] = b"EJRQ";
const EJECT: &[u8; 4] = b"EJCT";

fn register(name: &[u8; 4]) -> Path {
    Path::new(&String::from_utf8_lossy(name))
}

/// The device node of a PCI slot on bus 0.
struct Slot {
    number: u8,
    hotplug: bool,
}

fn slot_name(number: u8) -> String {
    format!("S{number:03}")
}

fn slot_bit(number: u8) -> u32 {
    1u32.checked_shl(number.into()).unwrap_or(0)
}

impl Aml for Slot {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let address = Name::new("_ADR".into(), &(u32::from(self.number) << 16));
        let number = Name::new("_SUN".into(), &self.number);
        // There is no `_STA`: Linux looks at the slot itself.
        let (to, bit) = (register(EJECT), slot_bit(self.number));
        let eject = Store::new(&to, &bit);
        let eject = Method::new("_EJ0".into(), 1, false, vec![&eject]);
        let mut children: Vec<&dyn Aml> = vec![&address, &number];
        if self.hotplug {
            children.push(&eject);
        }
        Device::new(slot_name(self.number).as_str().into(), children).to_aml_bytes(sink);
    }
}

/// The method that tells slots of what happened to them, as the registers say.
struct CheckSlots<'a>(&'a [u8]);

impl Aml for CheckSlots<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        const DEVICE_CHECK: u8 = 1;
        const EJECT_REQUEST: u8 = 3;
        let mut body = Vec::new();
        // What is new first: a request to eject it may have come before the guest got here.
        for (local, from, event) in [(Local(0), PLUGGED, DEVICE_CHECK), (Local(1), EJECT_REQUESTED, EJECT_REQUEST)] {
            Store::new(&local, &register(from)).to_aml_bytes(&mut body);
            for slot in self.0 {
                let (bit, name) = (slot_bit(*slot), slot_name(*slot));
                let path = Path::new(&name);
                let notify = Notify::new(&path, &event);
                If::new(&And::new(&ZERO, &local, &bit), vec![&notify]).to_aml_bytes(&mut body);
            }
        }
        Method::new(CHECK_SLOTS.into(), 0, true, vec![&Raw(body)]).to_aml_bytes(sink);
    }
}

const CHECK_SLOTS: &str = "CHKS";

/// AML that is there already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// COM1, the real-time clock, and the claim on PCI configuration space.
fn legacy_devices(body: &mut Vec<u8>) {
    let ports = IO::new(layout::PORT_COM1, layout::PORT_COM1, 1, 8);
    let line = Interrupt::new(true, true, false, false, layout::GSI_COM1);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &line]));
    let number = Name::new("_UID".into(), &ZERO);
    Device::new("_SB_.COM1".into(), vec![&hid("PNP0501"), &number, &resources]).to_aml_bytes(body);

    let ports = IO::new(layout::PORT_RTC, layout::PORT_RTC, 1, 2);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports]));
    Device::new("_SB_.RTC_".into(), vec![&hid("PNP0B00"), &resources]).to_aml_bytes(body);

    let space = Memory32Fixed::new(true, layout::PCI_ECAM as u32, layout::PCI_ECAM_SIZE as u32);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&space]));
    Device::new("_SB_.MBRD".into(), vec![&hid("PNP0C02"), &number, &resources]).to_aml_bytes(body);
}

/// The generic event device, and the power button behind it.
fn events_device(body: &mut Vec<u8>) {
    let number = Name::new("_UID".into(), &ZERO);
    Device::new("_SB_.PWRB".into(), vec![&hid("PNP0C0C"), &number]).to_aml_bytes(body);

    const PRESSED: u8 = 0x80;
    let line = Interrupt::new(true, false, false, false, layout::GSI_GED);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&line]));
    let id = Name::new("_HID".into(), &"ACPI0013");
    let (buttons, button) = (Path::new("\\_SB_.PCI0.BTNS"), Path::new("\\_SB_.PWRB"));
    let pressed = And::new(&ZERO, &buttons, &events::POWER_BUTTON);
    let notify = Notify::new(&button, &PRESSED);
    let when = If::new(&pressed, vec![&notify]);
    let check = MethodCall::new(Path::new("\\_SB_.PCI0.CHKS"), Vec::new());
    let event = Method::new("_EVT".into(), 1, true, vec![&when, &check]);
    Device::new("_SB_.GED_".into(), vec![&id, &number, &resources, &event]).to_aml_bytes(body);
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
