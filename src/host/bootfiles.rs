//! Which kernel, initial RAM disk and command line an instance starts with.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::running::{OpenDisk, StartError};
use super::spec::BootSpec;
use crate::boot::SharedDisk;
use crate::boot::cache::KernelCache;
use crate::boot::plan::{BootPlan, InitrdPolicy, prepare};
use crate::storage::LiveVolume;
use crate::vmm::config::{Initrd, Kernel};

/// What is booted.
pub(super) struct BootFiles {
    pub kernel: Kernel,
    pub initrd: Option<Initrd>,
    pub cmdline: String,
    /// For people.
    pub description: String,
}

/// A kernel given by file is a bzImage of tens of MiB at most, or an ELF file, which is not read.
const MAX_KERNEL: u64 = 256 << 20;

/// The files for the next boot. The image's plan holds for the first only: after that the volume's own files count.
pub(super) fn find(spec: &BootSpec, root: &Arc<LiveVolume>, first: bool) -> Result<BootFiles, StartError> {
    let append = spec.append.as_deref().unwrap_or_default();
    if let Some(kernel) = &spec.kernel {
        return Ok(BootFiles {
            kernel: kernel_file(kernel)?,
            initrd: spec.initrd.as_deref().map(initrd_file).transpose()?,
            cmdline: append.to_owned(),
            description: format!("kernel {}", kernel.display()),
        });
    }
    let (plan, kernel, mut initrd) = from_image(spec, root, first)?;
    if let Some(path) = &spec.initrd {
        initrd = Some(initrd_file(path)?);
    }
    let cmdline = format!("{} {append}", plan.cmdline);
    Ok(BootFiles {
        kernel,
        cmdline: cmdline.trim().to_owned(),
        description: format!("kernel {}, {} initrd", plan.release, if initrd.is_some() { "with" } else { "without" }),
        initrd,
    })
}

fn from_image(
    spec: &BootSpec,
    root: &Arc<LiveVolume>,
    first: bool,
) -> Result<(BootPlan, Kernel, Option<Initrd>), StartError> {
    if let (true, Some(plan), Some(ready)) = (first, &spec.plan, &spec.ready) {
        let initrd = ready.initrd.as_deref().map(initrd_file).transpose()?;
        return Ok((plan.clone(), kernel_file(&ready.kernel)?, initrd));
    }
    let cache = KernelCache::open(&spec.cache)?;
    let policy = if spec.keep_initrd { InitrdPolicy::Always } else { InitrdPolicy::Auto };
    // The image's plan may leave out the initial RAM disk; if that is wanted back, the image is looked at again.
    let planned = spec.plan.as_ref().filter(|plan| first && (!spec.keep_initrd || plan.initrd.is_some()));
    if let Some(plan) = planned
        && let Some((kernel, initrd)) = plan.open(&cache)?
    {
        return Ok((plan.clone(), kernel, initrd));
    }
    let disk: SharedDisk = root.clone();
    let plan = prepare(&disk, &cache, policy, None)?;
    let (kernel, initrd) = plan.open(&cache)?.ok_or("the kernel vanished from the cache")?;
    Ok((plan, kernel, initrd))
}

/// The plan and its unpacked files, for a machine that can't reach the cache: the image's plan, or that of the `volume` as it is.
pub(super) fn paths(spec: &BootSpec, volume: &OpenDisk) -> Result<(BootPlan, PathBuf, Option<PathBuf>), StartError> {
    let cache = KernelCache::open(&spec.cache)?;
    let files = |plan: &BootPlan| {
        let path = |key: &str| cache.path(key).filter(|p| p.is_file());
        let initrd = match &plan.initrd {
            None => None,
            Some(key) => Some(path(key)?),
        };
        Some((plan.clone(), path(&plan.kernel)?, initrd))
    };
    let planned = spec.plan.as_ref().filter(|plan| !spec.keep_initrd || plan.initrd.is_some());
    if let Some(found) = planned.and_then(files) {
        return Ok(found);
    }
    let policy = if spec.keep_initrd { InitrdPolicy::Always } else { InitrdPolicy::Auto };
    let disk = volume()?;
    let plan = prepare(&disk, &cache, policy, None)?;
    files(&plan).ok_or_else(|| "the kernel vanished from the cache".into())
}

pub(super) fn kernel_file(path: &Path) -> Result<Kernel, StartError> {
    let opened = || -> std::io::Result<Kernel> {
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic)?;
        if magic == *b"\x7fELF" {
            return Ok(Kernel::Elf(Arc::new(file)));
        }
        let mut image = magic.to_vec();
        file.take(MAX_KERNEL).read_to_end(&mut image)?;
        Ok(Kernel::BzImage(Arc::new(image)))
    };
    opened().map_err(|e| format!("can't read the kernel {}: {e}", path.display()).into())
}

fn initrd_file(path: &Path) -> Result<Initrd, StartError> {
    match File::open(path) {
        Ok(file) => Ok(Initrd::File(Arc::new(file))),
        Err(e) => Err(format!("can't read the initial RAM disk {}: {e}", path.display()).into()),
    }
}
