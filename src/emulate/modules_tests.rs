use std::io::Write;

use super::*;

fn ko(depends: &str) -> Vec<u8> {
    format!("\x7fELF...license=GPL\0depends={depends}\0retpoline=Y\0").into_bytes()
}

fn names(modules: &[Module]) -> Vec<&str> {
    modules.iter().map(|module| module.name.as_str()).collect()
}

#[test]
fn modules_come_after_what_they_depend_on() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("kernel/arch/x86/kvm");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("kvm-amd.ko"), ko("kvm,ccp")).unwrap();
    fs::write(deep.join("kvm.ko"), ko("irqbypass")).unwrap();
    fs::write(folder.path().join("irqbypass.ko"), ko("")).unwrap();
    fs::write(folder.path().join("virtio_net.ko"), ko("net_failover,virtio")).unwrap();
    fs::write(folder.path().join("net_failover.ko"), ko("failover")).unwrap();
    fs::write(folder.path().join("failover.ko"), ko("")).unwrap();
    fs::write(folder.path().join("snd.ko"), ko("")).unwrap();
    let modules = collect(folder.path(), &WANTED).unwrap();
    assert_eq!(names(&modules), ["failover", "net_failover", "virtio_net", "irqbypass", "kvm", "kvm_amd"]);
}

#[test]
fn compressed_modules_are_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&ko("irqbypass")).unwrap();
    fs::write(folder.path().join("kvm.ko.gz"), gz.finish().unwrap()).unwrap();
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(&ko("kvm")).unwrap();
    fs::write(folder.path().join("kvm-amd.ko.xz"), xz.finish().unwrap()).unwrap();
    let zst = ruzstd::encoding::compress_to_vec(&ko("")[..], ruzstd::encoding::CompressionLevel::Fastest);
    fs::write(folder.path().join("irqbypass.ko.zst"), zst).unwrap();
    let modules = collect(folder.path(), &WANTED).unwrap();
    assert_eq!(names(&modules), ["irqbypass", "kvm", "kvm_amd"]);
    assert_eq!(modules[0].content, ko(""));
    assert_eq!(modules[2].content, ko("kvm"));
}

#[test]
fn a_tree_without_kvm_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(collect(folder.path(), &WANTED), Err(Error::NoKvm(_))));
    assert!(matches!(collect(Path::new("/nonexistent"), &WANTED), Err(Error::Read { .. })));
}

#[test]
fn circles_end() {
    let dependencies = BTreeMap::from([("a".to_owned(), vec!["b".to_owned()]), ("b".to_owned(), vec!["a".to_owned()])]);
    assert!(matches!(order(&["a"], &dependencies), Err(Error::Circle(_))));
}

#[test]
fn depends_is_read_from_modinfo() {
    assert_eq!(depends(&ko("rng-core,virtio")), ["rng_core", "virtio"]);
    assert_eq!(depends(b"nothing here"), Vec::<String>::new());
    assert_eq!(depends(b"\0depends="), Vec::<String>::new());
}
