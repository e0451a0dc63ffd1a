use super::*;
use crate::boot::testing::{self, Tree, have_disk_tools, shared};

fn disk(root: &Tree) -> SharedDisk {
    shared(testing::debian_disk(root))
}

#[test]
fn a_plan_is_made_once_and_stays_while_the_files_do() {
    if !have_disk_tools() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let cache = KernelCache::open(dir.path()).unwrap();
    let volume = disk(&testing::debian_root());
    let plan = prepare(&volume, &cache, InitrdPolicy::Auto, None).unwrap();
    assert_eq!((plan.release.as_str(), plan.initrd.as_deref()), ("6.1.0-50-cloud-amd64", None));
    assert!(plan.cmdline.contains("root=PARTUUID=") && plan.initrd_reason.contains("built into the kernel"));
    let stored: BootPlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(stored, plan);
    let (kernel, initrd) = stored.open(&cache).unwrap().unwrap();
    assert!(matches!(kernel, Kernel::Elf(_)) && initrd.is_none());

    // A plan whose key says something else proves that a confirmed plan is not read again.
    let other = cache.add_kernel(&testing::kernel("other")).unwrap();
    let marked = BootPlan { kernel: other.clone(), ..plan.clone() };
    assert_eq!(prepare(&volume, &cache, InitrdPolicy::Auto, Some(&marked)).unwrap().kernel, other);

    // The same release with other contents, as a package's rebuild: same path, same size.
    let mut rebuilt = testing::kernel("6.1.0-50-cloud-amd64");
    let last = rebuilt.len() - 1;
    rebuilt[last] ^= 1;
    let changed = disk(&testing::debian_root().file("boot/vmlinuz-6.1.0-50-cloud-amd64", &rebuilt));
    let new = prepare(&changed, &cache, InitrdPolicy::Auto, Some(&marked)).unwrap();
    assert!(new.kernel != other && new.kernel != plan.kernel);

    // A lost cache is filled again.
    std::fs::remove_dir_all(dir.path()).unwrap();
    let cache = KernelCache::open(dir.path()).unwrap();
    assert!(plan.open(&cache).unwrap().is_none());
    assert_eq!(prepare(&volume, &cache, InitrdPolicy::Auto, Some(&plan)).unwrap(), plan);
    assert!(plan.open(&cache).unwrap().is_some());
}

#[test]
fn with_the_initial_ram_disk() {
    if !have_disk_tools() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let cache = KernelCache::open(dir.path()).unwrap();
    let volume = disk(&testing::debian_root());
    let plan = prepare(&volume, &cache, InitrdPolicy::Always, None).unwrap();
    assert!(plan.cmdline.contains("root=UUID=") && plan.files.len() == 2);
    let (_, initrd) = plan.open(&cache).unwrap().unwrap();
    assert!(matches!(initrd, Some(Initrd::File(_))));
    let auto = prepare(&volume, &cache, InitrdPolicy::Auto, Some(&plan)).unwrap();
    assert_eq!((auto.initrd, auto.kernel), (None, plan.kernel));
}
