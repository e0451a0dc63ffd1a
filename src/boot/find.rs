//! The search for what a disk boots: GRUB's configuration (through the EFI system partition's, if there is one), Boot
//! Loader Specification entries, EXTLINUX.
//!
//! Contract: [`locate`] reads configuration only (a few milliseconds); [`find`] reads the kernel and initial RAM disks as
//! well. The disk decides everything here, so all it names is bounded. GRUB's one-time entry (`next_entry`) is honoured
//! but not cleared, since nothing is written.

#![forbid(unsafe_code)]

use super::SharedDisk;
use super::bls;
use super::extlinux;
use super::fs::FileKind;
use super::grub::{self, Loaded, Place};
use super::kernel::{self, HEADER_BYTES};
use super::partitions::PartitionError;
use super::root::{self, RootFacts};
use super::volume::Volume;

mod error;
pub use error::{BootError, Tried};

/// A kernel has 8 to 20 MB, with all drivers built in perhaps 60.
pub const MAX_KERNEL: u64 = 256 << 20;
/// All initial RAM disks together; Ubuntu's largest have about 120 MB.
pub const MAX_INITRD: u64 = 512 << 20;
const MAX_CONFIG: u64 = 1 << 20;

/// Configuration files of GRUB, by how sure one is that the firmware would end there.
const GRUB_CONFIGS: [&str; 4] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"];
const ENTRY_DIRECTORIES: [&str; 2] = ["/loader/entries", "/boot/loader/entries"];
const EXTLINUX_CONFIGS: [&str; 7] = [
    "/boot/extlinux.conf",
    "/boot/extlinux/extlinux.conf",
    "/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/syslinux/syslinux.cfg",
    "/syslinux.cfg",
];

/// A file on one of the disk's partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    /// Which of [`Volume::slots`].
    pub slot: usize,
    /// Its path there.
    pub path: String,
}

/// What the disk boots, before the large files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The configuration that led here, e.g. `(hd0,gpt1)/boot/grub/grub.cfg`.
    pub source: String,
    /// The boot entry's title.
    pub entry: String,
    /// The kernel.
    pub kernel: BootFile,
    /// Initial RAM disks, in order.
    pub initrds: Vec<BootFile>,
    /// The command line.
    pub cmdline: String,
    /// Which of [`Volume::slots`] holds the root file system.
    pub root_slot: Option<usize>,
    /// The root file system's partition.
    pub root: Option<RootFacts>,
    /// The kernel's release, as `uname -r` says it; empty if unknown.
    pub release: String,
    /// The kernel's build configuration (`/boot/config-RELEASE`), if the disk has it.
    pub config: Option<String>,
}

/// All that it takes to start the disk's kernel.
#[derive(Clone, Debug)]
pub struct BootFiles {
    /// What was found where.
    pub located: Located,
    /// The kernel file.
    pub kernel: Vec<u8>,
    /// The initial RAM disks as one, if there are any.
    pub initrd: Option<Vec<u8>>,
}

/// Find and read a disk's boot files.
pub fn find(disk: &SharedDisk) -> Result<BootFiles, BootError> {
    let mut volume = open(disk)?;
    let located = locate(&mut volume)?;
    let kernel = read(&mut volume, &located.kernel, MAX_KERNEL)?;
    let parts = read_initrds(&mut volume, &located.initrds)?;
    let initrd = (!parts.is_empty()).then(|| super::cache::concatenate(&parts));
    Ok(BootFiles { located, kernel, initrd })
}

/// Look into a disk.
pub fn open(disk: &SharedDisk) -> Result<Volume, BootError> {
    Volume::open(disk).map_err(|e: PartitionError| BootError::Partitions(e))
}

/// Read one of the located files.
pub fn read(volume: &mut Volume, file: &BootFile, max: u64) -> Result<Vec<u8>, BootError> {
    let name = format!("({}){}", volume.grub_name(file.slot), file.path);
    let unreadable = |reason: String| BootError::Unreadable { file: name.clone(), reason };
    let fs = volume.fs(file.slot).ok_or_else(|| unreadable("the file system can't be opened".into()))?;
    fs.read(&file.path, max).map_err(|e| unreadable(e.to_string()))
}

/// Read initial RAM disks, [`MAX_INITRD`] bytes in all at most.
pub fn read_initrds(volume: &mut Volume, files: &[BootFile]) -> Result<Vec<Vec<u8>>, BootError> {
    let mut left = MAX_INITRD;
    let mut parts = Vec::new();
    for file in files {
        let bytes = read(volume, file, left)?;
        left = left.saturating_sub(bytes.len() as u64);
        parts.push(bytes);
    }
    Ok(parts)
}

