use super::*;

#[test]
fn resolvers_are_read_as_the_c_library_reads_them() {
    let text = "# comment\nsearch example.com\nnameserver 127.0.0.53\n nameserver\t2001:db8::1 \nnameserver fe80::1%eth0\nnameserver x\n";
    let expected: Vec<SocketAddr> = vec!["127.0.0.53:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
    assert_eq!(parse_resolvers(text), expected);
}
