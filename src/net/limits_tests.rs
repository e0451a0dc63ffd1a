use super::*;

#[test]
fn the_limits_leave_room_for_the_process() {
    assert_eq!(Limits::new(u64::MAX), Limits { tcp: 4096, udp: 1024, dns: 256, pings: 64 });
    for descriptors in [0, 100, 1024, 4096, 10_000] {
        let Limits { tcp, udp, dns, pings } = Limits::new(descriptors);
        assert!(tcp >= 40 && udp >= 10 && dns >= 4 && pings >= 4);
        assert!(tcp + udp + dns + pings <= descriptors.saturating_sub(RESERVED).max(64) as usize);
    }
}
