//! Import of VMDK images: any bytes, or tables and grains behind a sound header.
#![no_main]

#[path = "common.rs"]
mod common;

use common::Script;

const SECTOR: usize = 512;

/// Header, grain directory, a grain table, descriptor and the rest.
fn image(script: &mut Script<'_>) -> Vec<u8> {
    let mut image = vec![0; 6 * SECTOR];
    let [kind, capacity, grain] = script.array();
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let compressed = kind & 1 != 0;
    put(0, b"KDMV");
    put(4, &(1 + u32::from(kind >> 1 & 1)).to_le_bytes());
    put(8, &(if compressed { 0x3_0001u32 } else { 1 | u32::from(kind & 4) }).to_le_bytes());
    put(12, &(u64::from(capacity) << 4).to_le_bytes());
    put(20, &(8u64 << (grain & 7)).to_le_bytes());
    put(28, &(if kind & 8 == 0 { 0 } else { 6u64 }).to_le_bytes());
    put(36, &1u64.to_le_bytes());
    put(44, &512u32.to_le_bytes());
    put(56, &1u64.to_le_bytes());
    put(77, &[u8::from(compressed)]);
    // Sectors of tables, then of grains.
    for at in (SECTOR..SECTOR + 16).step_by(4).chain((2 * SECTOR..2 * SECTOR + 512).step_by(4)) {
        put(at, &[script.u8()]);
    }
    image.extend(script.0);
    image.resize(image.len().next_multiple_of(SECTOR), 0);
    image
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    if script.u8() & 3 == 0 {
        amiable::storage::import::fuzz_vmdk(script.0);
    } else {
        amiable::storage::import::fuzz_vmdk(&image(&mut script));
    }
});
