use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn runs_agree_with_a_set(ranges in prop::collection::vec((0u64..80_000, 0u64..5_000), 0..12), probes in prop::collection::vec((0u64..80_000, 1u64..40_000), 1..20)) {
        let len = 80_000;
        let map = Bitmap::new(len);
        let mut model = BTreeSet::new();
        for (from, n) in ranges {
            map.set(from, from + n);
            model.extend(from..(from + n).min(len));
        }
        prop_assert_eq!(map.count(), model.len() as u64);
        for (from, n) in probes {
            let limit = (from + n).min(len);
            let held = model.contains(&from);
            let end = (from..limit).find(|b| model.contains(b) != held).unwrap_or(limit);
            prop_assert_eq!(map.run(from, limit), (held, end));
            prop_assert_eq!(map.holds_all(from, limit), held && end == limit);
        }
    }
}

#[test]
fn dirty_pages_come_once_and_can_be_given_back() {
    let map = Bitmap::new(100 * PAGE_BITS);
    for page in [0, 1, 63, 64, 99] {
        map.set(page * PAGE_BITS + 5, page * PAGE_BITS + 6);
    }
    let mut buf = vec![0xff; 2 * PAGE_BYTES];
    let mut taken = Vec::new();
    let mut seen = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        next = map.take_dirty(from, &mut buf, &mut taken);
        for bytes in buf.chunks(PAGE_BYTES).take(taken.len()) {
            assert_eq!((bytes[0], bytes[1..].iter().all(|b| *b == 0)), (1 << 5, true));
        }
        seen.extend(taken.iter().copied());
    }
    assert_eq!(seen, [0, 1, 63, 64, 99]);
    assert_eq!(map.take_dirty(0, &mut buf, &mut taken), None);
    assert!(taken.is_empty());
    map.give_back(&[64]);
    map.set(5, 6); // already there: no change, nothing dirty
    map.take_dirty(0, &mut buf, &mut taken);
    assert_eq!(taken, [64]);
}

#[test]
fn bits_survive_a_round_through_bytes() {
    let map = Bitmap::new(3 * PAGE_BITS - 7);
    map.set(PAGE_BITS - 3, PAGE_BITS + 70);
    let mut buf = vec![0; 3 * PAGE_BYTES];
    let mut taken = Vec::new();
    map.take_dirty(0, &mut buf, &mut taken);
    let again = Bitmap::new(3 * PAGE_BITS - 7);
    for (bytes, index) in buf.chunks(PAGE_BYTES).zip(&taken) {
        again.load(*index, bytes);
    }
    assert_eq!(again.run(PAGE_BITS - 3, 2 * PAGE_BITS), (true, PAGE_BITS + 70));
    assert_eq!(again.count(), 73);
}

#[test]
fn bits_beyond_the_end_are_not_taken() {
    for len in [1, 63, 64, 65, PAGE_BITS - 1, PAGE_BITS, PAGE_BITS + 5] {
        let mut map = Bitmap::new(len);
        for page in 0..map.pages() {
            map.load(page, &[0xff; PAGE_BYTES]);
        }
        assert_eq!(map.count(), len);
        // What was beyond the end is not there when the end moves, either.
        map.grow(len + 100);
        assert_eq!(map.run(0, len + 100), (true, len));
    }
}
