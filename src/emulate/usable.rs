//! Whether `/dev/kvm` of this machine can run real guests, and if not, why and what mends it.
//!
//! "KVM opens" is not "KVM usable": inside some virtual machines `/dev/kvm` is a KVM without hardware virtualisation,
//! which emulates 64-bit kernel code and stops at instructions it does not know. Usable means that the device opens, is
//! API version 12, and that the processor has `vmx` or `svm`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use kvm_ioctls::Kvm;
use thiserror::Error;

/// The only KVM API version there is (since Linux 2.6.22).
const KVM_API_VERSION: i32 = 12;

/// Why KVM cannot be used, with the exact next command where there is one.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotUsable {
    /// No `/dev/kvm`, and the processor has no virtualisation to offer.
    #[error(
        "/dev/kvm is missing and this processor shows neither vmx nor svm: switch hardware virtualisation on in the \
         firmware, or, in a virtual machine, nested virtualisation in its host"
    )]
    NoHardware,
    /// No `/dev/kvm`, but the processor could.
    #[error("/dev/kvm is missing although the processor has {flag}: load the driver with `sudo modprobe {module}`")]
    NoDriver {
        /// The processor's flag.
        flag: &'static str,
        /// The kernel module for it.
        module: &'static str,
    },
    /// The user may not open the device.
    #[error(
        "/dev/kvm is there, but this user may not open it: `sudo usermod -aG kvm $USER`, then log in again (or for \
         now: `sudo chmod 0666 /dev/kvm`)"
    )]
    Permission,
    /// It opens, but cannot run real kernels.
    #[error(
        "/dev/kvm is a KVM in software (the processor shows neither vmx nor svm): stock kernels do not run on it. \
         In a virtual machine, nested virtualisation in its host helps"
    )]
    Software,
    /// A KVM of another kind.
    #[error("/dev/kvm speaks API version {0}, and amiable needs {KVM_API_VERSION}")]
    ApiVersion(i32),
    /// Any other error of opening it.
    #[error("/dev/kvm does not open: {0}")]
    Open(String),
}

/// An environment variable that takes a KVM in software for usable: programs without an operating system run on it, which is enough
/// for this project's own tests.
pub const ANY_KVM_VARIABLE: &str = "AMIABLE_ANY_KVM";

/// Whether real guests run on this machine's KVM.
pub fn kvm_usable() -> Result<(), NotUsable> {
    let opened =
        Kvm::new().map(|kvm| kvm.get_api_version()).map_err(|error| io::Error::from_raw_os_error(error.errno()));
    match judge(opened, &first_processor().unwrap_or_default()) {
        Err(NotUsable::Software) if std::env::var_os(ANY_KVM_VARIABLE).is_some_and(|v| v == "1") => Ok(()),
        other => other,
    }
}

/// The beginning of `/proc/cpuinfo`, up to the first processor's flags: where there are hundreds, the rest takes milliseconds.
fn first_processor() -> io::Result<String> {
    let mut text = String::new();
    let mut lines = BufReader::new(File::open("/proc/cpuinfo")?);
    let mut begun = 0;
    while lines.read_line(&mut text)? > 0 && !text[begun..].starts_with("flags") {
        begun = text.len();
    }
    Ok(text)
}

/// The verdict from what opening `/dev/kvm` gave (its API version) and from the text of `/proc/cpuinfo`.
fn judge(opened: io::Result<i32>, cpuinfo: &str) -> Result<(), NotUsable> {
    let hardware = hardware(cpuinfo);
    match opened {
        Ok(KVM_API_VERSION) if hardware.is_some() => Ok(()),
        Ok(KVM_API_VERSION) => Err(NotUsable::Software),
        Ok(version) => Err(NotUsable::ApiVersion(version)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(NotUsable::Permission),
        // ENODEV and ENXIO: the node exists (a container's, udev's static nodes), the driver behind it does not.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) =>
        {
            Err(match hardware {
                Some((flag, module)) => NotUsable::NoDriver { flag, module },
                None => NotUsable::NoHardware,
            })
        }
        Err(error) => Err(NotUsable::Open(error.to_string())),
    }
}

/// The processor's virtualisation: its flag and its kernel module.
fn hardware(cpuinfo: &str) -> Option<(&'static str, &'static str)> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?.split_once(':')?.1;
    flags.split_whitespace().find_map(|flag| match flag {
        "vmx" => Some(("vmx", "kvm_intel")),
        "svm" => Some(("svm", "kvm_amd")),
        _ => None,
    })
}

#[cfg(test)]
#[path = "usable_tests.rs"]
mod tests;
