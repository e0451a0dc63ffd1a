use super::*;

fn install(root: &Path, release: &str, kvm: bool) {
    fs::create_dir_all(root.join("boot")).unwrap();
    fs::write(root.join("boot").join(format!("vmlinuz-{release}")), "kernel").unwrap();
    let modules = root.join("lib/modules").join(release).join("kernel/arch/x86");
    fs::create_dir_all(if kvm { modules.join("kvm") } else { modules }).unwrap();
}

fn folder(at: &Path) {
    fs::create_dir_all(at.join("modules")).unwrap();
    fs::write(at.join("vmlinuz"), "kernel").unwrap();
}

#[test]
fn a_named_folder_is_the_only_one_looked_at() {
    let temp = tempfile::tempdir().unwrap();
    folder(&temp.path().join("data").join(DATA_FOLDER));
    let search =
        Search { named: Some(temp.path().join("named")), data: Some(temp.path().join("data")), ..Search::default() };
    let text = search.find().unwrap_err().to_string();
    assert!(text.contains("named: no vmlinuz in it"), "{text}");
    folder(&temp.path().join("named"));
    assert_eq!(search.find().unwrap().image, temp.path().join("named/vmlinuz"));
}

#[test]
fn the_data_directory_comes_before_installed_kernels() {
    let temp = tempfile::tempdir().unwrap();
    install(temp.path(), "6.1.0-50-cloud-amd64", true);
    let search = Search { data: Some(temp.path().to_owned()), root: Some(temp.path().to_owned()), ..Search::default() };
    assert!(search.find().unwrap().image.ends_with("boot/vmlinuz-6.1.0-50-cloud-amd64"));
    folder(&temp.path().join(DATA_FOLDER));
    assert!(search.find().unwrap().image.ends_with("emulated-host/vmlinuz"));
}

#[test]
fn of_installed_kernels_the_newest_cloud_kernel_with_kvm_is_taken() {
    let temp = tempfile::tempdir().unwrap();
    for (release, kvm) in [
        ("6.12.1-amd64", true),
        ("6.1.0-9-cloud-amd64", true),
        ("6.1.0-10-cloud-amd64", true),
        ("6.1.0-11-cloud-amd64", false),
    ] {
        install(temp.path(), release, kvm);
    }
    let kernel = installed_kernel(temp.path()).unwrap();
    assert!(kernel.image.ends_with("vmlinuz-6.1.0-10-cloud-amd64"), "{kernel:?}");
    assert!(kernel.modules.ends_with("lib/modules/6.1.0-10-cloud-amd64"));
}

#[test]
fn the_image_is_asked_last_and_the_error_lists_every_place() {
    let temp = tempfile::tempdir().unwrap();
    let refuse = || Err("debian-12: no kernel in it".to_owned());
    let mut search = Search { root: Some(temp.path().to_owned()), from_image: Some(&refuse), ..Search::default() };
    let text = search.find().unwrap_err().to_string();
    assert!(text.contains("guest-images/build emulated-host"), "{text}");
    assert!(text.contains("debian-12: no kernel in it") && text.contains("boot: "), "{text}");
    let taken = temp.path().join("taken");
    folder(&taken);
    let give = || Ok(taken.clone());
    search.from_image = Some(&give);
    assert_eq!(search.find().unwrap().modules, taken.join("modules"));
}
