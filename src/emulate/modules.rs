//! Kernel modules for the emulated host: found by name below a folder, unpacked, and put in the order in which they can
//! be loaded. What a module depends on is read from the module itself (the `depends=` string of its `.modinfo` section),
//! so that neither `depmod` nor its files are needed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What an emulated host for one command asks for. Those that a kernel has built in are not found and not needed.
pub const WANTED: [&str; 6] = ["virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "kvm_amd", "tun"];
/// What a shared one asks for: its disks come and go, and so does its memory.
pub const WANTED_SHARED: [&str; 8] =
    ["virtio_pci", "virtio_console", "virtio_scsi", "sd_mod", "virtio_net", "virtio_balloon", "kvm_amd", "tun"];

/// A module is smaller than this when unpacked; `kvm` of a generic kernel is about 3 MB.
const LARGEST: u64 = 64 << 20;

/// What can go wrong with modules.
#[derive(Debug, Error)]
pub enum Error {
    /// A folder or a file of modules cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Without `kvm_amd` the emulated host has no KVM.
    #[error("{} has no module kvm_amd: this kernel cannot be the emulated host's", .0.display())]
    NoKvm(PathBuf),
    /// Modules that depend on each other in a circle.
    #[error("the module {0} depends on itself")]
    Circle(String),
}

/// One module, ready to load.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The unpacked `.ko`.
    pub content: Vec<u8>,
}

/// The modules `names` and all they depend on, from the tree at `folder`, in the order to load them.
pub fn collect(folder: &Path, names: &[&str]) -> Result<Vec<Module>, Error> {
    let paths = index(folder)?;
    if !paths.contains_key("kvm_amd") {
        return Err(Error::NoKvm(folder.to_owned()));
    }
    let mut contents = BTreeMap::new();
    let mut wanted: Vec<String> = names.iter().copied().map(str::to_owned).collect();
    while let Some(name) = wanted.pop() {
        // Not in the folder: built into the kernel.
        let Some(path) = paths.get(&name) else { continue };
        let Entry::Vacant(vacant) = contents.entry(name) else { continue };
        let content = read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        wanted.extend(depends(&content));
        vacant.insert(content);
    }
    let dependencies = contents.iter().map(|(name, content)| (name.clone(), depends(content))).collect();
    let order = order(names, &dependencies)?;
    Ok(order.into_iter().filter_map(|name| contents.remove(&name).map(|content| Module { name, content })).collect())
}

/// The load order of `wanted`: each after all it depends on. Names that `dependencies` does not have are left out.
pub fn order(wanted: &[&str], dependencies: &BTreeMap<String, Vec<String>>) -> Result<Vec<String>, Error> {
    fn visit(
        name: &str,
        dependencies: &BTreeMap<String, Vec<String>>,
        open: &mut BTreeSet<String>,
        done: &mut Vec<String>,
    ) -> Result<(), Error> {
        let Some(needs) = dependencies.get(name) else { return Ok(()) };
        if done.iter().any(|d| d == name) {
            return Ok(());
        }
        if !open.insert(name.to_owned()) {
            return Err(Error::Circle(name.to_owned()));
        }
        for need in needs {
            visit(need, dependencies, open, done)?;
        }
        open.remove(name);
        done.push(name.to_owned());
        Ok(())
    }
    let (mut open, mut done) = (BTreeSet::new(), Vec::new());
    for name in wanted {
        visit(name, dependencies, &mut open, &mut done)?;
    }
    Ok(done)
}

/// The names in a module's `depends=` string, with underscores.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(normal).collect()
}

/// `kvm-amd` and `kvm_amd` are the same module.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Every module below `folder` by name.
fn index(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| Error::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // `build` and `source` are symbolic links out of the tree: file_type does not follow them.
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(entry.path());
            } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

fn module_name(file: &str) -> Option<String> {
    let (name, suffix) = file.split_once(".ko")?;
    matches!(suffix, "" | ".gz" | ".xz" | ".zst").then(|| normal(name))
}

/// A module's content, unpacked.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut content = Vec::new();
    let mut source: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        Some("xz") => Box::new(lzma_rust2::XzReader::new(io::BufReader::new(file), true)),
        Some("zst") => Box::new(ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?),
        _ => Box::new(file),
    };
    (&mut source).take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "unreasonably large for a kernel module"));
    }
    Ok(content)
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
