use super::*;
use crate::net::wire::UDP;

const TO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

fn piece(payload: &[u8], offset: usize, more_fragments: bool, ident: u16) -> Ipv4<'_> {
    let source = Ipv4Addr::new(10, 0, 0, 5);
    Ipv4 { source, destination: TO, protocol: UDP, ident, offset, more_fragments, payload, packet: payload }
}

#[test]
fn pieces_in_any_order_become_whole() {
    let data: Vec<u8> = (0..100).collect();
    let pieces = [(0, 40, true), (40, 80, true), (80, 100, false)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut fragments = Fragments::default();
        let now = Instant::now();
        let mut whole = None;
        for (count, i) in order.into_iter().enumerate() {
            let (from, to, more) = pieces[i];
            whole = fragments.add(&piece(&data[from..to], from, more, 1), now);
            assert_eq!(whole.is_some(), count == 2);
        }
        assert_eq!(whole.unwrap().payload, data);
        assert!(fragments.partial.is_empty());
    }
}

#[test]
fn overlaps_and_contradictions_discard_all() {
    let data = [0; 64];
    let now = Instant::now();
    let bad: [&[(usize, usize, bool)]; 4] = [
        &[(0, 40, true), (32, 64, false)],
        &[(0, 40, true), (0, 40, true)],
        &[(40, 64, false), (32, 48, false)],
        &[(40, 48, true), (0, 16, false)],
    ];
    for pieces in bad {
        let mut fragments = Fragments::default();
        for &(from, to, more) in pieces {
            assert!(fragments.add(&piece(&data[from..to], from, more, 1), now).is_none());
        }
        assert!(fragments.partial.is_empty(), "{pieces:?}");
    }
}

#[test]
fn number_size_and_time_are_bounded() {
    let data = [0; 64];
    let mut fragments = Fragments::default();
    let now = Instant::now();
    for ident in 0..100 {
        fragments.add(&piece(&data[..8], 0, true, ident), now);
    }
    assert_eq!(fragments.partial.len(), DATAGRAMS);
    assert!(fragments.add(&piece(&data, 65_528, false, 1), now).is_none());
    assert!(fragments.add(&piece(&data[..9], 0, true, 1), now).is_none(), "not a multiple of 8");
    for i in 0..200 {
        fragments.add(&piece(&data[..8], i * 16, true, 500), now);
    }
    assert!(fragments.partial.iter().all(|partial| partial.ranges.len() <= FRAGMENTS));
    fragments.add(&piece(&data[..8], 0, true, 7), now + PATIENCE);
    assert_eq!(fragments.partial.len(), 1);
}
