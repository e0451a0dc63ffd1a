//! What interrupted commands, deleted files and lost records left behind: found, and explained with the command that mends it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Region;
use super::error::RegionError;
use super::model::{AttachmentState, Image, Instance, Layers, Snapshot, StateName, Volume};
use super::process::COMMAND;
use super::prune::{bytes, is_old};
use crate::storage::VolumePaths;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is, and how it comes.
    pub what: String,
    /// The exact command that mends it.
    pub mend: String,
}

impl Region {
    /// Everything that is not as it should be.
    pub fn leftovers(&self) -> Result<Vec<Leftover>, RegionError> {
        let mut found = self.files_without_rows()?;
        let tables = self.store.tables();
        let instances: Vec<Instance> = tables.instances()?;
        let volumes = self.volumes()?;
        found.extend(self.rows_without_files(&volumes, &tables.snapshots()?, &tables.images()?));
        found.extend(volumes.iter().filter_map(|volume| attached_to_nothing(volume, &instances)));
        found.extend(self.processes_without_rows(&instances));
        Ok(found)
    }

    fn files_without_rows(&self) -> Result<Vec<Leftover>, RegionError> {
        let (logs, others): (Vec<PathBuf>, Vec<PathBuf>) =
            self.without_owner()?.into_iter().partition(|path| path.starts_with(self.paths.kept_logs("")));
        let (old, young): (Vec<PathBuf>, Vec<PathBuf>) = others.into_iter().partition(|path| is_old(path));
        let told = |paths: Vec<PathBuf>, why: &str, mend: &str| {
            let first = paths.first()?;
            let size: u64 = paths.iter().map(|path| bytes(path)).sum();
            let what =
                format!("{} that nothing refers to ({} KiB), {why}: {}", files(&paths), size / 1024, first.display());
            Some(Leftover { what, mend: mend.to_owned() })
        };
        let logs = told(logs, "logs of user-data that failed, kept for a look", "amiable prune");
        let old = told(old, "left by a command that was interrupted", "amiable prune");
        let young = told(
            young,
            "younger than an hour: of a command at work, or left by one that was interrupted",
            "amiable prune, in an hour",
        );
        Ok(logs.into_iter().chain(old).chain(young).collect())
    }

    fn rows_without_files(&self, volumes: &[Volume], snapshots: &[Snapshot], images: &[Image]) -> Vec<Leftover> {
        let mut found = Vec::new();
        for volume in volumes {
            let Some(missing) = self.missing(&volume.amiable.layers, Some(&volume.amiable.top)) else { continue };
            let id = &volume.volume_id;
            let mend = match volume.attachments.first() {
                // Without its root volume an instance is nothing.
                Some(attachment) if attachment.delete_on_termination => {
                    format!("amiable terminate {}", attachment.instance_id)
                }
                Some(_) => format!("amiable volume detach --force {id} && amiable volume rm {id}"),
                None => format!("amiable volume rm {id}"),
            };
            found.push(Leftover { what: format!("the volume {id} lacks its file {}", missing.display()), mend });
        }
        for snapshot in snapshots {
            if let Some(missing) = self.missing(&snapshot.amiable.layers, None) {
                let id = &snapshot.snapshot_id;
                let what = format!("the snapshot {id} lacks its file {}", missing.display());
                found.push(Leftover { what, mend: format!("amiable snapshot rm {id}") });
            }
        }
        for image in images {
            let volumes = image.amiable.volumes.iter().map(|volume| volume.layers.clone());
            let mut all = volumes.chain([image.layers()]);
            if let Some(missing) = all.find_map(|layers| self.missing(&layers, None)) {
                let (id, name) = (&image.image_id, &image.name);
                let what = format!("the AMI {name} ({id}) lacks its file {}", missing.display());
                found.push(Leftover { what, mend: format!("amiable image rm {id}") });
            }
        }
        found
    }

    /// The first file that should be there and is not.
    fn missing(&self, layers: &Layers, top: Option<&str>) -> Option<PathBuf> {
        let image = layers.image_id.iter().map(|id| self.paths.image_disk(id));
        let layers = layers.frozen.iter().map(String::as_str).chain(top).flat_map(|layer| {
            let VolumePaths { data, map } = self.layer(layer);
            [data, map]
        });
        image.chain(layers).find(|path| !path.exists())
    }

    /// Processes of instances that should have none: their records say so, or are gone.
    fn processes_without_rows(&self, instances: &[Instance]) -> Vec<Leftover> {
        let mut found = Vec::new();
        for (process, instance_id) in self.processes() {
            let state = instances.iter().find(|i| i.instance_id == instance_id).map(|i| i.state.name);
            let why = match state {
                None => "whose record is gone".to_owned(),
                Some(StateName::Terminated | StateName::Stopped) if !self.has_process(&instance_id) => {
                    "whose lock was deleted".to_owned()
                }
                _ => continue,
            };
            let what = format!("the process {process} runs {instance_id}, {why}");
            found.push(Leftover { what, mend: format!("kill -9 {process}") });
        }
        found
    }

    /// The processes of this region's instances, by the lock that each has open.
    fn processes(&self) -> Vec<(u32, String)> {
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let instances = fs::canonicalize(self.paths.instances()).unwrap_or_else(|_| self.paths.instances());
        numbers.filter_map(|process| Some((process, instance_of(process, &instances)?))).collect()
    }
}

fn instance_of(process: u32, instances: &Path) -> Option<String> {
    let command = fs::read(format!("/proc/{process}/cmdline")).ok()?;
    command.split(|byte| *byte == 0).nth(1).filter(|argument| *argument == COMMAND.as_bytes())?;
    let open = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).find_map(|path| {
        let rest = path.strip_prefix(instances).ok()?;
        // A deleted file's name ends in " (deleted)".
        let mut parts = rest.iter().filter_map(|part| part.to_str());
        let (id, file) = (parts.next()?, parts.next()?);
        file.starts_with("lock").then(|| id.to_owned())
    })
}

/// A volume that is attached to what is not there, or that somebody began to attach or detach and did not end.
fn attached_to_nothing(volume: &Volume, instances: &[Instance]) -> Option<Leftover> {
    let attachment = volume.attachments.first()?;
    let (id, instance_id) = (&volume.volume_id, &attachment.instance_id);
    let instance = instances.iter().find(|instance| instance.instance_id == *instance_id);
    let (what, mend) = match (instance.map(|instance| instance.state.name), attachment.state) {
        (None, _) => {
            (format!("is attached to {instance_id}, which is not there"), format!("amiable volume detach {id}"))
        }
        (Some(StateName::Terminated), _) => {
            (format!("is attached to {instance_id}, which is terminated"), format!("amiable volume detach {id}"))
        }
        (_, AttachmentState::Attaching) => (
            format!("is attaching to {instance_id}: a command is at work, or was interrupted"),
            format!("amiable volume attach {id} {instance_id}"),
        ),
        (_, AttachmentState::Detaching) => (
            format!("is detaching from {instance_id}: a command is at work, or was interrupted"),
            format!("amiable volume detach {id}"),
        ),
        (_, AttachmentState::Attached) => return None,
    };
    Some(Leftover { what: format!("the volume {id} {what}"), mend })
}

fn files(paths: &[PathBuf]) -> String {
    match paths.len() {
        1 => "a file or folder".to_owned(),
        n => format!("{n} files and folders"),
    }
}

#[cfg(test)]
#[path = "leftovers_tests.rs"]
mod tests;
