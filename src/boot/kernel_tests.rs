use std::io::Write;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::boot::testing::{bzimage, elf, kernel};

fn with_size(mut stream: Vec<u8>) -> Vec<u8> {
    stream.extend((elf().len() as u32).to_le_bytes());
    stream
}

fn xz(x86: bool) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(6);
    options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
    if x86 {
        options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
    }
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(&elf()).unwrap();
    with_size(writer.finish().unwrap())
}

fn lzma() -> Vec<u8> {
    let options = lzma_rust2::LzmaOptions::with_preset(6);
    let mut writer = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
    writer.write_all(&elf()).unwrap();
    with_size(writer.finish().unwrap())
}

/// The legacy frame format as `lz4 -l` writes it: magic, then blocks with their compressed sizes.
fn lz4() -> Vec<u8> {
    let block = lz4_flex::block::compress(&elf());
    let mut stream = vec![0x02, 0x21, 0x4c, 0x18];
    stream.extend((block.len() as u32).to_le_bytes());
    stream.extend(block);
    with_size(stream)
}

fn zstd() -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    with_size(ruzstd::encoding::compress_to_vec(elf().as_slice(), level))
}

#[test]
fn every_compression_unpacks() {
    let payloads = [
        ("xz", xz(false)),
        ("xz with x86 filter", xz(true)),
        ("lzma", lzma()),
        ("lz4", lz4()),
        ("zstd", zstd()),
        ("none", elf()),
    ];
    for (name, payload) in payloads {
        let out = unpack(&bzimage("6.1.0", &payload)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert!(out == elf(), "{name}");
    }
    assert!(unpack(&kernel("6.1.0")).unwrap() == elf(), "gzip");
}

#[test]
fn the_header_is_read() {
    let image = kernel("6.1.0-50-cloud-amd64");
    let header = parse_header(&image[..4096.min(image.len())], image.len() as u64).unwrap();
    assert_eq!(header.release(), "6.1.0-50-cloud-amd64");
    assert_eq!((header.protocol, header.cmdline_size), (0x20f, 2047));
    assert_eq!(header.payload.end, image.len());
}

#[test]
fn foreign_files_are_named() {
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let text = |bytes: &[u8]| parse_header(bytes, bytes.len() as u64).unwrap_err().to_string();
    assert!(text(&arm).contains("arm64"));
    assert!(text(&[0x1f, 0x8b, 8, 0]).contains("gzip"));
    assert!(text(b"short").contains("cut short"));
    let mut image = kernel("6.1.0");
    image.truncate(2600);
    assert!(text(&image).contains("cut short"));
    let mut image = kernel("6.1.0");
    image[0x236] = 0;
    assert!(text(&image).contains("32-bit"));
    image[0x206] = 0x0b;
    assert!(text(&image).contains("2.11"));
}

#[test]
fn elf_facts() {
    let facts = elf::parse(&elf()).unwrap();
    assert_eq!(facts.pvh_entry, 0x100_0200);
    let mut other = elf();
    other[0x110c] = b'Y';
    assert_eq!(elf::parse(&other), Err(ElfError::NoPvh));
    let mut other = elf();
    other[64 + 32 + 7] = 0xff;
    assert_eq!(elf::parse(&other), Err(ElfError::Outside("segments")));
}

#[test]
fn huge_windows_are_refused() {
    let mut stream = xz(false);
    // The window's size is the first property byte of the only filter: block header at 12, flags, id, size.
    assert_eq!(&stream[14..16], [0x21, 1]);
    stream[16] = 39;
    assert!(matches!(unpack(&bzimage("x", &stream)), Err(KernelError::Unpack(UnpackError::Bad { format: "xz", .. }))));
    let mut stream = lzma();
    stream[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    stream[1..3].copy_from_slice(&[0, 0]);
    assert!(unpack(&bzimage("x", &stream)).is_err());
}

/// A real kernel, where the machine that runs the tests has one that may be read.
#[test]
fn installed_kernels_unpack() {
    let mut candidates: Vec<_> = std::fs::read_dir("/boot").into_iter().flatten().flatten().map(|e| e.path()).collect();
    candidates.extend(std::env::var_os("AMIABLE_TEST_KERNEL").map(Into::into));
    candidates.retain(|p: &std::path::PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().contains("vmlinuz")));
    let Some(image) = candidates.iter().find_map(|p: &std::path::PathBuf| std::fs::read(Path::new(p)).ok()) else {
        eprintln!("SKIPPED: no kernel in /boot or AMIABLE_TEST_KERNEL");
        return;
    };
    let elf = unpack(&image).unwrap();
    let facts = elf::parse(&elf).unwrap();
    assert!(elf.len() > image.len() && facts.segments.len() >= 2, "{facts:?}");
}

proptest! {
    #[test]
    fn damaged_kernels_end_in_an_answer(which in 0..6usize, hits in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..12)) {
        let payload = match which { 0 => xz(true), 1 => lzma(), 2 => lz4(), 3 => zstd(), 4 => elf(), _ => kernel("x").split_off(5 * 512 + 0x40) };
        let mut image = bzimage("6.1.0", &payload);
        for (at, with) in hits {
            let at = usize::from(at) % image.len();
            image[at] = with;
        }
        fuzz(&image);
        fuzz(&image[5 * 512 + 0x40..]);
    }

    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        fuzz(&bytes);
    }
}
