use super::*;
use crate::net::testing::*;

fn request(operation: u8, sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &sender_mac, &sender.octets(), &[0; 6], &target.octets()].concat()
}

#[test]
fn served_addresses_are_answered_and_no_others() {
    let config = config();
    for target in [GATEWAY, DNS, LINK_DNS, NTP, IMDS, ALIAS] {
        let reply = answer(&config, &request(1, GUEST_MAC, GUEST, target)).unwrap();
        assert_eq!(reply[6..8], [0, 2]);
        assert_eq!((&reply[8..14], &reply[14..18]), (&GATEWAY_MAC[..], &target.octets()[..]));
        assert_eq!((&reply[18..24], &reply[24..28]), (&GUEST_MAC[..], &GUEST.octets()[..]));
    }
    for target in [GUEST, Ipv4Addr::new(10, 0, 0, 77), Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(169, 254, 1, 1)] {
        assert_eq!(answer(&config, &request(1, GUEST_MAC, GUEST, target)), None, "{target}");
    }
}

#[test]
fn address_probes_find_the_guests_own_address_free_and_ours_taken() {
    let config = config();
    assert_eq!(answer(&config, &request(1, GUEST_MAC, Ipv4Addr::UNSPECIFIED, GUEST)), None);
    let reply = answer(&config, &request(1, GUEST_MAC, Ipv4Addr::UNSPECIFIED, GATEWAY)).unwrap();
    assert_eq!(reply[24..28], [0; 4]);
}

#[test]
fn replies_spoofed_and_malformed_packets_are_ignored() {
    let config = config();
    let good = request(1, GUEST_MAC, GUEST, GATEWAY);
    assert!(answer(&config, &good).is_some());
    assert_eq!(answer(&config, &good[..27]), None);
    assert_eq!(answer(&config, &request(2, GUEST_MAC, GUEST, GATEWAY)), None);
    assert_eq!(answer(&config, &request(1, [2; 6], GUEST, GATEWAY)), None);
    assert_eq!(answer(&config, &request(1, GUEST_MAC, IMDS, GATEWAY)), None);
    let mut other = good;
    other[1] = 6;
    assert_eq!(answer(&config, &other), None);
}
