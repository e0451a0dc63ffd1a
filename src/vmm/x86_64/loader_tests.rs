use std::io::Write;
use std::sync::Arc;

use super::*;
use crate::vmm::memory::{allocate, memory_map};

const MEMORY: u64 = 64 << 20;

/// An ELF kernel with a PVH note, one page-congruent segment whose ends are ragged, and one that is not congruent.
fn kernel() -> Arc<File> {
    let mut b = vec![0u8; 0x6000];
    b[..6].copy_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1]);
    (b[18], b[32], b[54], b[56]) = (62, 64, 56, 3);
    let mut header = |index: usize, kind: u8, [offset, address, in_file, in_memory]: [u64; 4]| {
        let at = 64 + index * 56;
        b[at] = kind;
        for (field, value) in [(8, offset), (24, address), (32, in_file), (40, in_memory)] {
            b[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
        }
    };
    header(0, 1, [0x1F00, 0x100_0F00, 0x2180, 0x4000]);
    header(1, 1, [0x5001, 0x200_0000, 0x10, 0x10]);
    header(2, 4, [0x800, 0, 20, 0]);
    b[0x800..0x814].copy_from_slice(b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x50\x08\x00\x01");
    b[0x1F00..0x4080].fill(0xAA);
    b[0x4080..0x5000].fill(0xEE);
    b[0x5001..0x5011].fill(0xBB);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&b).unwrap();
    Arc::new(file)
}

fn bytes(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    memory.read_slice(&mut data, GuestAddress(address)).unwrap();
    data
}

#[test]
fn segments_are_in_place_and_the_rest_is_zero() {
    let memory = allocate(MEMORY).unwrap();
    let entry = load(&memory, &Kernel::Elf(kernel()), None, "a=b", &memory_map(MEMORY), 0xE_0000, None).unwrap();
    assert_eq!(entry, Entry::Pvh { address: 0x100_0850 });
    assert_eq!(bytes(&memory, 0x100_0EFF, 2), [0, 0xAA]);
    assert_eq!(bytes(&memory, 0x100_307F, 2), [0xAA, 0], "what follows the segment in the file stays out");
    assert_eq!(bytes(&memory, 0x100_3080, 0x80), [0; 0x80]);
    assert_eq!(bytes(&memory, 0x1FF_FFFF, 0x12)[1..], [&[0xBB; 16][..], &[0]].concat());
    assert_eq!(bytes(&memory, layout::CMDLINE, 4), b"a=b\0");
    assert_eq!(bytes(&memory, layout::PVH_START_INFO, 4), 0x336E_C578u32.to_le_bytes());
}

#[test]
fn the_initrd_ends_at_the_end_of_low_ram() {
    for from_file in [false, true] {
        let memory = allocate(MEMORY).unwrap();
        let content = vec![0x5A; 5000];
        let initrd = if from_file {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            Initrd::File(Arc::new(file))
        } else {
            Initrd::Bytes(Arc::new(content.clone()))
        };
        load(&memory, &Kernel::Elf(kernel()), Some(&initrd), "", &memory_map(MEMORY), 0, None).unwrap();
        let module = bytes(&memory, layout::PVH_MODLIST, 16);
        assert_eq!(module, [(MEMORY - 8192).to_le_bytes(), 5000u64.to_le_bytes()].concat());
        assert_eq!(bytes(&memory, MEMORY - 8192, 5000), content);
        assert_eq!(bytes(&memory, MEMORY - 8192 + 5000, 100), [0; 100]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let map = memory_map(32 << 20);
    let load = |initrd: Option<&Initrd>, cmdline: &str| {
        load(&allocate(32 << 20).unwrap(), &Kernel::Elf(kernel()), initrd, cmdline, &map, 0, None)
    };
    // The kernel ends just above 32 MiB.
    assert!(matches!(load(None, ""), Err(LoadError::KernelDoesNotFit(..))));
    let map = memory_map(MEMORY);
    let load = |initrd: Option<&Initrd>, cmdline: &str| {
        super::load(&allocate(MEMORY).unwrap(), &Kernel::Elf(kernel()), initrd, cmdline, &map, 0, None)
    };
    let large = Initrd::Bytes(Arc::new(vec![0; 33 << 20]));
    assert!(matches!(load(Some(&large), ""), Err(LoadError::InitrdDoesNotFit(_))));
    assert!(matches!(load(None, &"x".repeat(2048)), Err(LoadError::CmdlineTooLong(2048, 2047))));
    assert!(load(None, &"x".repeat(2047)).is_ok());
    assert!(matches!(load(None, "a\0b"), Err(LoadError::CmdlineNul)));
}

#[test]
fn an_elf_file_without_a_pvh_entry_is_refused() {
    let file = kernel();
    file.write_all_at(b"Not\0", 0x80C).unwrap();
    let result = load(&allocate(MEMORY).unwrap(), &Kernel::Elf(file), None, "", &memory_map(MEMORY), 0, None);
    assert!(matches!(result, Err(LoadError::NoPvhEntry)));
}

#[test]
fn what_was_begun_is_gone_on_with() {
    let (memory, file, map) = (allocate(MEMORY).unwrap(), kernel(), memory_map(MEMORY));
    let begun = begin(&memory, &file, &map).unwrap();
    let again = Kernel::Elf(Arc::new(file.try_clone().unwrap()));
    assert!(begun.is_of(&again));
    assert!(!begun.is_of(&Kernel::Elf(kernel())), "another file with the same content");
    assert!(!begun.is_of(&Kernel::BzImage(Arc::default())));
    let entry = load(&memory, &again, None, "", &map, 0, Some(begun)).unwrap();
    assert_eq!(entry, Entry::Pvh { address: 0x100_0850 });
    assert_eq!(bytes(&memory, 0x100_0EFF, 2), [0, 0xAA]);
}
