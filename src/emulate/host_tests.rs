use std::fs;

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

#[test]
fn the_initramfs_holds_binary_modules_files_and_plan() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("initramfs");
    let modules = [Module { name: "kvm_amd".into(), content: b"ko".to_vec() }];
    host(temp.path())
        .env("PATH", "/x")
        .file("/etc/note", 0o600, "hello")
        .write_initramfs(&path, b"\x7fELF", &modules)
        .unwrap();
    let archive = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&archive);
    for part in
        ["usr/bin/amiable\0", "init\0", "modules/kvm_amd.ko\0", "etc/note\0", "nameserver 10.0.2.3", "TRAILER!!!"]
    {
        assert!(text.contains(part), "{part}");
    }
    let start = text.find("{\"program\"").unwrap();
    let end = start + text[start..].find('\0').unwrap_or(text.len() - start).min(text[start..].find("070701").unwrap());
    let plan: Plan = serde_json::from_str(text[start..end].trim_end_matches('\0')).unwrap();
    assert_eq!(plan.argv, ["amiable", "--version"]);
    assert_eq!(plan.modules, [(PathBuf::from("/modules/kvm_amd.ko"), "nested=0".to_owned())]);
    assert_eq!(plan.env.iter().filter(|(key, _)| key == "PATH").count(), 1);
}

#[test]
fn the_wait_status_is_handed_back_as_it_is() {
    assert_eq!(exit_status(&(7i32 << 8).to_le_bytes()).unwrap().code(), Some(7));
    assert_eq!(exit_status(&9i32.to_le_bytes()).unwrap().signal(), Some(9));
    assert!(exit_status(b"no").is_none());
}
