//! SMBIOS 2.7 (DMTF DSP0134) as a Nitro instance has it: entry point and structure table.
//!
//! cloud-init knows EC2 by the system UUID alone, others by vendor, asset tag and serial number. The kernel finds the
//! entry point by a scan of 0xF_0000 to 0xF_FFFF.

#![forbid(unsafe_code)]

use super::config::SmbiosIdentity;
use super::layout;

const VENDOR: &str = "Amazon EC2";
const BIOS_VERSION: &str = "1.0";
/// A kernel distrusts PCI configuration space above the legacy area of firmware from before 2010.
const BIOS_DATE: &str = "10/16/2017";
/// The entry point takes 31 bytes; the structures follow at the next paragraph.
const TABLE_OFFSET: usize = 0x20;
/// SMBIOS version of the layout of every structure below.
const VERSION: (u8, u8) = (2, 7);
/// The longest string that SMBIOS 2.x readers can be expected to take.
const MAX_STRING: usize = 64;

/// Why the identity can't be put into SMBIOS.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmbiosError {
    /// Not the canonical text form.
    #[error("{0:?} is not a UUID in canonical lower-case form")]
    Uuid(String),
    /// Too long, or with characters other than printable ASCII.
    #[error("{0:?} is not usable as an SMBIOS string (1 to 64 printable ASCII characters)")]
    String(String),
}

/// The bytes at [`layout::SMBIOS`].
pub fn build(identity: &SmbiosIdentity, vcpus: u32, memory: u64) -> Result<Vec<u8>, SmbiosError> {
    let uuid = uuid_bytes(&identity.uuid)?;
    for text in [&identity.product_name, &identity.board_asset_tag] {
        if text.is_empty() || text.len() > MAX_STRING || !text.bytes().all(|b| (0x20..0x7F).contains(&b)) {
            return Err(SmbiosError::String(text.clone()));
        }
    }
    let mut table = Table::default();
    bios(&mut table);
    system(&mut table, identity, uuid);
    board(&mut table, identity);
    chassis(&mut table);
    processor(&mut table, vcpus);
    physical_memory(&mut table, memory);
    table.add(32, BOOT_HANDLE, &[0; 7], &[]); // boot status: no errors
    table.add(127, END_HANDLE, &[], &[]);
    let mut bytes = entry_point(&table).to_vec();
    bytes.resize(TABLE_OFFSET, 0);
    bytes.extend(table.bytes);
    Ok(bytes)
}

const CHASSIS_HANDLE: u16 = 0x300;
const PROCESSOR_HANDLE: u16 = 0x400;
const MEMORY_ARRAY_HANDLE: u16 = 0x1000;
const BOOT_HANDLE: u16 = 0x2000;
const END_HANDLE: u16 = 0x7F00;

/// The structures so far.
#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
    count: u16,
    largest: usize,
}

impl Table {
    /// Add a structure: header, `fields` behind it, then the strings. String numbers count from 1.
    fn add(&mut self, kind: u8, handle: u16, fields: &[u8], strings: &[&str]) {
        let start = self.bytes.len();
        self.bytes.extend([kind, 4 + fields.len() as u8]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(fields);
        for string in strings {
            self.bytes.extend(string.as_bytes());
            self.bytes.push(0);
        }
        // The list ends with an empty string; with no strings at all that takes two zeros.
        self.bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0][..] });
        self.largest = self.largest.max(self.bytes.len() - start);
        self.count += 1;
    }
}

/// Type 0.
fn bios(table: &mut Table) {
    let mut f = vec![1, 2]; // vendor, version
    f.extend(0xE800u16.to_le_bytes()); // starting segment
    f.extend([3, 0]); // date, ROM size of 64 KiB
    f.extend((1u64 << 3).to_le_bytes()); // characteristics: not given
    f.extend([1, 1 << 4 | 1 << 2]); // ACPI; virtual machine, targeted content distribution
    f.extend([1, 0, 0xFF, 0xFF]); // release 1.0; no embedded controller
    table.add(0, 0, &f, &[VENDOR, BIOS_VERSION, BIOS_DATE]);
}

/// Type 1.
fn system(table: &mut Table, identity: &SmbiosIdentity, uuid: [u8; 16]) {
    let mut f = vec![1, 2, 0, 3]; // manufacturer, product, no version, serial number
    f.extend(uuid);
    f.extend([6, 0, 0]); // woken by the power switch; no SKU, no family
    table.add(1, 0x100, &f, &[VENDOR, &identity.product_name, &identity.uuid]);
}

/// Type 2.
fn board(table: &mut Table, identity: &SmbiosIdentity) {
    let mut f = vec![1, 0, 0, 0, 2, 1, 0]; // manufacturer; asset tag; hosting board; no location
    f.extend(CHASSIS_HANDLE.to_le_bytes());
    f.extend([0xA, 0]); // motherboard
    table.add(2, 0x200, &f, &[VENDOR, &identity.board_asset_tag]);
}

/// Type 3.
fn chassis(table: &mut Table) {
    let mut f = vec![1, 1, 0, 0, 1]; // manufacturer, type "other", no version, no serial number, asset tag
    f.extend([3, 3, 3, 2]); // boot, power, thermal: safe; security unknown
    f.extend([0; 4]);
    f.extend([0, 0, 0, 0, 0]); // height, cords, no contained elements, no SKU
    table.add(3, CHASSIS_HANDLE, &f, &[VENDOR]);
}

