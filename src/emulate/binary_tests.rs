use super::*;

fn elf(kinds: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&(kinds.len() as u16).to_le_bytes());
    for kind in kinds {
        let mut header = vec![0; 56];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..16].copy_from_slice(&256u64.to_le_bytes());
        header[32..40].copy_from_slice(&16u64.to_le_bytes());
        bytes.extend(header);
    }
    bytes.resize(272, 1);
    bytes.extend([2; 100]);
    bytes
}

fn write(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn what_lies_behind_the_segments_is_left_out() {
    let read = read_static(write(&elf(&[1])).path()).unwrap();
    assert_eq!(read.len(), 272);
}

#[test]
fn a_dynamic_executable_is_refused_with_the_command_to_build() {
    let text = read_static(write(&elf(&[1, 3])).path()).unwrap_err().to_string();
    assert!(text.contains("cargo build --release --target x86_64-unknown-linux-musl"), "{text}");
}

#[test]
fn other_files_are_not_executables() {
    for bytes in [&b""[..], b"#!/bin/sh\n", &elf(&[]), &elf(&[1])[..100]] {
        assert!(matches!(read_static(write(bytes).path()), Err(Error::NotElf(_))));
    }
}

proptest::proptest! {
    #[test]
    fn broken_headers_never_panic(at in 0usize..200, byte in 0u8..) {
        let mut bytes = elf(&[1, 1]);
        bytes[at] = byte;
        if let Some(elf) = inspect(&bytes) {
            proptest::prop_assert!(elf.loaded_end <= bytes.len());
        }
    }
}
