//! Files that nothing refers to: what an interrupted command left. Only those are deleted.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Region;
use super::error::RegionError;
use super::model::{Instance, StateName};

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The files and directories.
    pub paths: Vec<PathBuf>,
    /// What they took, in bytes.
    pub bytes: u64,
}

/// Files younger than this may belong to a command that is at work and has not said so yet.
const YOUNG: Duration = Duration::from_secs(3600);

impl Region {
    /// What [`prune`](Self::prune) would delete.
    pub fn unneeded(&self) -> Result<Vec<PathBuf>, RegionError> {
        let mut found = self.without_owner()?;
        found.retain(|path| is_old(path));
        Ok(found)
    }

    /// Files that nothing refers to; the young ones may belong to a command that is at work.
    pub(super) fn without_owner(&self) -> Result<Vec<PathBuf>, RegionError> {
        let tables = self.store.tables();
        let mut found = Vec::new();
        for path in entries(&self.paths.volumes()) {
            let layer = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".data").or_else(|| name.strip_suffix(".map")));
            if let Some(layer) = layer
                && !tables.is_needed(layer)?
            {
                found.push(path);
            }
        }
        for path in entries(&self.paths.images()) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.starts_with("ami-") && !tables.is_needed(name)? {
                found.push(path);
            }
        }
        let instances = tables.instances::<Instance>()?;
        let known: HashSet<&str> = instances.iter().map(|instance| instance.instance_id.as_str()).collect();
        let alive: HashSet<&str> = instances
            .iter()
            .filter(|instance| instance.state.name != StateName::Terminated)
            .map(|instance| instance.instance_id.as_str())
            .collect();
        for path in entries(&self.paths.instances()) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.starts_with("i-") && !alive.contains(name) && !self.has_process(name) {
                found.push(path);
            }
        }
        // The logs of a user-data that failed, of an instance that is forgotten.
        for path in entries(&self.paths.kept_logs("")) {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with("i-") && !known.contains(name)) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Delete what nothing refers to, and merge layers that nothing needs but the layer above them.
    pub fn prune(&mut self) -> Result<Pruned, RegionError> {
        let _no_snapshot = self.snapshot_lock()?;
        self.finish_begun()?;
        let mut pruned = Pruned::default();
        for path in self.unneeded()? {
            pruned.bytes += bytes(&path);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|source| RegionError::File {
                action: "remove",
                path: path.display().to_string(),
                source,
            })?;
            pruned.paths.push(path);
        }
        // What is in layers that only the next one needs.
        let folded = self.fold()?;
        pruned.bytes += folded.bytes;
        for layer in &folded.layers {
            let files = self.layer(layer);
            pruned.paths.extend([files.data, files.map]);
        }
        Ok(pruned)
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

pub(super) fn is_old(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|meta| meta.modified());
    changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > YOUNG))
}

pub(super) fn bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    if path.is_dir() {
        return entries(path).iter().map(|path| bytes(path)).sum();
    }
    fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::volume_types::Provisioned;
    use crate::region::paths::Paths;

    #[test]
    fn only_old_files_that_nothing_refers_to_are_deleted() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::under(home.path());
        let mut region = Region::open(paths.clone()).unwrap();
        let kept = region.create_volume(Some(1 << 30), None, Vec::new(), Provisioned::default()).unwrap().volume_id;
        let file = |name: &str| paths.volumes().join(name);
        for name in ["vol-left.data", "vol-left.map", "vol-young.data", "notes.txt"] {
            fs::write(file(name), "x").unwrap();
        }
        let long_ago = SystemTime::now() - YOUNG * 2;
        for name in ["vol-left.data", "vol-left.map", "notes.txt", &format!("{kept}.data"), &format!("{kept}.map")] {
            fs::File::options().write(true).open(file(name)).unwrap().set_modified(long_ago).unwrap();
        }
        let pruned = region.prune().unwrap();
        assert_eq!(pruned.paths, [file("vol-left.data"), file("vol-left.map")]);
        assert!(file("vol-young.data").exists() && file("notes.txt").exists());
        assert!(region.volume(&kept).is_ok() && file(&format!("{kept}.map")).exists());
        assert_eq!(region.prune().unwrap(), Pruned::default());
    }
}
