use super::*;

fn host(kernel: &Path) -> EmulatedHost {
    EmulatedHost::new(Kernel { image: kernel.join("vmlinuz"), modules: kernel.to_owned() }, ["--version"])
}

#[test]
fn a_missing_qemu_names_the_package() {
    let text = host(Path::new("/nonexistent")).qemu("no-such-qemu").start().err().unwrap().to_string();
    assert!(text.contains("sudo apt-get install qemu-system-x86"), "{text}");
}

#[test]
fn devices_are_named_in_order() {
    assert_eq!(EmulatedHost::device(0), "/dev/vda");
    assert_eq!(EmulatedHost::device(13), "/dev/vdn");
}