/// Find what the disk boots.
pub fn locate(volume: &mut Volume) -> Result<Located, BootError> {
    let mut tried = Vec::new();
    for at in grub_configs(volume) {
        match try_grub(volume, &at) {
            Ok(loaded) => return finish(volume, &at, loaded),
            Err(reason) => tried.push(Tried { what: shown(&at), reason }),
        }
    }
    for at in places(volume, &ENTRY_DIRECTORIES, FileKind::Dir) {
        match try_entries(volume, &at) {
            Ok(loaded) => return finish(volume, &at, loaded),
            Err(reason) => tried.push(Tried { what: shown(&at), reason }),
        }
    }
    for at in places(volume, &EXTLINUX_CONFIGS, FileKind::File) {
        match try_extlinux(volume, &at) {
            Ok(loaded) => return finish(volume, &at, loaded),
            Err(reason) => tried.push(Tried { what: shown(&at), reason }),
        }
    }
    let looked_for = [&GRUB_CONFIGS[..], &["/EFI/*/grub.cfg"], &ENTRY_DIRECTORIES, &EXTLINUX_CONFIGS].concat();
    Err(error::not_found(volume, tried, &looked_for))
}

fn shown(at: &Place) -> String {
    format!("({}){}", at.device, at.path)
}

/// Those of `paths` that exist, on every partition.
fn places(volume: &mut Volume, paths: &[&str], kind: FileKind) -> Vec<Place> {
    let mut out = Vec::new();
    for slot in 0..volume.slots().len() {
        let device = volume.grub_name(slot);
        let Some(fs) = volume.fs(slot) else { continue };
        for path in paths {
            if fs.stat(path).is_ok_and(|s| s.kind == kind) {
                out.push(Place { device: device.clone(), path: (*path).to_string() });
            }
        }
    }
    out
}

/// GRUB configurations in the order to try them: what the firmware would start on the EFI system partition, then
/// those that a BIOS boot would come to.
fn grub_configs(volume: &mut Volume) -> Vec<Place> {
    let mut out = Vec::new();
    for slot in 0..volume.slots().len() {
        if !volume.slots().get(slot).is_some_and(|s| s.partition.kind.is_esp()) {
            continue;
        }
        let device = volume.grub_name(slot);
        let Some(fs) = volume.fs(slot) else { continue };
        let mut vendors = fs.list("/EFI").unwrap_or_default();
        // The distribution's directory before the removable-media one, which may be a left-over.
        vendors.sort_by_key(|v| v.eq_ignore_ascii_case("boot"));
        for vendor in vendors.into_iter().take(16) {
            let path = format!("/EFI/{vendor}/grub.cfg");
            if fs.exists(&path) {
                out.push(Place { device: device.clone(), path });
            }
        }
    }
    out.extend(places(volume, &GRUB_CONFIGS, FileKind::File));
    out
}

fn try_grub(volume: &mut Volume, at: &Place) -> Result<Loaded, String> {
    let text = grub::Host::read(volume, &at.device, &at.path, MAX_CONFIG).ok_or("it can't be read")?;
    // Ubuntu's cloud images try to boot without an initial RAM disk first and tell the next boot with `initrdfail`. Ask
    // for the entry with all that it may need: whether the RAM disk can be left out is decided by the kernel's
    // configuration, not by trial.
    grub::boot(volume, &text, at, &[("initrdfail", "1")]).map_err(|e| e.to_string())
}

/// What systemd-boot would take, or GRUB with entries but without a usable configuration.
fn try_entries(volume: &mut Volume, at: &Place) -> Result<Loaded, String> {
    let host: &mut dyn grub::Host = volume;
    let mut entries = Vec::new();
    for name in host.list(&at.device, &at.path).iter().filter(|n| n.ends_with(".conf")).take(1024) {
        let bytes = host.read(&at.device, &format!("{}/{name}", at.path), 64 << 10).unwrap_or_default();
        entries.push(bls::parse(name, &bytes));
    }
    entries.retain(|e| e.bootable && !e.linux.is_empty());
    entries.sort_by(bls::by_specification);
    let top = at.path.strip_suffix("/loader/entries").unwrap_or_default();
    let wanted = host.read(&at.device, &format!("{top}/loader/loader.conf"), 64 << 10).unwrap_or_default();
    let wanted = String::from_utf8_lossy(&wanted).into_owned();
    let pattern = wanted.lines().find_map(|l| l.trim().strip_prefix("default")?.split_whitespace().next());
    let chosen = pattern.and_then(|p| entries.iter().find(|e| matches(p, &format!("{}.conf", e.id))));
    let entry = chosen.or(entries.first()).ok_or("no entry for x86-64 in it")?;
    let environment = ["/grub2/grubenv", "/grub/grubenv", "/boot/grub2/grubenv", "/boot/grub/grubenv"];
    let environment = environment.iter().find_map(|p| host.read(&at.device, p, 64 << 10)).unwrap_or_default();
    let variables = grub::grubenv(&environment);
    let value = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
    let expand = |text: &str| grub::expand_options(text, value);
    let mut existing = |path: &str| {
        let path = format!("/{}", path.trim_start_matches('/'));
        let places = [path.clone(), format!("{top}{path}")];
        let found = places.into_iter().find(|p| host.stat(&at.device, p).is_some());
        found.map(|path| Place { device: at.device.clone(), path }).ok_or(format!("{path} does not exist"))
    };
    let initrds: Vec<String> = entry.initrd.iter().map(|i| expand(i)).collect();
    let initrds: Result<_, String> = initrds.iter().flat_map(|i| i.split_whitespace()).map(&mut existing).collect();
    Ok(Loaded {
        title: entry.title.clone(),
        kernel: existing(&entry.linux)?,
        initrds: initrds?,
        cmdline: expand(entry.options.as_deref().unwrap_or("$kernelopts")).trim().to_string(),
    })
}

