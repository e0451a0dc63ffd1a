use super::*;

#[test]
fn survives_json() {
    let mut metadata = Metadata::example();
    metadata.user_data = Some((0..=255).collect());
    let json = serde_json::to_string(&metadata).unwrap();
    assert_eq!(serde_json::from_str::<Metadata>(&json).unwrap(), metadata);
    metadata.user_data = None;
    let json = serde_json::to_string(&metadata).unwrap();
    assert_eq!(serde_json::from_str::<Metadata>(&json).unwrap(), metadata);
}

#[test]
fn example_is_of_its_zone() {
    let example = Metadata::example();
    assert_eq!(Placement::in_zone("us-east-1a").unwrap(), example.placement);
    assert_eq!(example.network_interfaces[0].private_dns_name, "ip-172-31-0-37.ec2.internal");
}

#[test]
fn mapping() {
    let mapping = block_device_mapping("sda1", &["/dev/sdf", "sdg"]);
    let pairs: Vec<_> = mapping.iter().map(|item| (&*item.virtual_name, &*item.device_name)).collect();
    assert_eq!(pairs, [("ami", "sda1"), ("root", "/dev/sda1"), ("ebs1", "sdf"), ("ebs2", "sdg")]);
}
