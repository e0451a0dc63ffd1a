use proptest::prelude::*;

use super::*;
use crate::vmm::nvme::spec::{COMMAND_SIZE, MAX_TRANSFER};

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20), (GuestAddress(1 << 20), 1 << 20)]).unwrap()
}

fn command(prp1: u64, prp2: u64) -> Command {
    let mut bytes = [0; COMMAND_SIZE];
    bytes[24..32].copy_from_slice(&prp1.to_le_bytes());
    bytes[32..40].copy_from_slice(&prp2.to_le_bytes());
    Command::from_bytes(&bytes)
}

/// Lengths of the slices.
fn walk(memory: &GuestMemory, prp1: u64, prp2: u64, length: u64) -> Result<Vec<usize>, Status> {
    with_slices(memory, &command(prp1, prp2), length, |slices| Ok(slices.iter().map(|s| s.len()).collect()))
}

fn list(memory: &GuestMemory, at: u64, entries: &[u64]) {
    for (i, entry) in entries.iter().enumerate() {
        memory.write_obj(entry.to_le(), GuestAddress(at + 8 * i as u64)).unwrap();
    }
}

#[test]
fn one_and_two_pages() {
    let memory = memory();
    assert_eq!(walk(&memory, 0x1000, 0, 512), Ok(vec![512]));
    assert_eq!(walk(&memory, 0x1e00, 0, 512), Ok(vec![512]));
    // Neighbours are one slice, others are two.
    assert_eq!(walk(&memory, 0x1e00, 0x2000, 1024), Ok(vec![1024]));
    assert_eq!(walk(&memory, 0x1e00, 0x3000, 1024), Ok(vec![512, 512]));
    assert_eq!(walk(&memory, 0x1000, 0x2000, 0x2000), Ok(vec![0x2000]));
    assert_eq!(walk(&memory, 0, 0, 512), Ok(vec![512]));
}

#[test]
fn offsets_that_the_specification_forbids() {
    let memory = memory();
    assert_eq!(walk(&memory, 0x1002, 0, 512), Err(Status::PRP_OFFSET_INVALID));
    assert_eq!(walk(&memory, 0x1e00, 0x2200, 1024), Err(Status::PRP_OFFSET_INVALID));
    assert_eq!(walk(&memory, 0x1000, 0x5004, 0x3000), Err(Status::PRP_OFFSET_INVALID));
    list(&memory, 0x5000, &[0x2000, 0x3004]);
    assert_eq!(walk(&memory, 0x1000, 0x5000, 0x3000), Err(Status::PRP_OFFSET_INVALID));
}

#[test]
fn memory_that_is_not_there() {
    let memory = memory();
    assert_eq!(walk(&memory, 2 << 20, 0, 512), Err(Status::DATA_TRANSFER_ERROR));
    assert_eq!(walk(&memory, !0xfff, 0, 4096), Err(Status::DATA_TRANSFER_ERROR));
    assert_eq!(walk(&memory, !0xfff, 0, 8192), Err(Status::DATA_TRANSFER_ERROR));
    assert_eq!(walk(&memory, 0x1000, 2 << 20, 0x3000), Err(Status::DATA_TRANSFER_ERROR));
    list(&memory, 0x5000, &[0x2000, 2 << 20]);
    assert_eq!(walk(&memory, 0x1000, 0x5000, 0x3000), Err(Status::DATA_TRANSFER_ERROR));
}

#[test]
fn slices_end_at_regions() {
    let memory = memory();
    list(&memory, 0x5000, &[0xf_f000, 0x10_0000, 0x10_1000]);
    assert_eq!(walk(&memory, 0xf_e000, 0x5000, 0x4000), Ok(vec![0x2000, 0x2000]));
}

#[test]
fn lists_chain() {
    let memory = memory();
    // A list with room for two entries: one page and the next list.
    list(&memory, 0x5ff0, &[0x2_0000, 0x6000]);
    list(&memory, 0x6000, &[0x2_2000, 0x2_3000]);
    assert_eq!(walk(&memory, 0x1_0000, 0x5ff0, 0x4000), Ok(vec![0x1000, 0x1000, 0x2000]));
    // Exactly full: the last entry is data.
    list(&memory, 0x5ff0, &[0x2_0000, 0x2_4000]);
    assert_eq!(walk(&memory, 0x1_0000, 0x5ff0, 0x3000), Ok(vec![0x1000, 0x1000, 0x1000]));
    // A chain that goes on inside a page.
    list(&memory, 0x5ff0, &[0x2_0000, 0x6008]);
    assert_eq!(walk(&memory, 0x1_0000, 0x5ff0, 0x4000), Err(Status::PRP_OFFSET_INVALID));
}

#[test]
fn a_list_that_points_to_itself_ends() {
    let memory = memory();
    list(&memory, 0x6000, &vec![0x6000; 512]);
    let result = walk(&memory, 0x1_0000, 0x6000, MAX_TRANSFER);
    assert!(result.is_ok_and(|lengths| lengths.iter().sum::<usize>() as u64 == MAX_TRANSFER));
}

#[test]
fn commands_do_not_allocate() {
    let memory = memory();
    list(&memory, 0x5000, &(0..200).map(|i| 0x1_0000 + i * 0x2000 % 0x8_0000).collect::<Vec<_>>());
    let place =
        || with_slices(&memory, &command(0x1000, 0x5000), 200 * 4096, |slices| Ok(slices.as_ptr() as usize)).unwrap();
    assert_eq!(place(), place());
}

#[test]
fn bytes_move_in_order() {
    let memory = memory();
    let data: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    let command = command(0x1800, 0x9000);
    write(&memory, &command, &data).unwrap();
    let mut back = vec![0; 3000];
    read(&memory, &command, &mut back).unwrap();
    assert_eq!(back, data);
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x9000)).unwrap(), data[0x800]);
}

proptest! {
    #[test]
    fn any_walk_ends_and_covers_the_length(
        prp1: u64, prp2: u64, small1 in 0u64..0x20_0000, small2 in 0u64..0x20_0000,
        near in any::<bool>(), blocks in 1u64..=2048, entries in prop::collection::vec(0u64..0x20_0000, 512),
    ) {
        let memory = memory();
        list(&memory, 0x6000, &entries);
        let (prp1, prp2) = if near { (small1 & !3, small2 & !7) } else { (prp1, prp2) };
        if let Ok(lengths) = walk(&memory, prp1, prp2, blocks * 512) {
            prop_assert_eq!(lengths.iter().sum::<usize>() as u64, blocks * 512);
        }
    }
}
