//! Whether a kernel gets along without its initial RAM disk.
//!
//! An initial RAM disk loads drivers, assembles and unlocks devices, and finds the root file system by names that the
//! kernel itself does not know (`UUID=`, `LABEL=`). Where the drivers are built in and the root is a plain partition,
//! all of it is work without effect, and unpacking it is a good part of a guest's boot time. The decision is made from
//! what the image says, never by trial: whatever is not known to be harmless keeps the RAM disk.
//!
//! `root=UUID=…` and `root=LABEL=…` become `root=PARTUUID=…` of that same partition, which the kernel resolves by itself
//! (`block/early-lookup.c`). That one word of the command line is all that changes; the image is not touched.
//!
//! No `rootwait` is added. `prepare_namespace()` calls `wait_for_device_probe()` before it looks for the root, and the
//! NVMe driver's probe ends (or, before Linux 6.2, an asynchronous function that the same call waits for ends) only
//! after its name spaces and their partitions were scanned. With `rootwait`, a root that never appears would hang the
//! guest without a word; without it, the kernel panics and says which partitions it has. `ro` and `rw` mean the same to
//! the kernel as to the RAM disk; without either, both mount read-only, and systemd remounts by fstab.

#![forbid(unsafe_code)]

use super::find::Located;
use super::fs::FsKind;
use super::guest::{self, GuestRoot};
use super::root::{self, RootFacts};
use super::volume::Volume;

/// What was decided, with the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitrdDecision {
    /// The initial RAM disk is needed, or might be.
    Needed {
        /// Why, e.g. `CONFIG_EXT4_FS is not built into the kernel`.
        reason: String,
    },
    /// It can be left out.
    NotNeeded {
        /// Why.
        reason: String,
        /// The command line to use instead.
        cmdline: String,
    },
}

impl InitrdDecision {
    /// The reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::Needed { reason } | Self::NotNeeded { reason, .. } => reason,
        }
    }
}

/// Decide for what was located on `volume`. The root disk is taken to be the first NVMe controller's, as the machine
/// attaches it.
pub fn initrd_needed(volume: &mut Volume, located: &Located) -> InitrdDecision {
    let mut decide = || -> Result<InitrdDecision, String> {
        let slot = located.root_slot.ok_or("the root partition is not known")?;
        let facts = located.root.as_ref().ok_or("the root file system is not known")?;
        let config = located.config.as_ref().ok_or("the kernel's build configuration is not in the image")?;
        let spec = root::value(&located.cmdline, "root").unwrap_or_default();
        if volume.named(spec) != [slot] {
            return Err(format!("root={spec} does not name exactly one partition of this disk"));
        }
        let cmdline = check_cmdline(&located.cmdline, facts)?;
        check_config(config, facts)?;
        let found = volume.slots().get(slot).ok_or("the root partition is not known")?;
        if found.partition.kind.is_raid() || found.identity().is_some_and(|i| i.raid_leg) {
            return Err("the root partition belongs to a RAID".into());
        }
        let mut root = guest::open_root_with(volume, Some(&located.cmdline)).map_err(|e| e.to_string())?;
        check_root(&mut root)?;
        let reason = format!(
            "{} and NVMe are built into the kernel, and the root is {}",
            facts.fs,
            root::value(&cmdline, "root").unwrap_or_default()
        );
        Ok(InitrdDecision::NotNeeded { reason, cmdline })
    };
    decide().unwrap_or_else(|reason| InitrdDecision::Needed { reason })
}

/// Parameters that an initial RAM disk acts on, by their beginnings.
const FOR_INITRD: [&str; 29] = [
    "rd.",
    "rdloaddriver",
    "rdblacklist",
    "luks",
    "crypt",
    "cryptopts",
    "lvm",
    "md=",
    "md_",
    "raid",
    "dm-mod.",
    "dmraid",
    "resume=",
    "boot=",
    "break",
    "nfsroot",
    "netroot",
    "iscsi",
    "root_nfs",
    "ip=",
    "ifname=",
    "overlayroot",
    "zfs",
    "mount.usr",
    "systemd.verity",
    "fips=",
    "live",
    "ostree",
    "modules=",
];

