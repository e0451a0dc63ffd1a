use super::*;
use crate::net::testing::dns_query;

#[test]
fn the_two_names_get_an_empty_answer() {
    for name in ["instance-data", "Instance-Data", "__cloud_init_expected_not_found__"] {
        for kind in [1, 28] {
            let mut query = dns_query(0x1234, name, kind);
            query[2..4].fill(0);
            let reply = answer(&query).unwrap();
            assert_eq!(reply[..12], [0x12, 0x34, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            assert_eq!(reply[12..], query[12..]);
        }
    }
}

#[test]
fn nothing_else_does() {
    let query = |name| {
        let mut query = dns_query(1, name, 1);
        query[2..4].fill(0);
        query
    };
    for name in ["instance-data.local", "printer", "ip-10-0-0-5", ""] {
        assert_eq!(answer(&query(name)), None, "{name}");
    }
    let good = query("instance-data");
    for (at, bits) in [(2, 0x80), (2, 0x08), (2, 0x04), (2, 0x02), (7, 1), (5, 2)] {
        let mut bad = good.clone();
        bad[at] |= bits;
        assert_eq!(answer(&bad), None, "byte {at}");
    }
    for length in 0..good.len() {
        assert_eq!(answer(&good[..length]), None);
    }
}
