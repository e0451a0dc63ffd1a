//! The initramfs of an emulated host: this binary as `/init`, the modules it loads, files.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::cpio;
use super::error::{Error, io_error};
use super::host::BINARY;
use super::init::{DNS, PLAN, Plan};
use super::modules::Module;

/// A file: path, permission bits, content.
pub(super) type InitFile = (String, u32, Vec<u8>);

/// What a command finds in its environment.
pub(super) fn environment() -> Vec<(String, String)> {
    vec![
        ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("HOME".into(), "/root".into()),
    ]
}

/// Writes it into a temporary folder, which is needed until the machine is up.
pub(super) fn write(binary: &[u8], modules: &[Module], files: &[InitFile]) -> Result<(TempDir, PathBuf), Error> {
    let folder = tempfile::Builder::new()
        .prefix("amiable-emulate.")
        .tempdir()
        .map_err(io_error("a temporary folder for the emulated host"))?;
    let path = folder.path().join("initramfs");
    write_to(&path, binary, modules, files).map_err(io_error(path.display().to_string()))?;
    Ok((folder, path))
}

fn write_to(path: &Path, binary: &[u8], modules: &[Module], files: &[InitFile]) -> io::Result<()> {
    let mut archive = cpio::Writer::new(BufWriter::new(File::create(path)?));
    for folder in ["dev", "proc", "sys", "tmp", "run", "root", "var/tmp"] {
        archive.directory(folder)?;
    }
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.file(BINARY, 0o755, binary)?;
    archive.symlink("init", BINARY)?;
    archive.file("etc/resolv.conf", 0o644, format!("nameserver {DNS}\n").as_bytes())?;
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n")?;
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\n")?;
    let mut plan = Plan::default();
    for module in modules {
        let inside = format!("/modules/{}.ko", module.name);
        archive.file(&inside, 0o644, &module.content)?;
        // Guests of the emulated host have no use for a third level, and do without its cost.
        let parameters = if module.name == "kvm_amd" { "nested=0" } else { "" };
        plan.modules.push((inside.into(), parameters.to_owned()));
    }
    archive.file(PLAN, 0o600, &serde_json::to_vec(&plan)?)?;
    for (path, mode, content) in files {
        archive.file(path, *mode, content)?;
    }
    archive.finish().map(drop)
}

#[cfg(test)]
#[path = "initramfs_tests.rs"]
mod tests;
