use super::*;

#[test]
fn ports_are_one_number_or_two() {
    for (text, pair) in
        [("22", (22, 22)), ("8000-8010", (8000, 8010)), ("8--1", (8, -1)), ("-1", (-1, -1)), ("-1--1", (-1, -1))]
    {
        assert_eq!(ports(text), Ok(pair), "{text}");
    }
    for text in ["", "-", "22-", "-22-", "a", "+22", "1-2-3", "99999999999", "é-1"] {
        assert!(ports(text).is_err(), "{text}");
    }
}

#[test]
fn published_ports() {
    let publish = |host: &str, guest_port, udp| Publish { host: host.parse().unwrap(), guest_port, udp };
    assert_eq!(port_forward("8080:80"), Ok(publish("127.0.0.1:8080", 80, false)));
    assert_eq!(port_forward("0:22/tcp"), Ok(publish("127.0.0.1:0", 22, false)));
    assert_eq!(port_forward("0.0.0.0:53:53/udp"), Ok(publish("0.0.0.0:53", 53, true)));
    assert_eq!(port_forward("[::1]:8080:80"), Ok(publish("[::1]:8080", 80, false)));
    for wrong in ["", "80", "80:0", "a:80", "80:a", "host:80:80", "80:80/icmp", "65536:80", "1:2:3:4x"] {
        assert!(port_forward(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn sizes() {
    assert_eq!(size("20G"), Ok(20 << 30));
    assert_eq!(size("8GiB"), Ok(8 << 30));
    assert_eq!(size("20"), Ok(20 << 30));
    for wrong in ["", "G", "20X", "-1", "0", "99999999999G", "17T", "5b5"] {
        assert!(size(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn durations() {
    assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
    for wrong in ["", "m", "0", "8d", "999h", "1.5h"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn aws_file_arguments() {
    for text in ["a.sh", "file://a.sh", "fileb://a.sh"] {
        assert_eq!(file_argument(text), Ok(PathBuf::from("a.sh")));
    }
    assert!(file_argument("file://").is_err());
}
