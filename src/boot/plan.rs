//! A disk's boot as one value that can be stored with an AMI: cache keys, command line, and what was decided why.
//!
//! Contract: [`prepare`] always looks at the disk's boot configuration, and reads kernel and initial RAM disk only if
//! they differ from those of the plan at hand: by partition, path, size, time stamp, and the first and last 64 KiB (a
//! bzImage begins with its build's version and ends with a checksum). A caller that knows the volume to be unwritten
//! since the plan was made needs no look at all: [`BootPlan::open`].

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::SharedDisk;
use super::cache::{CacheError, KernelCache};
use super::find::{self, BootError, BootFile, Located, MAX_KERNEL};
use super::initrd::{InitrdDecision, initrd_needed};
use super::root::RootFacts;
use super::volume::Volume;
use crate::vmm::config::{Initrd, Kernel};

const SAMPLE: u64 = 64 << 10;

/// What a boot needs, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPlan {
    /// Cache key of the kernel.
    pub kernel: String,
    /// Cache key of the initial RAM disk; `None`: the kernel boots without.
    pub initrd: Option<String>,
    /// The command line.
    pub cmdline: String,
    /// The boot entry's title.
    pub entry: String,
    /// The boot configuration that was followed.
    pub source: String,
    /// The kernel's release.
    pub release: String,
    /// Why there is an initial RAM disk, or none.
    pub initrd_reason: String,
    /// The root partition.
    pub root: Option<RootFacts>,
    /// What the kernel and the initial RAM disks were made from.
    pub files: Vec<FileMark>,
}

/// A file's identity without reading all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// The partition.
    pub partition: u32,
    /// The path in its file system.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// See [`Stat::stamp`](super::fs::Stat::stamp).
    pub stamp: u64,
    /// SHA-256 of the first and last 64 KiB.
    pub sample: String,
}

/// Whether the initial RAM disk may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitrdPolicy {
    /// Leave it out where it is provably not needed.
    #[default]
    Auto,
    /// Always load it if the boot entry has one.
    Always,
}

/// Make a plan for `disk`, or confirm `previous`.
pub fn prepare(
    disk: &SharedDisk,
    cache: &KernelCache,
    policy: InitrdPolicy,
    previous: Option<&BootPlan>,
) -> Result<BootPlan, BootError> {
    let mut volume = find::open(disk)?;
    let located = find::locate(&mut volume)?;
    let decision = match policy {
        _ if located.initrds.is_empty() => {
            InitrdDecision::NotNeeded { reason: "the boot entry has none".into(), cmdline: located.cmdline.clone() }
        }
        InitrdPolicy::Always => InitrdDecision::Needed { reason: "it was asked for".into() },
        InitrdPolicy::Auto => initrd_needed(&mut volume, &located),
    };
    let (cmdline, initrds): (&str, &[BootFile]) = match &decision {
        InitrdDecision::NotNeeded { cmdline, .. } => (cmdline, &[]),
        InitrdDecision::Needed { .. } => (&located.cmdline, &located.initrds),
    };
    let mut files = Vec::new();
    for file in std::iter::once(&located.kernel).chain(initrds) {
        files.push(mark(&mut volume, file)?);
    }
    let same = |p: &&BootPlan| p.files == files && cache.has(&p.kernel) && p.initrd.iter().all(|i| cache.has(i));
    let (kernel, initrd) = match previous.filter(same) {
        Some(plan) => (plan.kernel.clone(), plan.initrd.clone()),
        None => load(&mut volume, cache, &located, initrds)?,
    };
    Ok(BootPlan {
        kernel,
        initrd,
        cmdline: cmdline.to_string(),
        initrd_reason: decision.reason().to_string(),
        entry: located.entry,
        source: located.source,
        release: located.release,
        root: located.root,
        files,
    })
}

fn load(
    volume: &mut Volume,
    cache: &KernelCache,
    located: &Located,
    initrds: &[BootFile],
) -> Result<(String, Option<String>), BootError> {
    let kernel = cache.add_kernel(&find::read(volume, &located.kernel, MAX_KERNEL)?)?;
    let initrd = match initrds {
        [] => None,
        files => Some(cache.add_initrd(&find::read_initrds(volume, files)?)?),
    };
    Ok((kernel, initrd))
}

fn mark(volume: &mut Volume, file: &BootFile) -> Result<FileMark, BootError> {
    let partition = volume.slots().get(file.slot).map_or(0, |s| s.partition.index);
    let unreadable = |reason: String| BootError::Unreadable { file: file.path.clone(), reason };
    let fs = volume.fs(file.slot).ok_or_else(|| unreadable("the file system can't be opened".into()))?;
    let mut sample = || {
        let stat = fs.stat(&file.path)?;
        let mut hash = Sha256::new();
        hash.update(fs.read_range(&file.path, 0, SAMPLE as usize)?);
        hash.update(fs.read_tail(&file.path, SAMPLE)?);
        Ok((stat, hex::encode(hash.finalize())))
    };
    let (stat, sample) = sample().map_err(|e: super::fs::FsError| unreadable(e.to_string()))?;
    Ok(FileMark { partition, path: file.path.clone(), size: stat.size, stamp: stat.stamp, sample })
}

impl BootPlan {
    /// Kernel and initial RAM disk out of the cache; `None` if the cache has lost one of them, then [`prepare`] is due.
    pub fn open(&self, cache: &KernelCache) -> Result<Option<(Kernel, Option<Initrd>)>, CacheError> {
        let Some(kernel) = cache.kernel(&self.kernel)? else { return Ok(None) };
        let initrd = match &self.initrd {
            None => None,
            Some(key) => match cache.initrd(key)? {
                None => return Ok(None),
                found => found,
            },
        };
        Ok(Some((kernel, initrd)))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
