use std::io::Write;
use std::process::Command;

use super::*;
use crate::vmm::x86_64::bytes::{u32_at, u64_at};

fn tables() -> Vec<u8> {
    build(&AcpiConfig {
        vcpus: 3,
        slots: vec![4, 5, 31],
        hotplug: vec![1, 6, 30],
        pci_mmio64: Some((16 << 30, 16 << 30)),
    })
}

/// The table at a guest address.
fn table(blob: &[u8], address: u64) -> &[u8] {
    let at = (address - layout::ACPI_TABLES) as usize;
    let length = u32_at(blob, at + 4).unwrap() as usize;
    &blob[at..at + length]
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
}

/// All tables by signature, as a reader finds them from the RSDP on.
fn find<'a>(blob: &'a [u8], signature: &[u8; 4]) -> &'a [u8] {
    let xsdt = table(blob, u64_at(blob, 24).unwrap());
    assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
    let mut listed = xsdt[36..].chunks(8).map(|a| table(blob, u64::from_le_bytes(a.try_into().unwrap())));
    if signature == b"DSDT" {
        let fadt = find(blob, b"FACP");
        return table(blob, u64_at(fadt, 140).unwrap());
    }
    listed.find(|t| &t[..4] == signature).unwrap()
}

#[test]
fn every_table_is_reachable_and_sums_up() {
    let blob = tables();
    assert_eq!(&blob[..8], b"RSD PTR ");
    assert_eq!((sum(&blob[..20]), sum(&blob[..36]), blob[15]), (0, 0, 2));
    for signature in [b"FACP", b"APIC", b"MCFG", b"DSDT"] {
        let table = find(&blob, signature);
        assert_eq!((sum(table), &table[10..16]), (0, &b"AMAZON"[..]), "{signature:?}");
    }
    assert!(blob.len() as u64 <= layout::ACPI_TABLES_SIZE);
}

#[test]
fn the_largest_machine_fits() {
    let blob = build(&AcpiConfig { vcpus: 254, slots: vec![2, 4, 5], hotplug: (1..32).collect(), pci_mmio64: None });
    assert!(blob.len() as u64 <= layout::ACPI_TABLES_SIZE, "{} bytes", blob.len());
}

#[test]
fn the_fadt_is_hardware_reduced_and_can_reset_and_sleep() {
    let blob = tables();
    let fadt = find(&blob, b"FACP");
    let flags = u32_at(fadt, 112).unwrap();
    assert_ne!(flags & 1 << 20, 0, "hardware-reduced");
    assert_ne!(flags & 1 << 10, 0, "reset register");
    assert_eq!(u16::from_le_bytes([fadt[109], fadt[110]]), 4, "no i8042 and no VGA to probe for, but a CMOS clock");
    assert_eq!((fadt[116], u64_at(fadt, 120).unwrap(), fadt[128]), (1, 0x602, 1));
    assert_eq!((fadt[244], u64_at(fadt, 248).unwrap()), (1, 0x600));
    assert_eq!((fadt[256], u64_at(fadt, 260).unwrap()), (1, 0x601));
}

#[test]
fn the_madt_lists_processors_and_the_io_apic() {
    let blob = tables();
    let madt = find(&blob, b"APIC");
    assert_eq!(u32_at(madt, 36), Some(0xFEE0_0000));
    for index in 0..3u8 {
        let at = 44 + usize::from(index) * 8;
        assert_eq!(madt[at..at + 8], [0, 8, index, index, 1, 0, 0, 0]);
    }
    assert_eq!((madt[68], u32_at(madt, 72), u32_at(madt, 76)), (1, Some(0xFEC0_0000), Some(0)));
}

#[test]
fn the_mcfg_names_bus_0() {
    let blob = tables();
    let mcfg = find(&blob, b"MCFG");
    assert_eq!((u64_at(mcfg, 44), mcfg[54], mcfg[55]), (Some(layout::PCI_ECAM), 0, 0));
}

/// The disassembler of ACPICA reads the DSDT, and its compiler takes what it read.
#[test]
fn the_dsdt_is_valid_to_acpica() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("SKIPPED: iasl is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dsdt.aml");
    std::fs::File::create(&path).unwrap().write_all(find(&tables(), b"DSDT")).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new("iasl").args(arguments).current_dir(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        text
    };
    run(&["-d", "dsdt.aml"]);
    let source = std::fs::read_to_string(folder.path().join("dsdt.dsl")).unwrap();
    assert_eq!(source.matches("Method (_EJ0").count(), 3, "only slots that may change can be ejected:\n{source}");
    for part in ["EJCT = 0x40000000", "Notify (S030, One)", "Notify (S001, 0x03)", "Notify (\\_SB.PWRB, 0x80)"] {
        assert!(source.contains(part), "{part} is missing in\n{source}");
    }
    for part in ["_S5", "PNP0A08", "_OSC", "Device (S005)", "_SUN, 0x05", "PNP0501", "PNP0B00", "ACPI0013", "_EVT"] {
        assert!(source.contains(part), "{part} is missing in\n{source}");
    }
    let verdict = run(&["-p", "again", "dsdt.dsl"]);
    assert!(verdict.contains(" 0 Errors, 0 Warnings"), "{verdict}");
}
