use std::net::SocketAddrV4;
use std::sync::Arc;

use super::*;
use crate::ec2::security_group::{Peer, SecurityGroup};
use crate::net::PortForward;

fn group(name: &str, rules: &[(Direction, &str, i32, &str)]) -> SecurityGroup {
    let mut group = SecurityGroup::new(name, "text").unwrap();
    group.rules.clear();
    for (direction, protocol, port, cidr) in rules {
        let peer = Peer::from(cidr.parse::<Cidr>().unwrap());
        let permission = Permission::new(protocol.parse().unwrap(), Some((*port, *port)), peer).unwrap();
        group.authorize(*direction, vec![permission], None).unwrap();
    }
    group
}

fn set(version: u64, groups: Vec<SecurityGroup>) -> SecurityGroups {
    SecurityGroups { version, groups }
}

/// A filter, and what it told.
fn firewall(groups: Vec<SecurityGroup>, peers: Vec<(SocketAddr, IpAddr)>) -> (Firewall, Arc<Mutex<Vec<String>>>) {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = told.clone();
    let tell: Tell = Arc::new(move |event| {
        if let Event::Warning { text } = event {
            lines.lock().unwrap().push(text);
        }
    });
    let firewall =
        Firewall { rules: RwLock::new(Rules::new(&set(1, groups))), stand_ins: peers, told: Mutex::default(), tell };
    (firewall, told)
}

fn enters(protocol: Protocol, guest_port: u16, from: &str) -> NewFlow {
    let forward = PortForward { protocol, host: "127.0.0.1:8080".parse().unwrap(), guest_port };
    NewFlow::In { forward, from: SocketAddr::new(from.parse().unwrap(), 50_000) }
}

fn leaves(protocol: Protocol, to: &str) -> NewFlow {
    NewFlow::Out { protocol, to: to.parse::<SocketAddrV4>().unwrap() }
}

#[test]
fn any_rule_of_any_group_lets_a_flow_through() {
    let web = group("web", &[(Direction::Ingress, "tcp", 80, "0.0.0.0/0")]);
    let out =
        group("out", &[(Direction::Egress, "udp", 53, "192.0.2.0/24"), (Direction::Egress, "icmp", -1, "0.0.0.0/0")]);
    let (firewall, told) = firewall(vec![web, out], Vec::new());
    assert!(firewall.admits(&enters(Protocol::Tcp, 80, "198.51.100.7")));
    assert!(firewall.admits(&enters(Protocol::Tcp, 80, "::ffff:198.51.100.7")), "IPv4 in IPv6's clothes");
    assert!(!firewall.admits(&enters(Protocol::Udp, 80, "198.51.100.7")));
    assert!(!firewall.admits(&enters(Protocol::Tcp, 80, "2001:db8::1")));
    assert!(firewall.admits(&leaves(Protocol::Udp, "192.0.2.53:53")));
    assert!(!firewall.admits(&leaves(Protocol::Udp, "192.0.3.53:53")));
    assert!(firewall.admits(&NewFlow::Echo { to: "192.0.2.1".parse().unwrap() }));
    assert_eq!(told.lock().unwrap().len(), 3);
}

#[test]
fn what_is_dropped_is_told_once_with_the_command_that_allows_it() {
    let web = group("web", &[]);
    let id = web.group_id.clone();
    let (firewall, told) = firewall(vec![web, group("db", &[])], Vec::new());
    for port in [1000, 2000] {
        assert!(!firewall.admits(&enters(Protocol::Tcp, 22, "127.0.0.1")), "{port}");
    }
    assert!(!firewall.admits(&leaves(Protocol::Udp, "192.0.2.53:53")));
    assert!(!firewall.admits(&NewFlow::Echo { to: "192.0.2.1".parse().unwrap() }));
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 3, "{told:?}");
    let command = format!("amiable security-group authorize {id} --protocol tcp --port 22 --cidr 127.0.0.1/32");
    assert!(told[0].contains("from 127.0.0.1") && told[0].contains("(web, db)"), "{}", told[0]);
    assert!(told[0].ends_with(&command), "{}", told[0]);
    assert!(told[1].ends_with("--egress --protocol udp --port 53 --cidr 192.0.2.53/32"), "{}", told[1]);
    assert!(told[2].ends_with("--egress --protocol icmp --port 8-0 --cidr 192.0.2.1/32"), "{}", told[2]);
}

#[test]
fn notices_are_bounded() {
    let (firewall, told) = firewall(vec![group("none", &[])], Vec::new());
    for port in 1..=1000 {
        assert!(!firewall.admits(&leaves(Protocol::Tcp, &format!("192.0.2.1:{port}"))));
    }
    assert_eq!(told.lock().unwrap().len(), MOST_NOTICES);
}

#[test]
fn the_newest_rules_hold() {
    let closed = group("closed", &[]);
    let open = group("open", &[(Direction::Ingress, "tcp", 22, "127.0.0.0/8")]);
    let (firewall, told) = firewall(vec![closed.clone()], Vec::new());
    let flow = enters(Protocol::Tcp, 22, "127.0.0.1");
    assert!(!firewall.admits(&flow));
    assert!(firewall.set(&set(3, vec![open])));
    assert!(firewall.admits(&flow));
    assert!(!firewall.set(&set(2, vec![closed.clone()])), "it was sent earlier and comes later");
    assert!(firewall.admits(&flow));
    assert!(firewall.set(&set(4, vec![closed])));
    assert!(!firewall.admits(&flow));
    assert_eq!(told.lock().unwrap().len(), 2, "told anew under new rules");
}

#[test]
fn a_peer_that_can_t_be_seen_is_taken_for_who_it_must_be() {
    let host: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let loopback = group("l", &[(Direction::Ingress, "tcp", 22, "127.0.0.0/8")]);
    let inside = "10.0.2.2";
    let (seen, _) = firewall(vec![loopback.clone()], vec![(host, stand_in("127.0.0.1:2222".parse().unwrap()))]);
    assert!(seen.admits(&enters(Protocol::Tcp, 22, inside)));
    let (unknown, told) = firewall(vec![loopback], vec![(host, stand_in("0.0.0.0:2222".parse().unwrap()))]);
    assert!(!unknown.admits(&enters(Protocol::Tcp, 22, inside)));
    assert!(told.lock().unwrap()[0].ends_with("--cidr 0.0.0.0/0"));
    let all = group("a", &[(Direction::Ingress, "tcp", 22, "0.0.0.0/0")]);
    assert!(unknown.set(&set(2, vec![all])));
    assert!(unknown.admits(&enters(Protocol::Tcp, 22, inside)));
}
