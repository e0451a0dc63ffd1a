use proptest::prelude::*;

use super::*;

/// A header with one PT_LOAD and one PT_NOTE.
fn sample() -> Vec<u8> {
    let mut b = vec![0u8; 64 + 2 * 56];
    b[..6].copy_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1]);
    b[18] = 62;
    b[32] = 64;
    b[54] = 56;
    b[56] = 2;
    let put = |b: &mut Vec<u8>, at: usize, v: u64| b[at..at + 8].copy_from_slice(&v.to_le_bytes());
    b[64] = 1;
    put(&mut b, 64 + 8, 0x1000);
    put(&mut b, 64 + 24, 0x100_0000);
    put(&mut b, 64 + 32, 0x2000);
    put(&mut b, 64 + 40, 0x3000);
    b[120] = 4;
    put(&mut b, 120 + 8, 0x100);
    put(&mut b, 120 + 32, 0x40);
    b
}

fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend((name.len() as u32).to_le_bytes());
    b.extend((descriptor.len() as u32).to_le_bytes());
    b.extend(kind.to_le_bytes());
    b.extend(name);
    b.resize(b.len().next_multiple_of(4), 0);
    b.extend(descriptor);
    b.resize(b.len().next_multiple_of(4), 0);
    b
}

#[test]
fn segments_and_notes_are_found() {
    let headers = parse(&sample(), 0x4000).unwrap();
    let segment = Segment { offset: 0x1000, address: 0x100_0000, file_size: 0x2000, memory_size: 0x3000 };
    assert_eq!(headers, Headers { segments: vec![segment], notes: vec![(0x100, 0x40)] });
}

#[test]
fn a_segment_past_the_end_of_the_file_is_refused() {
    assert!(matches!(parse(&sample(), 0x2FFF), Err(ElfError::Damaged(_))));
}

#[test]
fn other_files_are_not_elf() {
    assert_eq!(parse(b"MZ", 2), Err(ElfError::NotElf));
    let mut arm = sample();
    arm[18] = 183;
    assert_eq!(parse(&arm, 0x4000), Err(ElfError::NotElf));
}

#[test]
fn the_pvh_note_is_found_behind_others() {
    let mut notes = note(b"GNU\0", 3, &[1; 20]);
    notes.extend(note(b"Xen\0", 6, b"linux\0"));
    assert_eq!(pvh_entry(&notes), None);
    notes.extend(note(b"Xen\0", 18, &0x100_0850u64.to_le_bytes()));
    assert_eq!(pvh_entry(&notes), Some(0x100_0850));
    assert_eq!(pvh_entry(&note(b"Xen\0", 18, &0x100_0850u32.to_le_bytes())), Some(0x100_0850));
    assert_eq!(pvh_entry(&note(b"Xen\0", 18, &(1u64 << 32).to_le_bytes())), None);
}

proptest! {
    #[test]
    fn damaged_headers_never_panic(changes in proptest::collection::vec((0usize..176, any::<u8>()), 0..12), size in any::<u64>()) {
        let mut bytes = sample();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Ok(headers) = parse(&bytes, size) {
            for s in headers.segments {
                prop_assert!(s.offset + s.file_size <= size && s.file_size <= s.memory_size);
            }
        }
    }

    #[test]
    fn any_notes_end(notes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = pvh_entry(&notes);
    }
}
