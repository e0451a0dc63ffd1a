//! Import of qcow2 images: any bytes, or tables and clusters behind a sound header.
#![no_main]

#[path = "common.rs"]
mod common;

use common::Script;

const CLUSTER_BITS: u32 = 9;
const CLUSTER: usize = 1 << CLUSTER_BITS;

/// An entry of a table of either level: flags, and a cluster of the first 256.
fn entry(script: &mut Script<'_>) -> [u8; 8] {
    let [flags, cluster] = script.array();
    (u64::from(flags & 0xc0) << 56 | u64::from(flags & 0x31) | u64::from(cluster) << CLUSTER_BITS).to_be_bytes()
}

/// Header, reference counts (which nobody needs to read), a first and a second table, and the rest.
fn image(script: &mut Script<'_>) -> Vec<u8> {
    let mut image = vec![0; 4 * CLUSTER];
    let [kind, feature, size] = script.array();
    let version = 2 + u32::from(kind & 1);
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &version.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    // As many bytes as one second table maps for each step.
    put(24, &(u64::from(size & 63) << (2 * CLUSTER_BITS - 3)).to_be_bytes());
    put(36, &64u32.to_be_bytes());
    put(40, &(2 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(79, &[if kind & 2 == 0 { 0 } else { feature }]);
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    for index in 0..CLUSTER / 8 * 2 {
        put(2 * CLUSTER + 8 * index, &entry(script));
    }
    image.extend(script.0);
    image
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut script = Script(bytes);
    if script.u8() & 3 == 0 {
        amiable::storage::import::fuzz_qcow2(script.0);
    } else {
        amiable::storage::import::fuzz_qcow2(&image(&mut script));
    }
});
