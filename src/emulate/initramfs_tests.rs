use std::fs;

use super::*;

#[test]
fn it_holds_binary_modules_files_and_plan() {
    let modules = [Module { name: "kvm_amd".into(), content: b"ko".to_vec() }];
    let files = [("/etc/note".to_owned(), 0o600, b"hello".to_vec())];
    let (_folder, path) = write(b"\x7fELF", &modules, &files).unwrap();
    let archive = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&archive);
    for part in
        ["usr/bin/amiable\0", "init\0", "modules/kvm_amd.ko\0", "etc/note\0", "nameserver 10.0.2.3", "TRAILER!!!"]
    {
        assert!(text.contains(part), "{part}");
    }
    let start = text.find("{\"modules\"").unwrap();
    let end = start + text[start..].find("070701").unwrap();
    let plan: Plan = serde_json::from_str(text[start..end].trim_end_matches('\0')).unwrap();
    assert_eq!(plan.modules, [(PathBuf::from("/modules/kvm_amd.ko"), "nested=0".to_owned())]);
}
