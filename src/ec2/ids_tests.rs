use super::*;

#[test]
fn generated_ids_are_valid_and_differ() {
    for kind in [IdKind::Instance, IdKind::Image, IdKind::Volume, IdKind::NetworkInterface, IdKind::Reservation] {
        let (a, b) = (kind.generate(), kind.generate());
        assert_ne!(a, b);
        assert_eq!(a.len(), kind.prefix().len() + 17);
        kind.validate(&a).unwrap();
    }
    assert_eq!(IdKind::Vpc.derive("default"), IdKind::Vpc.derive("default"));
    assert_ne!(IdKind::Vpc.derive("default"), IdKind::Vpc.derive("other"));
}

#[test]
fn malformed_ids_have_ec2s_codes() {
    let error = IdKind::Instance.validate("foo").unwrap_err();
    assert_eq!(error.code, "InvalidInstanceID.Malformed");
    assert_eq!(error.message, "Invalid id: \"foo\" (expecting \"i-...\")");
    assert_eq!(IdKind::Instance.validate("i-xyz").unwrap_err().message, "Invalid id: \"i-xyz\"");
    assert_eq!(IdKind::Image.validate("i-0123456789abcdef0").unwrap_err().code, "InvalidAMIID.Malformed");
    for bad in ["i-", "i-0123456789ABCDEF0", "i-0123456789abcdef", "i-0123456789abcdef01", "i-0123456789abcdeg0"] {
        assert!(!IdKind::Instance.matches(bad), "{bad}");
    }
    assert!(IdKind::Instance.matches("i-12345678"), "ids of the short form stay valid");
}

#[test]
fn uuid_is_stable_and_says_ec2() {
    let uuid = instance_uuid("i-0123456789abcdef0");
    assert_eq!(uuid, instance_uuid("i-0123456789abcdef0"));
    assert_ne!(uuid, instance_uuid("i-0123456789abcdef1"));
    assert!(uuid.starts_with("ec2"));
    assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert!(uuid.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
}

#[test]
fn macs_are_local_unicast() {
    let mac = mac_address("eni-0123456789abcdef0");
    assert!(mac[0] == 2 || mac[0] == 6);
    assert_eq!(mac, mac_address("eni-0123456789abcdef0"));
    assert_eq!(format_mac([2, 0xab, 0, 1, 0xff, 9]), "02:ab:00:01:ff:09");
    assert_eq!(instance_store_serial("i-0", 0).len(), 20);
    assert_ne!(instance_store_serial("i-0", 0), instance_store_serial("i-0", 1));
}
