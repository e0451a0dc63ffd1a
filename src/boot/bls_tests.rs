use proptest::prelude::*;

use super::*;

#[test]
fn an_entry_of_amazon_linux() {
    let text = b"title Amazon Linux (6.1.109-118.189.amzn2023.x86_64) 2023\nversion 6.1.109-118.189.amzn2023.x86_64\n\
        linux /boot/vmlinuz-6.1.109-118.189.amzn2023.x86_64\n\
        initrd /boot/initramfs-6.1.109-118.189.amzn2023.x86_64.img $tuned_initrd\n\
        options root=UUID=0d1d2e $kernelopts\noptions quiet\n# options ignored\ngrub_users $grub_users\n";
    let entry = parse("4c5a-6.1.109-118.189.amzn2023.x86_64.conf", text);
    assert_eq!(entry.id, "4c5a-6.1.109-118.189.amzn2023.x86_64");
    assert_eq!(entry.linux, "/boot/vmlinuz-6.1.109-118.189.amzn2023.x86_64");
    assert_eq!(entry.initrd, ["/boot/initramfs-6.1.109-118.189.amzn2023.x86_64.img", "$tuned_initrd"]);
    assert_eq!(entry.options.as_deref(), Some("root=UUID=0d1d2e $kernelopts quiet"));
    assert!(entry.bootable);
    assert!(!parse("x.conf", b"architecture aa64\n").bootable);
}

#[test]
fn boot_counters_are_not_part_of_the_id() {
    let entry = parse("fedora-6.5+0-3.conf", b"");
    assert_eq!((entry.id.as_str(), entry.tries_left), ("fedora-6.5", Some(0)));
    assert_eq!(parse("g++.conf", b"").id, "g++");
}

/// The list of UAPI.10, each older than the one behind it.
#[test]
fn versions_in_the_order_of_the_specification() {
    let order = [
        "122.1",
        "123~rc1-1",
        "123",
        "123-a",
        "123-a.1",
        "123-1",
        "123-1.1",
        "123^post1",
        "123.a-1",
        "123.1-1",
        "123a-1",
        "124-1",
    ];
    for (i, a) in order.iter().enumerate() {
        for (j, b) in order.iter().enumerate() {
            assert_eq!(compare_versions(a, b), i.cmp(&j), "{a} {b}");
        }
    }
    assert_eq!(compare_versions("6.1.0-9", "6.1.0-10"), Ordering::Less);
    assert_eq!(compare_versions("1_2", "1.2"), Ordering::Greater);
    assert_eq!(compare_versions("5.010", "5.10"), Ordering::Equal);
}

#[test]
fn default_is_the_newest_with_tries_left() {
    let entry =
        |name: &str, key: &str, version: &str| parse(name, format!("sort-key {key}\nversion {version}\n").as_bytes());
    let mut entries = [
        entry("a.conf", "fedora", "6.5"),
        entry("b+0.conf", "fedora", "6.7"),
        entry("c.conf", "fedora", "6.6"),
        parse("zzz.conf", b""),
    ];
    entries.sort_by(by_specification);
    let ids: Vec<_> = entries.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["c", "a", "zzz", "b"]);
}

proptest! {
    #[test]
    fn comparing_is_an_order(a in "[~^.a-c0-2-]{0,8}", b in "[~^.a-c0-2-]{0,8}", c in "[~^.a-c0-2-]{0,8}") {
        prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
        if compare_versions(&a, &b).is_le() && compare_versions(&b, &c).is_le() {
            prop_assert!(compare_versions(&a, &c).is_le());
        }
    }

    #[test]
    fn any_bytes_parse(name in ".{0,20}", bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        parse(&name, &bytes);
        fuzz(&bytes);
    }
}
