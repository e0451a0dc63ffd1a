use super::*;

#[test]
fn frames_come_in_order_and_the_end_is_the_last() {
    let outbox = Outbox::default();
    outbox.put(Kind::Stdout, b"a");
    outbox.put(Kind::Exit, b"0");
    outbox.put(Kind::Failed, b"too late");
    assert_eq!(outbox.take(), (Kind::Stdout, b"a".to_vec()));
    assert_eq!(outbox.take(), (Kind::Exit, b"0".to_vec()));
    assert!(outbox.lock().frames.is_empty());
}

#[test]
fn what_nobody_takes_does_not_grow_for_ever() {
    let outbox = Outbox::default();
    for _ in 0..100_000 {
        outbox.put(Kind::Room, &[0; 5]);
        outbox.put(Kind::Stdout, &[0; 1000]);
    }
    assert!(outbox.lock().bytes <= MOST + 1000 + FRAME);
    outbox.put(Kind::Exit, b"0");
    while outbox.take().0 != Kind::Exit {}
    assert_eq!(outbox.lock().bytes, 0);
}
