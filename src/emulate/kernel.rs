//! Where the emulated host's kernel comes from: a folder that someone names, amiable's data directory, this machine's
//! own `/boot`, or the file system of an image (through a closure, for this room does not read disks).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names a folder with a kernel (`vmlinuz`) and its modules (`modules/`).
pub const KERNEL_VARIABLE: &str = "AMIABLE_EMULATE_KERNEL";
/// The folder inside amiable's data directory that holds the same.
pub const DATA_FOLDER: &str = "emulated-host";

/// A kernel with its modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// A bzImage, or an ELF file with a PVH note.
    pub image: PathBuf,
    /// A folder below which the modules of that very kernel lie.
    pub modules: PathBuf,
}

/// No kernel was found; what was looked at.
#[derive(Debug, Error)]
#[error(
    "no kernel for the emulated host. Fetch Debian's with `guest-images/build emulated-host`, or name a folder with \
     vmlinuz and modules/ in {KERNEL_VARIABLE}. Looked at:{}",
    looked_at.iter().map(|line| format!("\n  {line}")).collect::<String>()
)]
pub struct NotFound {
    looked_at: Vec<String>,
}

/// Gets a folder with `vmlinuz` and `modules/` out of an image's file system; the text says why it cannot.
pub type FromImage<'a> = &'a dyn Fn() -> Result<PathBuf, String>;

/// Where to look, in this order.
#[derive(Default)]
pub struct Search<'a> {
    /// The value of [`KERNEL_VARIABLE`]. When it is set, nothing else is looked at.
    pub named: Option<PathBuf>,
    /// amiable's data directory.
    pub data: Option<PathBuf>,
    /// The machine's root directory: `boot/vmlinuz-*` and `lib/modules/*` below it.
    pub root: Option<PathBuf>,
    /// An image to take the kernel from.
    pub from_image: Option<FromImage<'a>>,
}

impl Search<'_> {
    /// The first kernel that has all that is needed.
    pub fn find(&self) -> Result<Kernel, NotFound> {
        let mut looked_at = Vec::new();
        if let Some(folder) = &self.named {
            return folder_kernel(folder).map_err(|why| NotFound { looked_at: vec![why] });
        }
        if let Some(data) = &self.data {
            match folder_kernel(&data.join(DATA_FOLDER)) {
                Ok(kernel) => return Ok(kernel),
                Err(why) => looked_at.push(why),
            }
        }
        if let Some(root) = &self.root {
            match installed_kernel(root) {
                Ok(kernel) => return Ok(kernel),
                Err(why) => looked_at.extend(why),
            }
        }
        if let Some(from_image) = self.from_image {
            match from_image().and_then(|folder| folder_kernel(&folder)) {
                Ok(kernel) => return Ok(kernel),
                Err(why) => looked_at.push(why),
            }
        }
        Err(NotFound { looked_at })
    }
}

/// A kernel in a folder of its own: `vmlinux` or `vmlinuz`, and `modules/`.
fn folder_kernel(folder: &Path) -> Result<Kernel, String> {
    let modules = folder.join("modules");
    let image = ["vmlinux", "vmlinuz"]
        .map(|name| folder.join(name))
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{}: no vmlinuz in it", folder.display()))?;
    File::open(&image).map_err(|error| format!("{}: {error}", image.display()))?;
    if !modules.is_dir() {
        return Err(format!("{}: no such folder", modules.display()));
    }
    Ok(Kernel { image, modules })
}

/// A kernel that is installed on this machine: cloud kernels first (small, quick to start), then the newest.
fn installed_kernel(root: &Path) -> Result<Kernel, Vec<String>> {
    let boot = root.join("boot");
    let mut releases: Vec<String> = match fs::read_dir(&boot) {
        Ok(entries) => entries
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
            .collect(),
        Err(error) => return Err(vec![format!("{}: {error}", boot.display())]),
    };
    releases.sort_by_key(|release| (release.contains("cloud"), version(release)));
    let mut looked_at = Vec::new();
    for release in releases.iter().rev() {
        let image = boot.join(format!("vmlinuz-{release}"));
        let modules = root.join("lib/modules").join(release);
        if let Err(error) = File::open(&image) {
            looked_at.push(format!("{}: {error}", image.display()));
        } else if !modules.join("kernel/arch/x86/kvm").is_dir() {
            looked_at.push(format!("{}: no KVM modules for it in {}", image.display(), modules.display()));
        } else {
            return Ok(Kernel { image, modules });
        }
    }
    if looked_at.is_empty() {
        looked_at.push(format!("{}: no kernel installed", boot.display()));
    }
    Err(looked_at)
}

/// The numbers in a kernel's release, for comparing: 6.1.0-9 is older than 6.1.0-10.
fn version(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
