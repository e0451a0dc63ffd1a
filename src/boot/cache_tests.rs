use std::io::Read;

use super::*;
use crate::boot::testing::{bzimage, elf, kernel};

#[test]
fn a_kernel_is_unpacked_once() {
    let dir = tempfile::TempDir::new().unwrap();
    let cache = KernelCache::open(dir.path()).unwrap();
    let key = cache.add_kernel(&kernel("6.1.0")).unwrap();
    assert!(key.ends_with(".elf"));
    let Some(Kernel::Elf(file)) = cache.kernel(&key).unwrap() else { panic!() };
    let mut bytes = Vec::new();
    file.as_ref().read_to_end(&mut bytes).unwrap();
    assert!(bytes == elf());
    let made = fs::metadata(cache.path(&key).unwrap()).unwrap().modified().unwrap();
    assert_eq!(cache.add_kernel(&kernel("6.1.0")).unwrap(), key);
    assert_eq!(fs::metadata(cache.path(&key).unwrap()).unwrap().modified().unwrap(), made);
    assert!(cache.add_kernel(&elf()).unwrap().ends_with(".elf"), "an ELF kernel is taken as it is");
    assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn what_does_not_unpack_stays_a_bzimage() {
    let dir = tempfile::TempDir::new().unwrap();
    let cache = KernelCache::open(dir.path()).unwrap();
    let image = bzimage("6.1.0", b"BZh9 is bzip2, which nobody uses");
    let key = cache.add_kernel(&image).unwrap();
    assert!(matches!(cache.kernel(&key).unwrap(), Some(Kernel::BzImage(bytes)) if *bytes == image));
    assert_eq!(cache.add_kernel(&image).unwrap(), key);
    assert!(cache.add_kernel(b"text").is_err());
}

#[test]
fn initrds_are_aligned_and_joined() {
    let dir = tempfile::TempDir::new().unwrap();
    let cache = KernelCache::open(dir.path()).unwrap();
    let key = cache.add_initrd(&[b"abcde".to_vec(), b"fg".to_vec()]).unwrap();
    let Some(Initrd::File(file)) = cache.initrd(&key).unwrap() else { panic!() };
    let mut bytes = Vec::new();
    (&*file).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"abcde\0\0\0fg\0\0");
    assert_eq!(bytes, concatenate(&[b"abcde".to_vec(), b"fg".to_vec()]));
}

#[test]
fn keys_name_nothing_outside() {
    let dir = tempfile::TempDir::new().unwrap();
    let cache = KernelCache::open(dir.path()).unwrap();
    let hash = "a".repeat(64);
    for key in
        ["../../etc/passwd", "", ".elf", &format!("{hash}.elf/../x"), &format!("{hash}.txt"), &format!("{hash}.elf")]
    {
        assert!(!cache.has(key) && cache.kernel(key).unwrap().is_none(), "{key}");
    }
}
