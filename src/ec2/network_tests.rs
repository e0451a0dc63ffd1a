use super::*;

#[test]
fn default_world() {
    let subnet = default_subnet(1);
    assert_eq!(subnet.to_string(), "172.31.16.0/20");
    assert_eq!(subnet.router(), Ipv4Addr::new(172, 31, 16, 1));
    assert_eq!(subnet.netmask(), Ipv4Addr::new(255, 255, 240, 0));
    assert_eq!(subnet.broadcast(), Ipv4Addr::new(172, 31, 31, 255));
    assert_eq!(DEFAULT_VPC.dns(), Ipv4Addr::new(172, 31, 0, 2));
    assert!(DEFAULT_VPC.contains(default_subnet(15).broadcast()));
    let usable: Vec<_> = subnet.usable().collect();
    assert_eq!(usable.len(), 4091);
    assert!(!usable.iter().any(|address| subnet.is_reserved(*address)));
    assert!(subnet.is_reserved(Ipv4Addr::new(172, 31, 16, 3)) && subnet.is_reserved(subnet.broadcast()));
}

#[test]
fn public_addresses_change_and_are_nobody_else_s() {
    let private = Ipv4Addr::new(172, 31, 1, 10);
    assert_eq!(public_address(private, 0), Ipv4Addr::new(198, 18, 1, 10));
    assert_eq!(public_address(private, 31), Ipv4Addr::new(198, 19, 241, 10));
    assert_eq!(public_address(private, 32), public_address(private, 0));
    let mut seen = std::collections::HashSet::new();
    for private in default_subnet(0).usable().step_by(97) {
        assert!((0..32).all(|starts| seen.insert(public_address(private, starts))));
    }
}

#[test]
fn cidr_text() {
    assert_eq!("10.1.2.3/24".parse::<Ipv4Cidr>().unwrap().to_string(), "10.1.2.0/24");
    for bad in ["10.0.0.0", "10.0.0.0/8", "10.0.0.0/29", "10.0.0/24", "x/24", "10.0.0.0/-1"] {
        bad.parse::<Ipv4Cidr>().unwrap_err();
    }
}

#[test]
fn names() {
    let (virginia, index) = Region::of_zone("us-east-1a").unwrap();
    assert_eq!((index, virginia.zone_id(index).as_str()), (0, "use1-az1"));
    assert_eq!(virginia.zone(5).unwrap(), "us-east-1f");
    let address = Ipv4Addr::new(10, 0, 0, 37);
    assert_eq!(virginia.private_dns_name(address), "ip-10-0-0-37.ec2.internal");
    let ireland = Region::find("eu-west-1").unwrap();
    assert_eq!(ireland.private_dns_name(address), "ip-10-0-0-37.eu-west-1.compute.internal");
    let public = Ipv4Addr::new(203, 0, 113, 25);
    assert_eq!(virginia.public_dns_name(public), "ec2-203-0-113-25.compute-1.amazonaws.com");
    assert_eq!(ireland.public_dns_name(public), "ec2-203-0-113-25.eu-west-1.compute.amazonaws.com");
    assert_eq!(Region::find("cn-north-1").unwrap().services_domain(), "amazonaws.com.cn");
    for bad in ["", "us-east-1", "us-east-1z", "mars-1a", "ä"] {
        Region::of_zone(bad).unwrap_err();
    }
    assert_eq!(Region::find("nowhere").unwrap_err().code, "InvalidParameterValue");
}

#[test]
fn host_names_back_to_addresses() {
    let address = Ipv4Addr::new(172, 31, 0, 255);
    assert_eq!(parse_private_host_name(&private_host_name(address)), Some(address));
    assert_eq!(parse_private_host_name("ip-172-31-0-255.ec2.internal"), Some(address));
    for bad in ["ip-1-2-3", "ip-1-2-3-4-5", "ip-1-2-3-256", "ip-01-2-3-4", "ip-+1-2-3-4", "web"] {
        assert_eq!(parse_private_host_name(bad), None, "{bad}");
    }
}

#[test]
fn region_table_is_sorted_and_unique() {
    let names: Vec<_> = Region::all().iter().map(|region| region.name).collect();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
    let mut prefixes: Vec<_> = Region::all().iter().map(|region| region.zone_id_prefix).collect();
    prefixes.sort_unstable();
    assert!(prefixes.windows(2).all(|pair| pair[0] != pair[1]));
}
