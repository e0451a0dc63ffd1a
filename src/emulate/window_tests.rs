use std::sync::Arc;

use super::*;

#[test]
fn a_sender_gets_what_there_is_and_no_more_than_the_size() {
    let window = Window::default();
    assert_eq!(window.take(10), Some(10));
    assert_eq!(window.take(usize::MAX), Some(SIZE - 10));
    window.give(3);
    assert_eq!(window.take(10), Some(3));
    window.give(usize::MAX);
    assert_eq!(window.take(usize::MAX), Some(SIZE));
}

#[test]
fn a_sender_without_room_waits_until_there_is_some_or_nobody_wants_it() {
    let window = Arc::new(Window::default());
    window.take(SIZE);
    let sender = std::thread::spawn({
        let window = Arc::clone(&window);
        move || (window.take(7), window.take(7))
    });
    while !window.is_waiting() {
        std::thread::yield_now();
    }
    window.give(5);
    while !window.is_waiting() {
        std::thread::yield_now();
    }
    window.close();
    assert_eq!(sender.join().unwrap(), (Some(5), None));
    assert_eq!(window.take(1), None);
}

#[test]
fn room_is_given_back_in_large_pieces_and_none_is_lost() {
    let (mut room, mut given) = (Room::default(), Vec::new());
    for _ in 0..SIZE {
        given.extend(room.passed(1));
    }
    assert_eq!(given, [SIZE / 2, SIZE / 2]);
}
