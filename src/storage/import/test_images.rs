//! Images of all formats, made by hand for the tests.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

const CLUSTER: usize = 1 << 16;

pub fn be(n: u64, len: usize) -> Vec<u8> {
    n.to_be_bytes()[8 - len..].to_vec()
}

pub fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A qcow2 of version 3, clusters plain or compressed by turns.
pub fn qcow2(disk: &[u8]) -> Vec<u8> {
    let mut image = Vec::new();
    put(&mut image, 0, b"QFI\xfb");
    put(&mut image, 4, &be(3, 4));
    put(&mut image, 20, &be(16, 4));
    put(&mut image, 24, &be(disk.len() as u64, 8));
    put(&mut image, 36, &be(1, 4)); // L1 entries
    put(&mut image, 40, &be(CLUSTER as u64, 8)); // L1 table
    put(&mut image, 48, &be(3 * CLUSTER as u64, 8)); // refcount table
    put(&mut image, 56, &be(1, 4));
    put(&mut image, 96, &be(4, 4)); // 16-bit refcounts
    put(&mut image, 100, &be(104, 4)); // header length
    put(&mut image, CLUSTER, &be((2 * CLUSTER as u64) | (1 << 63), 8));
    put(&mut image, 4 * CLUSTER, &[]);
    for (i, cluster) in disk.chunks(CLUSTER).enumerate() {
        if cluster.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut cluster = cluster.to_vec();
        cluster.resize(CLUSTER, 0);
        let at = image.len().next_multiple_of(CLUSTER);
        let entry = if i % 2 == 0 {
            put(&mut image, at, &cluster);
            at as u64 | 1 << 63
        } else {
            let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
            deflate.write_all(&cluster).unwrap();
            let data = deflate.finish().unwrap();
            put(&mut image, at, &data);
            let sectors = (data.len() as u64).div_ceil(512);
            at as u64 | (sectors - 1) << 54 | 1 << 62
        };
        put(&mut image, 2 * CLUSTER + i * 8, &be(entry, 8));
    }
    let end = image.len().next_multiple_of(CLUSTER);
    image.resize(end, 0);
    image
}

/// A VMDK with grains of 64 KiB; stream-optimized as AWS exports them, or sparse.
pub fn vmdk(disk: &[u8], stream: bool) -> Vec<u8> {
    let kind = if stream { "streamOptimized" } else { "monolithicSparse" };
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\
         RW 2051 SPARSE \"disk.vmdk\"\n"
    );
    let header = |directory: u64| {
        let mut h = vec![0; 512];
        put(&mut h, 0, b"KDMV");
        put(&mut h, 4, &3u32.to_le_bytes());
        put(&mut h, 8, &(if stream { 0x30001u32 } else { 5 }).to_le_bytes());
        put(&mut h, 12, &(disk.len() as u64 / 512).to_le_bytes());
        put(&mut h, 20, &128u64.to_le_bytes());
        put(&mut h, 28, &1u64.to_le_bytes());
        put(&mut h, 36, &20u64.to_le_bytes());
        put(&mut h, 44, &512u32.to_le_bytes());
        put(&mut h, 56, &directory.to_le_bytes());
        put(&mut h, 77, &u16::from(stream).to_le_bytes());
        h
    };
    let mut image = header(0);
    put(&mut image, 512, descriptor.as_bytes());
    image.resize(32 * 512, 0);
    let mut table = vec![0; 2048];
    for (i, grain) in disk.chunks(65536).enumerate() {
        if grain.iter().all(|byte| *byte == 0) {
            if !stream {
                put(&mut table, i * 4, &1u32.to_le_bytes()); // a zeroed grain
            }
            continue;
        }
        let at = image.len().next_multiple_of(512);
        put(&mut table, i * 4, &(at as u32 / 512).to_le_bytes());
        let mut grain = grain.to_vec();
        grain.resize(65536, 0);
        if stream {
            let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
            zlib.write_all(&grain).unwrap();
            let data = zlib.finish().unwrap();
            put(&mut image, at, &(i as u64 * 128).to_le_bytes());
            put(&mut image, at + 8, &(data.len() as u32).to_le_bytes());
            put(&mut image, at + 12, &data);
        } else {
            put(&mut image, at, &grain);
        }
    }
    let at = image.len().next_multiple_of(512);
    put(&mut image, at, &table);
    let directory = image.len();
    put(&mut image, directory, &(at as u32 / 512).to_le_bytes());
    let end = directory + 512;
    image.resize(end, 0);
    if stream {
        image.splice(..512, header(u64::MAX));
        image.resize(end + 512, 0); // footer marker
        image.extend(header(directory as u64 / 512));
        image.resize(end + 1536, 0); // end of stream
    } else {
        image.splice(..512, header(directory as u64 / 512));
    }
    image
}

pub fn vhd(disk: &[u8], kind: u8) -> Vec<u8> {
    let mut image = disk.to_vec();
    image.extend(b"conectix");
    image.resize(disk.len() + 512, 0);
    image[disk.len() + 63] = kind;
    image
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(bytes).unwrap();
    xz.finish().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}
