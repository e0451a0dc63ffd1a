use super::*;

#[test]
fn ports_are_leased_once_at_a_time_and_numbers_once() {
    let mut taken = Taken::default();
    assert_eq!(taken.lease(2), Some((1, vec![20_000, 20_001])));
    assert_eq!(taken.lease(1), Some((2, vec![20_002])));
    let rest = (PORTS.end - PORTS.start) - 3;
    assert!(taken.lease(rest + 1).is_none());
    assert_eq!(taken.lease(rest).unwrap().1.len(), usize::from(rest));
    assert!(taken.lease(1).is_none());
    assert_eq!(taken.lease(0).unwrap().0, 4);
}

#[test]
fn targets_are_used_again() {
    let mut taken = Taken::default();
    assert!((0..MOST_DRIVES).all(|n| taken.target() == Some(n)));
    assert_eq!(taken.target(), None);
    taken.targets.remove(&7);
    assert_eq!(taken.target(), Some(7));
}

#[test]
fn why_a_port_cannot_be_had_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(host) = listener.local_addr().unwrap() else { panic!() };
    let forward = Forward { protocol: Protocol::Tcp, host, port: 20_000 };
    let text = why_not(&forward, &io::Error::other("could not"));
    assert!(text.starts_with(&format!("can't listen on {host}: Address already in use")), "{text}");
    drop(listener);
    let text = why_not(&forward, &io::Error::other("could not"));
    assert!(text.ends_with("could not"), "{text}");
}
