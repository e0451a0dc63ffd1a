use super::*;
use crate::boot::find;
use crate::boot::testing::{self, ROOT_PARTUUID, Tree, have_disk_tools, shared};

fn decide(root: &Tree) -> InitrdDecision {
    decide_with(root, |_| {})
}

fn decide_with(root: &Tree, change: impl FnOnce(&mut Located)) -> InitrdDecision {
    let mut volume = find::open(&shared(testing::debian_disk(root))).unwrap();
    let mut located = find::locate(&mut volume).unwrap();
    change(&mut located);
    initrd_needed(&mut volume, &located)
}

#[test]
fn debian_boots_without_and_only_root_changes() {
    if !have_disk_tools() {
        return;
    }
    let InitrdDecision::NotNeeded { reason, cmdline } = decide(&testing::debian_root()) else { panic!() };
    assert_eq!(
        cmdline,
        format!(
            "BOOT_IMAGE=/boot/vmlinuz-6.1.0-50-cloud-amd64 root=PARTUUID={ROOT_PARTUUID} ro console=tty0 \
             console=ttyS0,115200 consoleblank=0"
        )
    );
    assert!(reason.contains("ext4 and NVMe are built into the kernel"), "{reason}");
}

#[test]
fn what_the_image_says_can_keep_it() {
    if !have_disk_tools() {
        return;
    }
    for (file, text, reason) in [
        ("etc/crypttab", "# none\nroot UUID=x none luks\n", "crypttab"),
        ("etc/fstab", "/dev/sdb1 /usr ext4 defaults 0 0\n", "/usr separately"),
        ("etc/mdadm/mdadm.conf", "ARRAY /dev/md0 UUID=x\n", "names arrays"),
        ("etc/overlayroot.conf", "overlayroot=\"tmpfs\"\n", "overlay"),
        ("etc/initramfs-tools/scripts/init-premount/mine", "#!/bin/sh\n", "scripts of its own"),
        ("boot/config-6.1.0-50-cloud-amd64", "CONFIG_EXT4_FS=m\n", "CONFIG_EXT4_FS is not built in"),
        ("boot/config-6.1.0-50-cloud-amd64", "CONFIG_EXT4_FS=y\nCONFIG_BLK_DEV_NVME=m\n", "CONFIG_BLK_DEV_NVME is not"),
    ] {
        let decision = decide(&testing::debian_root().file(file, text));
        assert!(
            matches!(&decision, InitrdDecision::Needed { reason: r } if r.contains(reason)),
            "{file}: {decision:?}"
        );
    }
}

#[test]
fn the_command_line_can_keep_it() {
    let facts = RootFacts {
        partition: 1,
        partuuid: Some("cafe0001-01".into()),
        uuid: "u".into(),
        label: "l".into(),
        fs: FsKind::Ext4,
        table: "mbr".into(),
    };
    let check = |cmdline: &str| check_cmdline(cmdline, &facts);
    assert_eq!(check("a root=LABEL=l  ro").unwrap(), "a root=PARTUUID=cafe0001-01  ro");
    assert_eq!(check("root=/dev/disk/by-uuid/u").unwrap(), "root=PARTUUID=cafe0001-01");
    for same in ["root=/dev/nvme0n1p1 ro", "x root=PARTUUID=CAFE0001-01", "root=PARTUUID=x -- rd.break root=y"] {
        assert_eq!(check(same).unwrap(), same);
    }
    for needed in [
        "root=/dev/mapper/vg-root",
        "root=/dev/sda1",
        "root=UUID=u rd.luks.uuid=x",
        "root=UUID=u resume=/dev/sda2",
        "root=UUID=u cryptdevice=x",
        "root=UUID=u root=UUID=v",
        "ro",
        "root=zfs:rpool",
        "root=UUID=u ip=dhcp",
        "boot=live root=UUID=u",
    ] {
        assert!(check(needed).is_err(), "{needed}");
    }
    let whole = RootFacts { partuuid: None, ..facts };
    assert!(check_cmdline("root=UUID=u", &whole).is_err());
}

#[test]
fn a_raid_leg_keeps_it() {
    if !have_disk_tools() {
        return;
    }
    let mut image = testing::debian_disk(&testing::debian_root());
    // md metadata 1.0: 8 KiB before the end of the root partition, which is the last.
    let end = crate::boot::partitions::read(&image).unwrap().partitions[0].clone();
    let at = (end.start + end.length - 8192) as usize;
    image[at..at + 4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    let mut volume = find::open(&shared(image)).unwrap();
    let located = find::locate(&mut volume).unwrap();
    assert!(initrd_needed(&mut volume, &located).reason().contains("RAID"));
}

#[test]
fn without_a_configuration_it_stays() {
    if !have_disk_tools() {
        return;
    }
    let decision = decide_with(&testing::debian_root(), |l| l.config = None);
    assert!(decision.reason().contains("build configuration is not in the image"));
    // What root= names is not there, or is there twice: a guess is not good enough.
    for spec in ["UUID=99999999-2222-3333-4444-555555555555", "PARTUUID=cafe0001-01", "LABEL=rootfs2", "/dev/nvme0n1p3"]
    {
        let decision = decide_with(&testing::debian_root(), |l| l.cmdline = format!("root={spec} ro"));
        assert!(decision.reason().contains("does not name exactly one"), "{spec}: {decision:?}");
    }
    let decision = decide_with(&testing::debian_root(), |l| l.root_slot = None);
    assert!(decision.reason().contains("not known"));
}

#[test]
fn two_partitions_of_one_uuid_keep_it() {
    if !testing::have(&["mke2fs", "sfdisk"]) {
        return;
    }
    let root = testing::ext4(&testing::debian_root(), "rootfs");
    let mut volume = find::open(&shared(testing::disk("gpt", "", &[(1, "", &root), (2, "", &root)]))).unwrap();
    let located = find::locate(&mut volume).unwrap();
    let decision = initrd_needed(&mut volume, &located);
    assert!(decision.reason().contains("does not name exactly one"), "{decision:?}");
}
