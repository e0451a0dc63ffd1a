use super::*;

#[test]
fn keys_of_removed_entries_stay_dead() {
    let mut slab = Slab::new(Kind::Tcp, 2);
    let a = slab.insert_with(|_| Some("a")).unwrap();
    let b = slab.insert_with(|_| Some("b")).unwrap();
    assert!(slab.insert_with(|_| Some("c")).is_none(), "full");
    assert_eq!(slab.remove(a), Some("a"));
    assert_eq!(slab.remove(a), None);
    let c = slab.insert_with(|key| (key.index() == a.index()).then_some("c")).unwrap();
    assert_eq!(slab.get(a), None);
    assert_eq!(slab.get(c), Some(&"c"));
    assert_eq!(slab.get_mut(b), Some(&mut "b"));
    assert_eq!(Key::from_u64(c.to_u64()), Some(c));
    assert_eq!(Key::from_u64(0), None);
    assert_eq!(slab.len(), 2);
}

#[test]
fn a_failed_insert_takes_no_slot() {
    let mut slab: Slab<u8> = Slab::new(Kind::Udp, 1);
    assert!(slab.insert_with(|_| None).is_none());
    assert_eq!(slab.len(), 0);
    assert!(slab.insert_with(|_| Some(1)).is_some());
    assert_eq!(slab.sample_min(|v| *v).map(|k| k.index()), Some(0));
}
