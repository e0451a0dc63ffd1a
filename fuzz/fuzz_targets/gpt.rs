//! Partition tables: any bytes as a disk, or with what a table is not looked at without.
#![no_main]

#[path = "common.rs"]
mod common;

use common::Script;

/// CRC-32 as in IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// A disk with a GUID partition table whose checksums are right.
fn gpt(script: &mut Script<'_>) -> Vec<u8> {
    let mut disk = vec![0; 40 * 512];
    disk[446..510].copy_from_slice(&script.array::<64>());
    disk[450] = 0xee;
    let (count, size, first) = (script.u8(), script.u8(), script.u8());
    let header = &mut disk[512..1024];
    header[20..92].copy_from_slice(&script.array::<72>());
    header[..8].copy_from_slice(b"EFI PART");
    header[12] = 92;
    header[72..80].copy_from_slice(&(2 + u64::from(first & 7)).to_le_bytes());
    header[80..84].copy_from_slice(&u32::from(count & 63).to_le_bytes());
    header[84..88].copy_from_slice(&(128u32 << (size & 1)).to_le_bytes());
    let entries = script.bytes(32 * 512);
    disk[1024..1024 + entries.len()].copy_from_slice(entries);
    let (start, length) = (1024 + usize::from(first & 7) * 512, usize::from(count & 63) * (128 << (size & 1)));
    if let Some(entries) = disk.get(start..start + length) {
        let sum = crc32(entries);
        disk[512 + 88..512 + 92].copy_from_slice(&sum.to_le_bytes());
    }
    disk[512 + 16..512 + 20].fill(0);
    let sum = crc32(&disk[512..512 + 92]);
    disk[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
    disk
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    // An MBR alone, with extended boot records: each has the signature.
    let (mut disk, signed) = match script.u8() & 3 {
        0 => (script.0.to_vec(), 0),
        1 => (gpt(&mut script), 1),
        _ => (script.0.to_vec(), 16),
    };
    if signed > 0 {
        disk.resize(disk.len().next_multiple_of(512).max(1024), 0);
    }
    for sector in disk.chunks_mut(512).take(signed) {
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
    }
    amiable::boot::partitions::fuzz(&disk);
});
