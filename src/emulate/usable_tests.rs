use super::*;

const INTEL: &str = "processor\t: 0\nflags\t\t: fpu vme msr vmx sse2\nbugs\t\t: spectre_v1\n";
const AMD: &str = "processor\t: 0\nflags\t\t: fpu svm npt\n";
const NONE: &str = "processor\t: 0\nflags\t\t: fpu vmxnet svmx\n";

fn os(code: i32) -> io::Result<i32> {
    Err(io::Error::from_raw_os_error(code))
}

#[test]
fn hardware_kvm_is_usable() {
    assert_eq!(judge(Ok(12), INTEL), Ok(()));
    assert_eq!(judge(Ok(12), AMD), Ok(()));
}

#[test]
fn kvm_without_the_processors_flag_is_software() {
    assert_eq!(judge(Ok(12), NONE), Err(NotUsable::Software));
    assert_eq!(judge(Ok(12), ""), Err(NotUsable::Software));
}

#[test]
fn a_missing_device_says_what_to_do() {
    assert_eq!(judge(os(libc::ENOENT), NONE), Err(NotUsable::NoHardware));
    let text = judge(os(libc::ENOENT), AMD).unwrap_err().to_string();
    assert!(text.contains("sudo modprobe kvm_amd"), "{text}");
    assert!(judge(os(libc::ENODEV), INTEL).unwrap_err().to_string().contains("kvm_intel"));
}

#[test]
fn a_permission_error_names_the_command() {
    let text = judge(os(libc::EACCES), INTEL).unwrap_err().to_string();
    assert!(text.contains("sudo usermod -aG kvm $USER"), "{text}");
}

#[test]
fn other_versions_and_errors_are_told_apart() {
    assert_eq!(judge(Ok(11), INTEL), Err(NotUsable::ApiVersion(11)));
    assert!(matches!(judge(os(libc::EMFILE), INTEL), Err(NotUsable::Open(_))));
}

#[test]
fn one_processor_speaks_for_all() {
    let (first, all) = (first_processor().unwrap(), std::fs::read_to_string("/proc/cpuinfo").unwrap());
    assert!(first.len() <= all.len());
    assert_eq!(first.lines().filter(|line| line.starts_with("flags")).count(), 1);
    assert_eq!(hardware(&first), hardware(&all));
}
