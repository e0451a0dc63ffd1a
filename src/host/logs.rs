//! The guest's own logs, fetched from its root volume with the code that finds its kernel.

use std::fs;
use std::path::Path;

use super::running::OpenDisk;
use super::verdict::{Files, MAX_LOG, is_result};
use crate::boot::guest::{GuestRoot, open_root};

/// The folder in an instance's records for logs from its volume.
pub const GUEST_LOGS: &str = "guest-logs";
/// What the user-data wrote, among them.
pub const OUTPUT_LOG: &str = "cloud-init-output.log";

const RESULT: &str = "/var/lib/cloud/data/result.json";
const LOGS: [&str; 2] = ["/var/log/cloud-init.log", "/var/log/cloud-init-output.log"];
/// cloud-init's result is some hundred bytes.
const MAX_RESULT: u64 = 1 << 20;

/// Whether the guest's root volume holds cloud-init's result by now. Its file may be there before what it holds.
pub fn result_is_there(open: &OpenDisk) -> bool {
    root_of(open).is_some_and(|mut root| root.read(RESULT, MAX_RESULT).is_ok_and(|result| is_result(&result)))
}

fn root_of(open: &OpenDisk) -> Option<GuestRoot> {
    let disk = open().inspect_err(|error| log::warn!("the root volume can't be looked at: {error}")).ok()?;
    open_root(&disk).inspect_err(|error| log::warn!("the root volume's file system can't be looked at: {error}")).ok()
}

/// Read cloud-init's files from the root volume; copies stay in the instance's records.
pub fn read_files(open: &OpenDisk, records: &Path) -> Files {
    let Some(mut root) = root_of(open) else { return Files::default() };
    let folder = records.join(GUEST_LOGS);
    let kept = fs::create_dir_all(&folder).is_ok();
    let keep = |path: &str, bytes: Option<Vec<u8>>| {
        if let (true, Some(bytes), Some(name)) = (kept, &bytes, Path::new(path).file_name()) {
            let _ = fs::write(folder.join(name), bytes);
        }
        bytes
    };
    Files {
        result: keep(RESULT, root.read(RESULT, MAX_RESULT).ok()),
        log: keep(LOGS[0], root.read_tail(LOGS[0], MAX_LOG).ok()),
        output: keep(LOGS[1], root.read_tail(LOGS[1], MAX_LOG).ok()),
    }
}