/// A shell pattern with `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().take(256).collect(), name.chars().take(256).collect());
    // reach[j]: the pattern so far matches the first j characters.
    let mut reach = vec![false; n.len() + 1];
    reach.first_mut().into_iter().for_each(|r| *r = true);
    for c in p {
        let before = reach.clone();
        let mut any = false;
        for (j, to) in reach.iter_mut().enumerate() {
            let step = j.checked_sub(1).and_then(|k| Some(*before.get(k)? && (c == '?' || n.get(k) == Some(&c))));
            any |= before.get(j) == Some(&true);
            *to = if c == '*' { any } else { step.unwrap_or(false) };
        }
    }
    reach.last() == Some(&true)
}

fn try_extlinux(volume: &mut Volume, at: &Place) -> Result<Loaded, String> {
    let host: &mut dyn grub::Host = volume;
    let text = host.read(&at.device, &at.path, MAX_CONFIG).ok_or("it can't be read")?;
    let label = extlinux::parse(&text).ok_or("no label with a kernel in it")?;
    let directory = at.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut existing = |path: &str| {
        let path = if path.starts_with('/') { path.to_string() } else { format!("{directory}/{path}") };
        let found = host.stat(&at.device, &path).is_some();
        let place = Place { device: at.device.clone(), path };
        if found { Ok(place) } else { Err(format!("{} does not exist", place.path)) }
    };
    let initrds: Result<_, String> = label.initrds.iter().map(|i| existing(i)).collect();
    Ok(Loaded {
        kernel: existing(&label.kernel)?,
        initrds: initrds?,
        cmdline: format!("BOOT_IMAGE={} {}", label.kernel, label.append).trim().to_string(),
        title: label.title,
    })
}

/// Add what is known about kernel and root device.
fn finish(volume: &mut Volume, at: &Place, loaded: Loaded) -> Result<Located, BootError> {
    let file = |volume: &Volume, place: &Place| {
        let slot = volume.grub_slot(&place.device);
        let unreadable = || BootError::Unreadable { file: shown(place), reason: "there is no such device".into() };
        Ok(BootFile { slot: slot.ok_or_else(unreadable)?, path: place.path.clone() })
    };
    let kernel = file(volume, &loaded.kernel)?;
    let initrds: Result<_, BootError> = loaded.initrds.iter().map(|i| file(volume, i)).collect();
    let root_slot = root::find(volume, Some(&loaded.cmdline));
    let release = release(volume, &kernel)?;
    let config = config(volume, &kernel, root_slot, &release);
    Ok(Located {
        source: shown(at),
        entry: loaded.title,
        initrds: initrds?,
        cmdline: loaded.cmdline,
        root: root_slot.and_then(|slot| RootFacts::of(volume, slot)),
        root_slot,
        release,
        config,
        kernel,
    })
}

/// The kernel's release from its own header, else from its name. A kernel for another machine is an error here, early.
fn release(volume: &mut Volume, file: &BootFile) -> Result<String, BootError> {
    let name = format!("({}){}", volume.grub_name(file.slot), file.path);
    let unreadable = |reason: String| BootError::Unreadable { file: name.clone(), reason };
    let fs = volume.fs(file.slot).ok_or_else(|| unreadable("the file system can't be opened".into()))?;
    let size = fs.stat(&file.path).map_err(|e| unreadable(e.to_string()))?.size;
    let head = fs.read_range(&file.path, 0, HEADER_BYTES).map_err(|e| unreadable(e.to_string()))?;
    match kernel::parse_header(&head, size) {
        Ok(header) if !header.release().is_empty() => Ok(header.release().to_string()),
        Err(source) if !head.starts_with(b"\x7fELF") => Err(BootError::Kernel { file: name, source }),
        _ => Ok(file.path.rsplit('/').next().and_then(|n| n.split_once('-')).map_or("", |(_, r)| r).to_string()),
    }
}

/// The kernel's configuration lies beside it, or with its modules.
fn config(volume: &mut Volume, kernel: &BootFile, root: Option<usize>, release: &str) -> Option<String> {
    if release.is_empty() || release.contains('/') {
        return None;
    }
    let directory = kernel.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut candidates =
        vec![(kernel.slot, format!("{directory}/config-{release}")), (kernel.slot, format!("{directory}/config"))];
    if let Some(slot) = root {
        candidates.push((slot, format!("/boot/config-{release}")));
        candidates.push((slot, format!("/lib/modules/{release}/config")));
        candidates.push((slot, format!("/usr/lib/modules/{release}/config")));
    }
    // A file called just `config` may be anything: the release must be in its first lines.
    candidates.into_iter().find_map(|(slot, path)| {
        let text = volume.fs(slot)?.read(&path, 4 << 20).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let named = path.contains(release);
        (named || text.lines().take(5).any(|l| l.contains(release))).then_some(text)
    })
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
