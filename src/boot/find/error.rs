//! Why a disk can't be booted: what was looked for, and where.

use std::fmt::Write;

use crate::boot::fs::Content;
use crate::boot::kernel::KernelError;
use crate::boot::partitions::{PartitionError, PartitionType, TableKind};
use crate::boot::volume::Volume;

/// Something that looked like a boot configuration but led to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The file or directory.
    pub what: String,
    /// Why it does not boot.
    pub reason: String,
}

/// Why a disk can't be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The partition table can't be read.
    #[error("the disk's partition table can't be used")]
    Partitions(#[source] PartitionError),
    /// No configuration leads to a kernel.
    #[error("no kernel found to boot from this disk\n{report}")]
    NotFound {
        /// Every partition with its file system, what was looked for, and what was tried.
        report: String,
        /// What was found but does not boot.
        tried: Vec<Tried>,
    },
    /// A file that the boot configuration names can't be read.
    #[error("{file} can't be read: {reason}")]
    Unreadable {
        /// The file, as GRUB writes it.
        file: String,
        /// Why.
        reason: String,
    },
    /// The kernel is none for this machine.
    #[error("{file} can't be started")]
    Kernel {
        /// The file, as GRUB writes it.
        file: String,
        /// Why.
        source: KernelError,
    },
    /// The kernel cache failed.
    #[error("the kernel cache failed")]
    Cache(#[from] crate::boot::cache::CacheError),
}

/// The error for a disk without a usable boot configuration.
pub(super) fn not_found(volume: &Volume, tried: Vec<Tried>, looked_for: &[&str]) -> BootError {
    let table = match volume.table() {
        TableKind::Gpt => "GPT",
        TableKind::Mbr => "MBR",
        TableKind::None => "none (the whole disk was looked at)",
    };
    let mut report = format!("partition table: {table}");
    for slot in volume.slots() {
        let p = &slot.partition;
        let kind = match &p.kind {
            PartitionType::Guid(guid) if p.kind.is_esp() => format!("EFI system partition {guid}"),
            PartitionType::Guid(guid) => format!("type {guid}"),
            PartitionType::Id(id) => format!("type 0x{id:02x}"),
            PartitionType::Disk => "whole disk".to_string(),
        };
        let content = match &slot.content {
            Content::Fs(i) if i.label.is_empty() => format!("{}, UUID {}", i.kind, i.uuid),
            Content::Fs(i) => format!("{}, UUID {}, label {:?}", i.kind, i.uuid, i.label),
            Content::Other(name) => format!("{name}: can't be read here"),
            Content::Unknown => "no known file system".to_string(),
        };
        let _ = write!(report, "\n  partition {} ({} MiB, {kind}): {content}", p.index, p.length >> 20);
        if let Some(reason) = slot.failure() {
            let _ = write!(report, "; it can't be opened: {reason}");
        }
    }
    let _ = write!(report, "\nlooked on each readable one for: {}", looked_for.join(" "));
    for t in &tried {
        let _ = write!(report, "\nfound {}, but: {}", t.what, t.reason);
    }
    BootError::NotFound { report, tried }
}
