use std::time::Duration;

use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 123);

#[test]
fn a_client_gets_the_hosts_time() {
    let mut request = [0; LENGTH];
    request[0] = 4 << 3 | 3;
    request[2] = 6;
    request[40..].copy_from_slice(b"originat");
    let now = UNIX_EPOCH + Duration::new(1_000_000_000, 500_000_000);
    let reply = answer(&request, SERVER, now).unwrap();
    assert_eq!(reply[0], 4 << 3 | 4);
    assert_eq!((reply[1], reply[2]), (3, 6));
    assert_eq!(&reply[24..32], b"originat");
    assert_eq!(reply[40..44], (1_000_000_000u32 + 2_208_988_800).to_be_bytes());
    assert_eq!(reply[44..48], 0x8000_0000u32.to_be_bytes());
}

#[test]
fn only_clients_are_answered() {
    let now = UNIX_EPOCH;
    let with = |first: u8| {
        let mut request = [0; LENGTH];
        request[0] = first;
        request
    };
    assert!(answer(&with(3 << 3 | 3), SERVER, now).is_some());
    // Server, broadcast, control; no version; version 5.
    for first in [4 << 3 | 4, 4 << 3 | 5, 4 << 3 | 6, 3, 5 << 3 | 3] {
        assert_eq!(answer(&with(first), SERVER, now), None);
    }
    assert_eq!(answer(&with(4 << 3 | 3)[..47], SERVER, now), None);
}
