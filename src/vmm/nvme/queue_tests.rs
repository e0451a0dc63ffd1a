use super::*;
use crate::vmm::nvme::spec::Status;

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
}

fn last_dword(memory: &GuestMemory, index: u64) -> u32 {
    memory.read_obj(GuestAddress(0x1000 + index * 16 + 12)).unwrap()
}

#[test]
fn rings_are_whole_pages_of_memory() {
    let memory = memory();
    assert!(is_valid_ring(&memory, 0x1000, 64, 64));
    assert!(!is_valid_ring(&memory, 0x1040, 64, 64));
    assert!(is_valid_ring(&memory, 0xf000, 64, 64));
    assert!(!is_valid_ring(&memory, 0xf000, 65, 64));
    assert!(!is_valid_ring(&memory, !0xfff, 1024, 64));
}

#[test]
fn submission_queue_wraps() {
    let memory = memory();
    for i in 0..4u32 {
        memory.write_obj(i << 16, GuestAddress(0x2000 + u64::from(i) * 64)).unwrap();
    }
    let mut queue = SubmissionQueue::new(0x2000, 4, 1);
    assert!(!queue.set_tail(4));
    assert!(queue.set_tail(3));
    for i in 0..3 {
        assert_eq!(queue.take(&memory).unwrap().cid(), i);
    }
    assert!(queue.is_empty());
    assert!(queue.set_tail(1));
    assert_eq!(queue.take(&memory).unwrap().cid(), 3);
    assert_eq!(queue.take(&memory).unwrap().cid(), 0);
    assert_eq!((queue.head(), queue.is_empty()), (1, true));
}

#[test]
fn a_queue_in_vanished_memory_is_an_error() {
    let mut queue = SubmissionQueue::new(0x10_0000, 4, 1);
    queue.set_tail(1);
    assert_eq!(queue.take(&memory()).err(), Some(NoMemory));
}

#[test]
fn completions_carry_phase_and_fill_up() {
    let memory = memory();
    let mut queue = CompletionQueue::new(0x1000, 3, Some(1));
    let answer: Answer = Status::LBA_OUT_OF_RANGE.into();
    assert_eq!(queue.reserve(&memory, None), Ok(true));
    assert_eq!(queue.reserve(&memory, None), Ok(true));
    // Three entries hold two: full and empty differ.
    assert_eq!(queue.reserve(&memory, None), Ok(false));
    assert!(queue.starved);
    queue.post(&memory, None, answer, 0x1234, 5, 7).unwrap();
    assert_eq!(last_dword(&memory, 0), 0x8101_1234);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x1008)).unwrap(), 5 << 16 | 7);
    queue.post(&memory, None, answer, 2, 5, 7).unwrap();
    assert!(!queue.set_head(3));
    assert!(queue.set_head(2));
    for _ in 0..2 {
        assert_eq!(queue.reserve(&memory, None), Ok(true));
        queue.post(&memory, None, answer, 3, 5, 7).unwrap();
    }
    // Index 2 in the first round, index 0 in the second.
    assert_eq!((last_dword(&memory, 2) >> 16 & 1, last_dword(&memory, 0) >> 16 & 1), (1, 0));
}

#[test]
fn heads_only_move_over_what_was_posted() {
    let memory = memory();
    let mut queue = CompletionQueue::new(0x1000, 4, None);
    assert!(queue.set_head(0));
    assert!(!queue.set_head(1));
    assert!(!queue.set_head(u32::MAX));
    queue.reserve(&memory, None).unwrap();
    queue.post(&memory, None, Status::SUCCESS.into(), 0, 1, 0).unwrap();
    assert!(!queue.set_head(2));
    assert!(queue.set_head(1));
    assert!(!queue.set_head(0));
}

#[test]
fn a_full_queue_looks_at_the_shadow_and_asks_to_be_rung() {
    let memory = memory();
    let shadow = Shadow::default();
    assert!(shadow.tail(1).is_none());
    shadow.set(0x3000, 0x4000);
    let head = shadow.head(1);
    let (value, event) = (GuestAddress(0x300c), GuestAddress(0x400c));
    let mut queue = CompletionQueue::new(0x1000, 2, None);
    assert_eq!(queue.reserve(&memory, head), Ok(true));
    queue.post(&memory, head, Status::SUCCESS.into(), 0, 1, 0).unwrap();
    // The guest's head comes up to the event index and does not pass it: no register write.
    assert_eq!(memory.read_obj::<u32>(event).unwrap(), 1);
    assert_eq!(queue.reserve(&memory, head), Ok(false));
    assert_eq!(memory.read_obj::<u32>(event).unwrap(), 0);
    memory.write_obj(1u32, value).unwrap();
    assert_eq!(queue.reserve(&memory, head), Ok(true));
    queue.post(&memory, head, Status::SUCCESS.into(), 0, 1, 0).unwrap();
    // Garbage moves nothing.
    memory.write_obj(77u32, value).unwrap();
    assert_eq!(queue.reserve(&memory, head), Ok(false));
}
