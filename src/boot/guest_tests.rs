use super::*;
use crate::boot::testing::{self, Tree, have, have_disk_tools, shared};

#[test]
fn files_below_the_root_and_below_a_mount() {
    if !have_disk_tools() {
        return;
    }
    let tree = testing::debian_root()
        .file("var/lib/cloud/data/result.json", "{}")
        .link("var/lib/cloud/instance", "data")
        .dir("boot/efi");
    let mut root = open_root(&shared(testing::debian_disk(&tree))).unwrap();
    assert_eq!(root.facts().partition, 1);
    assert_eq!(root.read("/var/lib/cloud/instance/result.json", 100).unwrap(), b"{}");
    assert_eq!(root.list("/var/lib/cloud").unwrap(), ["data", "instance"]);
    assert_eq!(root.list("/boot/efi").unwrap(), ["EFI"]);
    assert!(root.read("boot/efi/EFI/debian/grub.cfg", 1000).unwrap().starts_with(b"search.fs_uuid"));
    assert!(root.exists("/boot/grub/grub.cfg") && !root.exists("/boot/efi/nothing") && !root.exists("/boot/efix"));
    assert_eq!(root.read_tail("/etc/os-release", 3).unwrap(), b"an\n");
}

#[test]
fn without_a_boot_configuration_the_root_is_found_by_content() {
    if !have(&["mke2fs", "sfdisk"]) {
        return;
    }
    let (data, root) = (Tree::new().file("data", "x"), Tree::new().rootfs().file("etc/hostname", "h"));
    let image = testing::disk("gpt", "", &[(1, "", &testing::ext4(&data, "d")), (2, "", &testing::ext4(&root, "r"))]);
    let mut found = open_root(&shared(image)).unwrap();
    assert_eq!((found.facts().partition, found.read("/etc/hostname", 9).unwrap()), (2, b"h".to_vec()));
    let error = open_root(&shared(vec![0; 1 << 20])).err().unwrap().to_string();
    assert!(error.contains("no partition holds one"), "{error}");
}

#[test]
fn a_btrfs_root_below_the_top_level() {
    if !have(&["mkfs.btrfs"]) {
        return;
    }
    // A plain directory stands in for the subvolume: opening it as one must fail cleanly, and the view stays the top.
    let tree = Tree::new().file("root/etc/os-release", "ID=fedora\n").dir("root/usr/sbin");
    let error = open_root(&shared(testing::btrfs(&tree, "fedora"))).err().unwrap().to_string();
    assert!(error.contains("not resolve to a subvolume root"), "{error}");
    let plain = Tree::new().rootfs();
    let mut root = open_root(&shared(testing::btrfs(&plain, "fedora"))).unwrap();
    assert_eq!(root.read("/etc/os-release", 100).unwrap(), b"ID=debian\n");
}

#[test]
fn fstab_lines() {
    let text = "# comment\nUUID=a / ext4 defaults 0 1\n\nLABEL=b\t/boot/\text4\tdefaults\nc none swap sw 0 0\n\
                UUID=d /home btrfs compress=zstd:1,subvol=home 0 0\n";
    let found = fstab_entries(text);
    let directories: Vec<_> = found.iter().map(|m| m.directory.as_str()).collect();
    assert_eq!(directories, ["/boot", "/home"]);
    assert_eq!(subvolume(&found[1].options), Subvolume::Path("home"));
    assert_eq!(subvolume("subvolid=256"), Subvolume::Id(256));
    assert_eq!(subvolume("defaults"), Subvolume::Default);
}
