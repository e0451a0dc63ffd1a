use proptest::prelude::*;

use super::*;
use crate::boot::testing::{self, Tree, have, have_disk_tools, shared};

#[test]
fn a_debian_cloud_image() {
    if !have_disk_tools() {
        return;
    }
    let found = find(&shared(testing::debian_disk(&testing::debian_root()))).unwrap();
    let l = &found.located;
    assert_eq!(l.source, "(hd0,gpt15)/EFI/debian/grub.cfg");
    assert_eq!(l.entry, "Debian GNU/Linux");
    assert_eq!(l.release, "6.1.0-50-cloud-amd64");
    assert!(
        l.cmdline.starts_with("BOOT_IMAGE=/boot/vmlinuz-6.1.0-50-cloud-amd64 root=UUID=11111111-"),
        "{}",
        l.cmdline
    );
    assert!(l.config.as_ref().unwrap().contains("CONFIG_EXT4_FS=y"));
    let root = l.root.as_ref().unwrap();
    assert_eq!((root.partition, root.partuuid.as_deref()), (1, Some(testing::ROOT_PARTUUID)));
    assert_eq!((root.uuid.as_str(), root.label.as_str(), root.table.as_str()), (testing::UUID, "rootfs", "gpt"));
    assert!(found.kernel == testing::kernel("6.1.0-50-cloud-amd64"));
    assert_eq!(found.initrd.unwrap(), b"initrd of 6.1.0-50-cloud-amd64\0\0");
}

#[test]
fn a_damaged_esp_does_not_matter() {
    if !have_disk_tools() {
        return;
    }
    let mut image = testing::debian_disk(&testing::debian_root());
    image[2 << 20..3 << 20].fill(0xff);
    assert_eq!(find(&shared(image)).unwrap().located.source, "(hd0,gpt1)/boot/grub/grub.cfg");
}

#[test]
fn a_separate_boot_partition_with_entries_and_an_xfs_root() {
    if !have(&["mke2fs", "mkfs.xfs", "sfdisk"]) {
        return;
    }
    let release = "6.11.4-301.fc41.x86_64";
    let entry = format!(
        "title Fedora\nversion {release}\nlinux /vmlinuz-{release}\ninitrd /initramfs-{release}.img\noptions $kernelopts\n"
    );
    let boot = Tree::new()
        .file("grub2/grub.cfg", include_str!("fixtures/fedora.cfg"))
        .file("grub2/grubenv", "# GRUB Environment Block\nkernelopts=root=LABEL=fedora ro\n")
        .file("loader/entries/0-6.conf", entry)
        .file(&format!("vmlinuz-{release}"), testing::kernel(release))
        .file(&format!("initramfs-{release}.img"), "i")
        .file(&format!("config-{release}"), "CONFIG_XFS_FS=m\n");
    let root = Tree::new().rootfs();
    let image = testing::disk(
        "dos",
        "label-id: 0xcafe0001",
        &[(1, "type=83, bootable", &testing::ext4(&boot, "boot")), (2, "type=83", &testing::xfs(&root, "fedora"))],
    );
    let found = find(&shared(image)).unwrap().located;
    assert_eq!(found.source, "(hd0,msdos1)/grub2/grub.cfg");
    assert_eq!(found.cmdline, format!("BOOT_IMAGE=(hd0,msdos1)/vmlinuz-{release} root=LABEL=fedora ro"));
    assert_eq!(found.root.unwrap().partuuid.as_deref(), Some("cafe0001-02"));
    assert_eq!(found.config.as_deref(), Some("CONFIG_XFS_FS=m\n"));
}

#[test]
fn a_bare_file_system_with_extlinux() {
    if !have(&["mke2fs"]) {
        return;
    }
    let conf = "DEFAULT virt\nLABEL virt\n LINUX vmlinuz-virt\n INITRD initramfs-virt\n APPEND root=/dev/vda ro\n";
    let tree = Tree::new()
        .rootfs()
        .file("boot/extlinux.conf", conf)
        .file("boot/vmlinuz-virt", testing::kernel("6.6.1-0-virt"))
        .file("boot/initramfs-virt", "i");
    let found = find(&shared(testing::ext4(&tree, ""))).unwrap().located;
    assert_eq!((found.source.as_str(), found.release.as_str()), ("(hd0)/boot/extlinux.conf", "6.6.1-0-virt"));
    assert_eq!(found.cmdline, "BOOT_IMAGE=vmlinuz-virt root=/dev/vda ro");
    assert_eq!(found.root.unwrap().partition, 0);
}

#[test]
fn systemd_boot_on_the_esp() {
    if !have(&["mkfs.vfat", "mcopy"]) {
        return;
    }
    let entry = |release: &str| {
        format!("title Arch {release}\nversion {release}\nlinux /l/{release}\ninitrd /i\noptions root=LABEL=r rw\n")
    };
    let tree = Tree::new()
        .file("loader/loader.conf", "timeout 3\ndefault arch-6.1*\n")
        .file("loader/entries/arch-6.1.conf", entry("6.1"))
        .file("loader/entries/arch-6.2.conf", entry("6.2"))
        .file("l/6.1", testing::kernel("6.1.0-arch"))
        .file("l/6.2", testing::kernel("6.2.0-arch"))
        .file("i", "i");
    let found = find(&shared(testing::fat(&tree, "ESP", "32"))).unwrap().located;
    assert_eq!((found.entry.as_str(), found.cmdline.as_str()), ("Arch 6.1", "root=LABEL=r rw"));
    assert!(found.root.is_none());
}

#[test]
fn nothing_to_boot_is_explained() {
    if !have_disk_tools() {
        return;
    }
    let tree = Tree::new().rootfs().file("boot/grub/grub.cfg", include_str!("fixtures/debian-12.cfg"));
    let mut swap = vec![0; 1 << 20];
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    let image = testing::disk("gpt", "", &[(1, "", &testing::ext4(&tree, "cloud")), (2, "type=S", &swap)]);
    let error = find(&shared(image)).unwrap_err().to_string();
    for part in [
        "partition table: GPT",
        "partition 1 (24 MiB, type 0fc63daf-8483-4772-8e79-3d69d8477de4): ext4, UUID 11111111-2222-3333-4444-555555555555, \
         label \"cloud\"",
        "swap: can't be read here",
        "/boot/grub2/grub.cfg",
        "found (hd0,gpt1)/boot/grub/grub.cfg, but: the configuration loads no kernel (kernel \
         (hd0,gpt1)/boot/vmlinuz-6.1.0-50-cloud-amd64 does not exist",
    ] {
        assert!(error.contains(part), "{part}\n---\n{error}");
    }
    let error = find(&shared(vec![0; 1 << 20])).unwrap_err().to_string();
    assert!(error.contains("partition 0 (1 MiB, whole disk): no known file system"), "{error}");
}

#[test]
fn a_kernel_for_another_machine_is_named() {
    if !have(&["mke2fs"]) {
        return;
    }
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let conf = "LABEL a\n LINUX vmlinuz\n";
    let tree = Tree::new().file("extlinux.conf", conf).file("vmlinuz", arm);
    let error = find(&shared(testing::ext4(&tree, ""))).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("an arm64 kernel"), "{cause}");
}

#[test]
fn patterns() {
    for (pattern, name, answer) in [
        ("*", "", true),
        ("a*c", "abbc", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*-6.1*", "arch-6.1.conf", true),
        ("a", "ab", false),
    ] {
        assert_eq!(matches(pattern, name), answer, "{pattern} {name}");
    }
}

proptest! {
    #[test]
    fn any_disk_ends_in_an_answer(image in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = find(&shared(image));
    }
}
