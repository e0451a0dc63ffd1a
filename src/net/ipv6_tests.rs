use super::*;
use crate::net::testing::*;

const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 5);

fn query(to: Ipv6Addr, port: u16, name: &str) -> Vec<u8> {
    let mut question = dns_query(9, name, 28);
    question[2..4].fill(0);
    let mut body = [40_000, port, 8 + question.len() as u16, 0].map(u16::to_be_bytes).concat();
    body.extend(question);
    finish(SOURCE, to, UDP, 6, body)
}

#[test]
fn the_two_names_are_answered_over_ipv6() {
    let reply = answer(GATEWAY_MAC, &query(LLMNR_GROUP, llmnr::PORT, "instance-data")).unwrap();
    let own = link_local(GATEWAY_MAC);
    assert_eq!(own, "fe80::ff:fe00:1".parse::<Ipv6Addr>().unwrap());
    assert_eq!((address(&reply, 8), address(&reply, 24)), (Some(own), Some(SOURCE)));
    assert_eq!((reply[6], reply[7]), (UDP, 255));
    assert_eq!(sum(own, SOURCE, UDP, &reply[40..]), u16::MAX);
    assert_eq!(reply[40..44], [0x14, 0xeb, 0x9c, 0x40]);
    assert_eq!(reply[48..60], [0, 9, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn nothing_else_is() {
    assert_eq!(answer(GATEWAY_MAC, &query(LLMNR_GROUP, llmnr::PORT, "printer")), None);
    assert_eq!(answer(GATEWAY_MAC, &query(LLMNR_GROUP, 53, "instance-data")), None);
    assert_eq!(answer(GATEWAY_MAC, &query(link_local(GATEWAY_MAC), llmnr::PORT, "instance-data")), None);
    let good = query(LLMNR_GROUP, llmnr::PORT, "instance-data");
    for length in 0..good.len() {
        assert_eq!(answer(GATEWAY_MAC, &good[..length]), None);
    }
    let mut bad = good;
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(answer(GATEWAY_MAC, &bad), None, "a wrong checksum");
}

#[test]
fn our_link_local_address_is_resolved() {
    let own = link_local(GATEWAY_MAC);
    let solicit = |target: Ipv6Addr| {
        let body = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &GUEST_MAC].concat();
        finish(SOURCE, "ff02::1:ff00:1".parse().unwrap(), ICMP, 2, body)
    };
    let reply = answer(GATEWAY_MAC, &solicit(own)).unwrap();
    assert_eq!((reply[40], reply[44]), (ADVERTISEMENT, 0x60));
    assert_eq!((address(&reply, 48), &reply[66..72]), (Some(own), &GATEWAY_MAC[..]));
    assert_eq!(sum(own, SOURCE, ICMP, &reply[40..]), u16::MAX);
    assert_eq!(answer(GATEWAY_MAC, &solicit(SOURCE)), None);
}
