use std::net::Ipv4Addr;

use super::*;

fn line(icount: bool, drives: &[Drive], forwards: &[Forward]) -> String {
    let config = Config {
        kernel: Path::new("/k/vmlinuz"),
        initramfs: Path::new("/t/initramfs"),
        memory_mib: 1024,
        cpus: 2,
        icount,
        drives,
        forwards,
        control: None,
    };
    let words: Vec<_> = arguments(&config).into_iter().map(|word| word.into_string().unwrap()).collect();
    words.join(" ")
}

#[test]
fn the_recipe_is_tcg_with_nested_svm() {
    let line = line(false, &[], &[]);
    for part in [
        "-accel tcg,thread=multi ",
        "-cpu max,+svm,+npt,-erms,-la57 ",
        "-m 1024 -smp 3",
        "-no-reboot",
        "-kernel /k/vmlinuz -initrd /t/initramfs",
        "mitigations=off",
        "-netdev user,id=net ",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!line.contains("icount"));
}

#[test]
fn icount_makes_the_clock_count_instructions() {
    assert!(line(true, &[], &[]).contains("-accel tcg,thread=single -icount shift=0,sleep=off"));
}

#[test]
fn forwards_name_both_ends() {
    let forward = |protocol| Forward { protocol, host: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2222), port: 22 };
    let line = line(false, &[], &[forward(Protocol::Tcp), forward(Protocol::Udp)]);
    assert!(line.contains("user,id=net,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp:127.0.0.1:2222-:22"), "{line}");
}

#[test]
fn drives_come_in_order_and_their_names_cannot_add_options() {
    let drives = [
        Drive { path: "/a,readonly=off".into(), read_only: true, cache: Cache::Unsafe },
        Drive { path: "nbd:host".into(), read_only: false, cache: Cache::Writeback },
    ];
    let line = line(false, &drives, &[]);
    assert!(line.contains(
        "-drive if=none,id=drive0,driver=raw,readonly=on,cache=unsafe,discard=unmap,file.driver=file,\
         file.filename=/a,,readonly=off -device virtio-blk-pci,addr=0x10,drive=drive0"
    ));
    assert!(line.contains(
        "id=drive1,driver=raw,readonly=off,cache=writeback,discard=unmap,file.driver=file,file.filename=nbd:host \
         -device virtio-blk-pci,addr=0x11,drive=drive1"
    ));
}
