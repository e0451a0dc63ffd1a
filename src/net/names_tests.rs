use proptest::prelude::*;

use super::*;
use crate::net::testing::{config, dns_query};

/// (code, records), and the data of the record if there is one.
fn ask(name: &str, kind: u16) -> Option<(u16, Vec<u8>)> {
    let query = dns_query(0xbeef, name, kind);
    match resolve(&config(), &query) {
        Verdict::Answer(reply) => {
            assert_eq!(reply[..2], query[..2]);
            let flags = be16(&reply, 2).unwrap();
            assert_eq!(flags & (QR | RD | RA), QR | RD | RA);
            assert_eq!(reply[12..query.len()], query[12..]);
            let data = if be16(&reply, 6) == Some(1) { reply[query.len() + 12..].to_vec() } else { Vec::new() };
            Some((flags & 15, data))
        }
        Verdict::Forward => None,
        Verdict::Drop => panic!("dropped"),
    }
}

#[test]
fn what_is_answered_here() {
    let pointer = encode("ip-10-0-0-5.ec2.internal");
    type Row<'a> = (&'a str, u16, Option<(u16, &'a [u8])>);
    let table: &[Row<'_>] = &[
        ("ip-10-0-0-5.ec2.internal", A, Some((0, &[10, 0, 0, 5]))),
        ("IP-10-0-0-1.EC2.internal", A, Some((0, &[10, 0, 0, 1]))),
        ("ip-10-0-0-5.ec2.internal", AAAA, Some((0, &[]))),
        ("ip-10-0-0-5.ec2.internal", 16, Some((0, &[]))),
        ("ip-10-1-0-5.ec2.internal", A, Some((3, &[]))),
        ("ip-10-0-0-05.ec2.internal", A, Some((3, &[]))),
        ("ip-10-0-0-300.ec2.internal", A, Some((3, &[]))),
        ("other.ec2.internal", A, Some((3, &[]))),
        ("5.0.0.10.in-addr.arpa", PTR, Some((0, &pointer))),
        ("5.0.0.10.in-addr.arpa", A, Some((0, &[]))),
        ("9.9.9.10.in-addr.arpa", PTR, Some((0, &encode("db.example.org")))),
        ("254.169.254.169.in-addr.arpa", PTR, Some((3, &[]))),
        ("8.8.8.8.in-addr.arpa", PTR, None),
        ("db.example.org", A, Some((0, &[10, 9, 9, 9]))),
        ("db.example.org", AAAA, Some((0, &[]))),
        ("example.org", A, None),
        ("instance-data", A, Some((3, &[]))),
        ("instance-data", 16, Some((3, &[]))),
        ("__cloud_init_expected_not_found__", A, Some((3, &[]))),
        ("example.invalid", AAAA, Some((3, &[]))),
        ("does-not-exist.example.com", A, None),
        // DNSSEC's questions about top-level domains and the root.
        ("com", 43, None),
        ("", 48, None),
        ("", A, None),
    ];
    for (name, kind, expected) in table {
        let expected = expected.map(|(code, data)| (code, data.to_vec()));
        assert_eq!(ask(name, *kind), expected, "{name} {kind}");
    }
}

#[test]
fn another_implementation_reads_the_replies() {
    use simple_dns::Packet;
    use simple_dns::rdata::RData;
    let data = |name: &str, kind| {
        let Verdict::Answer(reply) = resolve(&config(), &dns_query(3, name, kind)) else { panic!() };
        let packet = Packet::parse(&reply).unwrap();
        assert_eq!((packet.id(), packet.questions.len(), packet.answers.len()), (3, 1, 1));
        assert_eq!(packet.answers[0].name.to_string(), name);
        match &packet.answers[0].rdata {
            RData::A(a) => Ipv4Addr::from(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(data("ip-10-0-0-7.ec2.internal", A), "10.0.0.7");
    assert_eq!(data("7.0.0.10.in-addr.arpa", PTR), "ip-10-0-0-7.ec2.internal");
}

#[test]
fn edns_is_answered_with_edns() {
    let mut query = dns_query(1, "ip-10-0-0-5.ec2.internal", A);
    query[11] = 1;
    query.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let Verdict::Answer(reply) = resolve(&config(), &query) else { panic!() };
    assert_eq!(reply[4..12], [0, 1, 0, 1, 0, 0, 0, 1]);
    assert_eq!(reply[reply.len() - 11..], [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn what_is_no_question() {
    let query = dns_query(1, "a.example.org", A);
    let code = |query: &[u8]| match resolve(&config(), query) {
        Verdict::Answer(reply) => Some(be16(&reply, 2).unwrap() & 15),
        Verdict::Forward => Some(99),
        Verdict::Drop => None,
    };
    assert_eq!(code(&query), Some(99));
    let changed = |at: usize, value: u8| {
        let mut query = query.clone();
        query[at] = value;
        query
    };
    assert_eq!(code(&changed(2, 0x81)), None, "a reply");
    assert_eq!(code(&changed(2, 0x29)), Some(NOTIMP), "an update");
    assert_eq!(code(&changed(5, 2)), Some(FORMERR), "two questions");
    assert_eq!(code(&changed(12, 0xc0)), Some(FORMERR), "compression");
    assert_eq!(code(&query[..query.len() - 1]), Some(FORMERR));
    assert_eq!(code(&query[..11]), None);
    let long = ["a"; 128].join(".");
    assert_eq!(code(&dns_query(1, &long, A)), Some(FORMERR), "257 bytes");
    assert_eq!(code(&dns_query(1, &long[2..], A)), Some(99), "255 bytes");
    // A dot inside a label must not make another name of it.
    let mut dotted = dns_query(1, "exampleXinvalid", A);
    dotted[20] = b'.';
    assert_eq!(Question::parse(&dotted).unwrap().name, "example?invalid");
}

#[test]
fn a_failure_keeps_the_question() {
    let query = dns_query(7, "example.org", A);
    let reply = server_failure(&query);
    assert_eq!(be16(&reply, 2).unwrap(), QR | RD | RA | SERVFAIL);
    assert_eq!(reply[12..], query[12..]);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Verdict::Answer(reply) = resolve(&config(), &bytes) {
            prop_assert!(reply.len() <= bytes.len() + 300);
            prop_assert!(reply[2] & 0x80 != 0);
        }
    }

    #[test]
    fn labels_of_any_kind_are_survived(labels in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 1..70), 0..6), kind in any::<u16>()) {
        let mut query = dns_query(1, "", kind);
        let tail = query.split_off(12);
        for label in labels {
            query.push(label.len() as u8);
            query.extend(label);
        }
        query.extend(tail);
        resolve(&config(), &query);
    }
}