/// The command line without an initial RAM disk, if there can be one.
fn check_cmdline(cmdline: &str, facts: &RootFacts) -> Result<String, String> {
    let words = root::words(cmdline);
    let own = words.iter().take_while(|w| **w != "--");
    for word in own.clone() {
        if let Some(prefix) = FOR_INITRD.iter().find(|p| word.starts_with(**p)) {
            return Err(format!("the command line has {word:?}, which is for the RAM disk ({prefix})"));
        }
    }
    let roots: Vec<&str> = own.filter(|w| w.starts_with("root=")).copied().collect();
    let [token] = roots.as_slice() else {
        return Err(format!("the command line has {} root= parameters", roots.len()));
    };
    let spec = token.trim_start_matches("root=");
    if spec.starts_with("/dev/nvme0n1") || spec.starts_with("PARTUUID=") {
        return Ok(cmdline.to_string());
    }
    let tagged = ["UUID=", "LABEL=", "/dev/disk/by-uuid/", "/dev/disk/by-label/", "/dev/disk/by-partuuid/"];
    if !tagged.iter().any(|t| spec.starts_with(t)) {
        return Err(format!("{token} is not a name that can be resolved without it"));
    }
    let partuuid = facts.partuuid.as_ref().ok_or("the root is not a partition with a PARTUUID")?;
    // Replace just this word; everything else stays byte for byte.
    let at = token.as_ptr() as usize - cmdline.as_ptr() as usize;
    let (before, after) = (cmdline.get(..at), cmdline.get(at + token.len()..));
    Ok(format!("{}root=PARTUUID={partuuid}{}", before.unwrap_or_default(), after.unwrap_or_default()))
}

fn check_config(config: &str, facts: &RootFacts) -> Result<(), String> {
    let fs = match facts.fs {
        FsKind::Ext4 => "CONFIG_EXT4_FS",
        FsKind::Xfs => "CONFIG_XFS_FS",
        // A btrfs may span devices that only user space can bring together.
        FsKind::Btrfs | FsKind::Fat => return Err(format!("a root on {} may need it", facts.fs)),
    };
    let table = match facts.table.as_str() {
        "gpt" => Some("CONFIG_EFI_PARTITION"),
        "mbr" => Some("CONFIG_MSDOS_PARTITION"),
        _ => None,
    };
    let needed = [fs, "CONFIG_BLK_DEV_NVME", "CONFIG_PCI", "CONFIG_PCI_MSI", "CONFIG_DEVTMPFS"];
    for option in needed.into_iter().chain(table) {
        let set = config.lines().any(|l| l.strip_prefix(option) == Some("=y"));
        if !set {
            return Err(format!("{option} is not built into the kernel"));
        }
    }
    Ok(())
}

/// What in the root file system calls for an initial RAM disk.
fn check_root(root: &mut GuestRoot) -> Result<(), String> {
    let text = |root: &mut GuestRoot, path: &str| {
        let bytes = root.read(path, 256 << 10).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_string).collect()
    };
    if !["/sbin/init", "/usr/lib/systemd/systemd", "/bin/init", "/etc/init"].iter().any(|p| root.exists(p)) {
        return Err("the root has no /sbin/init".into());
    }
    if guest::fstab_entries(&text(root, "/etc/fstab")).iter().any(|m| m.directory == "/usr") {
        return Err("fstab mounts /usr separately".into());
    }
    if !lines(&text(root, "/etc/crypttab")).is_empty() {
        return Err("/etc/crypttab has entries".into());
    }
    for path in ["/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"] {
        if lines(&text(root, path)).iter().any(|l| l.starts_with("ARRAY")) {
            return Err(format!("{path} names arrays"));
        }
    }
    let overlay = lines(&text(root, "/etc/overlayroot.conf"));
    let active =
        |l: &String| l.strip_prefix("overlayroot=").is_some_and(|v| !matches!(v.trim_matches('"'), "" | "disabled"));
    if overlay.iter().any(active) {
        return Err("/etc/overlayroot.conf asks for an overlay".into());
    }
    let stages = root.list("/etc/initramfs-tools/scripts").unwrap_or_default();
    for stage in stages {
        let directory = format!("/etc/initramfs-tools/scripts/{stage}");
        if root.list(&directory).is_ok_and(|names| !names.is_empty()) {
            return Err(format!("{directory} holds scripts of its own"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "initrd_tests.rs"]
mod tests;
