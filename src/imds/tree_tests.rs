use super::*;

fn listing(tree: &Tree, path: &str) -> Vec<String> {
    match tree.get(path) {
        Some(Node::Listing(names)) => names.clone(),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn listings() {
    let metadata = Metadata::example();
    let tree = Tree::new(&metadata, true);
    assert_eq!(listing(&tree, ""), ["dynamic", "meta-data", "user-data"]);
    assert_eq!(listing(&tree, "dynamic/instance-identity"), ["document", "pkcs7", "rsa2048", "signature"]);
    assert_eq!(listing(&tree, "meta-data/public-keys"), ["0=mykey"]);
    assert_eq!(listing(&tree, "meta-data/public-keys/0"), ["openssh-key"]);
    assert_eq!(listing(&tree, "meta-data/placement"), ["availability-zone", "availability-zone-id", "region"]);
    let top = listing(&tree, "meta-data");
    assert!(top.is_sorted() && top.contains(&"network/".into()) && top.contains(&"public-keys/".into()), "{top:?}");
    assert!(!top.contains(&"tags/".into()), "tags are not shown unless asked for");
    let mac = format_mac(metadata.network_interfaces[0].mac);
    assert_eq!(listing(&tree, "meta-data/network/interfaces/macs"), [format!("{mac}/")]);
}

#[test]
fn absent_things_are_not_listed() {
    let mut metadata = Metadata::example();
    metadata.user_data = None;
    metadata.key_pair = None;
    metadata.network_interfaces[0].public = None;
    metadata.block_device_mapping.clear();
    let tree = Tree::new(&metadata, false);
    assert_eq!(listing(&tree, ""), ["dynamic", "meta-data"]);
    assert_eq!(listing(&tree, "dynamic/instance-identity"), ["document"]);
    let top = listing(&tree, "meta-data");
    for absent in ["public-keys/", "public-ipv4", "public-hostname", "block-device-mapping/", "tags/", "iam/"] {
        assert!(!top.contains(&absent.into()), "{absent}");
    }
    for path in ["user-data", "meta-data/public-keys", "meta-data/public-ipv4", "meta-data/tags"] {
        assert_eq!(tree.get(path), None, "{path}");
    }
}

#[test]
fn tags_are_shown_if_asked_for_and_possible() {
    let mut metadata = Metadata::example();
    metadata.options = "InstanceMetadataTags=enabled".parse().unwrap();
    metadata.tags.insert("ghr:x".into(), String::new());
    metadata.tags.insert("no/slash".into(), "x".into());
    metadata.tags.insert("..".into(), "x".into());
    let tree = Tree::new(&metadata, false);
    assert_eq!(listing(&tree, "meta-data/tags/instance"), ["Name", "ghr:x"]);
    assert_eq!(tree.get("meta-data/tags/instance/ghr:x"), Some(&Node::Leaf(Vec::new())));
}

#[test]
fn a_directory_does_not_hide_a_leaf_with_a_similar_name() {
    let tree = Tree::new(&Metadata::example(), false);
    let Some(Node::Leaf(document)) = tree.get("dynamic/instance-identity/document") else { panic!() };
    assert!(document.starts_with(b"{\n  \"accountId\" : "));
}