/// Type 4: one socket.
fn processor(table: &mut Table, vcpus: u32) {
    let count = vcpus.min(255) as u8;
    let mut f = vec![1, 3, 1, 2]; // socket, central processor, family "other", manufacturer
    f.extend([0; 8]); // id: CPUID says more
    f.extend([0, 0]); // no version, voltage unknown
    f.extend([0; 6]); // clock, maximum and current speed unknown
    f.extend([0x41, 1]); // populated and enabled; upgrade "other"
    f.extend([0xFF; 6]); // no cache handles
    f.extend([0, 0, 0]); // no serial number, asset tag, part number
    f.extend([count, count, count]); // cores, enabled cores, threads
    f.extend([4, 0]); // 64-bit capable
    f.extend([1, 0]); // family 2: "other"
    table.add(4, PROCESSOR_HANDLE, &f, &["CPU 0", VENDOR]);
}

/// Types 16, 17 and 19: an array with one module.
fn physical_memory(table: &mut Table, memory: u64) {
    let kib = memory >> 10;
    let mut f = vec![1, 3, 6]; // location "other", system memory, multi-bit error correction
    f.extend(u32::try_from(kib).unwrap_or(0x8000_0000).min(0x8000_0000).to_le_bytes());
    f.extend([0xFE, 0xFF, 1, 0]); // no error handle, one device
    f.extend(if kib >= 0x8000_0000 { memory } else { 0 }.to_le_bytes());
    table.add(16, MEMORY_ARRAY_HANDLE, &f, &[]);

    let mib = memory >> 20;
    let mut f = MEMORY_ARRAY_HANDLE.to_le_bytes().to_vec();
    f.extend([0xFE, 0xFF, 64, 0, 64, 0]); // no error handle, total and data width
    f.extend(if mib < 0x7FFF { mib as u16 } else { 0x7FFF }.to_le_bytes());
    f.extend([9, 0, 1, 0, 2]); // DIMM, no set, locator, no bank, type "unknown"
    f.extend([0x02, 0, 0, 0]); // detail "other"; speed unknown
    f.extend([2, 0, 0, 0, 0]); // manufacturer; no serial number, asset tag, part number, attributes
    f.extend(if mib < 0x7FFF { 0 } else { u32::try_from(mib).unwrap_or(u32::MAX) & 0x7FFF_FFFF }.to_le_bytes());
    f.extend([0, 0]); // configured speed unknown
    table.add(17, MEMORY_ARRAY_HANDLE + 0x100, &f, &["DIMM 0", VENDOR]);

    for (i, (start, size)) in layout::ram_ranges(memory).into_iter().enumerate() {
        let (first, last) = (start >> 10, ((start + size) >> 10) - 1);
        let narrow = u32::try_from(last).is_ok_and(|last| last != u32::MAX);
        let mut f = if narrow { first as u32 } else { u32::MAX }.to_le_bytes().to_vec();
        f.extend(if narrow { last as u32 } else { u32::MAX }.to_le_bytes());
        f.extend(MEMORY_ARRAY_HANDLE.to_le_bytes());
        f.push(1); // partition width
        f.extend(if narrow { 0 } else { start }.to_le_bytes());
        f.extend(if narrow { 0 } else { start + size - 1 }.to_le_bytes());
        table.add(19, MEMORY_ARRAY_HANDLE + 0x200 + i as u16, &f, &[]);
    }
}

/// The 2.1 entry point, with the intermediate one in its second half.
fn entry_point(table: &Table) -> [u8; 31] {
    let mut e = [0; 31];
    e[..4].copy_from_slice(b"_SM_");
    e[5] = 31;
    (e[6], e[7]) = VERSION;
    e[8..10].copy_from_slice(&(table.largest as u16).to_le_bytes());
    e[16..21].copy_from_slice(b"_DMI_");
    e[22..24].copy_from_slice(&(table.bytes.len() as u16).to_le_bytes());
    e[24..28].copy_from_slice(&((layout::SMBIOS as usize + TABLE_OFFSET) as u32).to_le_bytes());
    e[28..30].copy_from_slice(&table.count.to_le_bytes());
    e[30] = VERSION.0 << 4 | VERSION.1;
    e[21] = checksum(&e[16..]);
    e[4] = checksum(&e);
    e
}

/// The byte that makes the sum of all zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b))
}

/// The first three fields are little-endian since SMBIOS 2.6.
fn uuid_bytes(text: &str) -> Result<[u8; 16], SmbiosError> {
    let error = || SmbiosError::Uuid(text.into());
    let parts: Vec<&str> = text.split('-').collect();
    let shape: Vec<usize> = parts.iter().map(|p| p.len()).collect();
    if shape != [8, 4, 4, 4, 12] || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
        return Err(error());
    }
    let mut bytes = [0; 16];
    hex::decode_to_slice(parts.concat(), &mut bytes).map_err(|_| error())?;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Ok(bytes)
}

#[cfg(test)]
#[path = "smbios_tests.rs"]
mod tests;
