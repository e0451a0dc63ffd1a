use std::os::unix::fs::FileExt;

use vm_memory::Bytes;

use super::*;
use crate::vmm::memory::allocate;

const MIB: u64 = 1 << 20;

#[test]
fn pieces_meet_at_huge_pages() {
    let mut pieces = Vec::new();
    split(3 * MIB, 100, 4 * MIB, &mut pieces);
    let expected = [(3 * MIB, 100, MIB), (4 * MIB, 100 + MIB, 2 * MIB), (6 * MIB, 100 + 3 * MIB, MIB)];
    assert_eq!(pieces.iter().map(|p| (p.address, p.offset, p.size)).collect::<Vec<_>>(), expected);
}

/// Large enough for threads, with a hole in the middle, and bytes that tell where they come from.
#[test]
fn data_arrives_and_holes_stay_untouched() {
    let (memory, file) = (allocate(64 * MIB).unwrap(), tempfile::tempfile().unwrap());
    let data: Vec<u8> = (0..9 * MIB).map(|i| (i / 4096 % 251) as u8 + 1).collect();
    file.write_all_at(&data, 4096).unwrap();
    file.write_all_at(&data, 16 * MIB).unwrap();
    let segment = Segment { offset: 4096, address: 16 * MIB + 4096, file_size: 25 * MIB - 4096, memory_size: 30 * MIB };
    let copying = begin(&memory, &Arc::new(file), &[segment]);
    while copying.help().unwrap() {}
    assert!(!copying.help().unwrap());
    copying.finish().unwrap();
    let mut seen = vec![0; data.len()];
    for start in [16 * MIB + 4096, 32 * MIB] {
        memory.read_slice(&mut seen, GuestAddress(start)).unwrap();
        assert!(seen == data);
    }
    memory.read_slice(&mut seen[..4096], GuestAddress(28 * MIB)).unwrap();
    assert_eq!(seen[..4096], [0; 4096]);
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    let (memory, file) = (allocate(64 * MIB).unwrap(), tempfile::tempfile().unwrap());
    file.write_all_at(&[1; 5000], 0).unwrap();
    let piece = Piece { address: 16 * MIB, offset: 4096, size: 4096 };
    assert_eq!(copy(&memory, &file, piece).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_thread_s_error_is_the_copy_s() {
    let (memory, file) = (allocate(64 * MIB).unwrap(), tempfile::tempfile().unwrap());
    file.write_all_at(&vec![1; 8 << 20], 0).unwrap();
    let segment = Segment { offset: 0, address: 16 * MIB, file_size: 8 * MIB, memory_size: 8 * MIB };
    let mut copying = begin(&memory, &Arc::new(file), &[segment]);
    assert!(!copying.helpers.is_empty());
    copying.helpers.push(std::thread::spawn(|| Err(io::ErrorKind::UnexpectedEof.into())));
    assert_eq!(copying.finish().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
