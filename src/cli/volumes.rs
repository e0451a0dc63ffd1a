//! `amiable volume`, `amiable snapshot` and `amiable prune`.

use serde_json::json;

use super::args::{OutputForm, SnapshotCommand, VolumeCommand};
use super::error::CliError;
use super::instances::not_found;
use super::output::{human_size, print_list, print_value, write_out};
use super::{open_region, region_error};
use crate::region::error::RegionError;
use crate::region::model::{Tag, Volume};

fn no_volume(error: &RegionError) -> CliError {
    region_error(error).next("amiable volume ls")
}

fn no_snapshot(error: &RegionError) -> CliError {
    region_error(error).next("amiable snapshot ls")
}

fn name_tag(name: Option<String>) -> Vec<Tag> {
    name.map(|value| Tag { key: "Name".to_owned(), value }).into_iter().collect()
}

fn name_of(tags: &[Tag]) -> String {
    tags.iter().find(|tag| tag.key == "Name").map_or("-", |tag| &tag.value).to_owned()
}

/// `amiable volume`.
pub fn volume(command: VolumeCommand) -> Result<(), CliError> {
    let mut region = open_region()?;
    match command {
        VolumeCommand::Create { size, snapshot, name, provisioned } => {
            let snapshot = snapshot.map(|key| region.snapshot(&key)).transpose().map_err(|e| no_snapshot(&e))?;
            let made = region
                .create_volume(size, snapshot.as_ref(), name_tag(name), provisioned.into())
                .map_err(|e| region_error(&e))?;
            write_out(&format!("{}\n", made.volume_id))
        }
        VolumeCommand::Ls(list) => {
            let output = &list.output;
            let volumes = region.volumes_that_fit(&list.filters()).map_err(|e| region_error(&e))?;
            if volumes.is_empty() && list.filters.is_empty() && output.output == OutputForm::Table {
                eprintln!("no volumes; try: amiable volume create --size 10G");
            }
            let attached = |volume: &Volume, what: fn(&crate::region::model::Attachment) -> &str| {
                volume.attachments.first().map_or("-", what).to_owned()
            };
            print_list(
                output,
                "Volumes",
                &volumes,
                &[
                    ("VOLUME ID", &|v| v.volume_id.clone()),
                    ("NAME", &|v| name_of(&v.tags)),
                    ("SIZE", &|v| human_size(v.amiable.size_in_bytes)),
                    ("STORED", &|v| human_size(region.stored_bytes(&v.amiable.top))),
                    ("TYPE", &|v| v.volume_type.to_string()),
                    ("STATE", &|v| if v.attachments.is_empty() { "available" } else { "in-use" }.to_owned()),
                    ("INSTANCE ID", &|v| attached(v, |a| &a.instance_id)),
                    ("DEVICE", &|v| attached(v, |a| &a.device)),
                ],
                |v| json!(v),
            )
        }
        VolumeCommand::Describe { volume, output } => {
            let volume = region.volume(&volume).map_err(|e| no_volume(&e))?;
            let mut value = json!(volume);
            value["Amiable"]["StoredBytes"] = region.stored_bytes(&volume.amiable.top).into();
            print_value(&output, value)
        }
        VolumeCommand::Attach { volume, instance, device } => {
            let volume = region.volume(&volume).map_err(|e| no_volume(&e))?;
            let instance = region.instance(&instance).map_err(|e| not_found(&e))?;
            let device = region
                .attach_volume(&volume.volume_id, &instance.instance_id, device.as_deref())
                .map_err(|e| region_error(&e))?;
            write_out(&format!("{device}\n"))
        }
        VolumeCommand::Detach { volume, force } => {
            let id = region.volume(&volume).map_err(|e| no_volume(&e))?.volume_id;
            region.detach_volume(&id, force).map_err(|e| match (e.code(), force) {
                (Some("IncorrectState"), false) => region_error(&e).next(format!("amiable volume detach --force {id}")),
                _ => region_error(&e),
            })
        }
        VolumeCommand::Resize { volume, size } => {
            let id = region.volume(&volume).map_err(|e| no_volume(&e))?.volume_id;
            region.resize_volume(&id, size).map_err(|e| region_error(&e))?;
            Ok(())
        }
        VolumeCommand::Rm { volumes } => {
            for key in volumes {
                let id = region.volume(&key).map_err(|e| no_volume(&e))?.volume_id;
                region.delete_volume(&id).map_err(|e| match e.code() {
                    Some("VolumeInUse") => region_error(&e).next(format!("amiable volume detach {id}")),
                    _ => region_error(&e),
                })?;
            }
            Ok(())
        }
    }
}

/// `amiable snapshot`.
pub fn snapshot(command: SnapshotCommand) -> Result<(), CliError> {
    let mut region = open_region()?;
    match command {
        SnapshotCommand::Create { volume, name, description } => {
            let id = region.volume(&volume).map_err(|e| no_volume(&e))?.volume_id;
            let made = region.create_snapshot(&id, &description, name_tag(name)).map_err(|e| region_error(&e))?;
            write_out(&format!("{}\n", made.snapshot_id))
        }
        SnapshotCommand::Ls(list) => {
            let output = &list.output;
            let snapshots = region.snapshots_that_fit(&list.filters()).map_err(|e| region_error(&e))?;
            if snapshots.is_empty() && list.filters.is_empty() && output.output == OutputForm::Table {
                eprintln!("no snapshots; try: amiable snapshot create VOLUME");
            }
            print_list(
                output,
                "Snapshots",
                &snapshots,
                &[
                    ("SNAPSHOT ID", &|s| s.snapshot_id.clone()),
                    ("NAME", &|s| name_of(&s.tags)),
                    ("VOLUME ID", &|s| s.volume_id.clone()),
                    ("SIZE", &|s| human_size(s.amiable.size_in_bytes)),
                    ("STORED", &|s| human_size(region.snapshot_bytes(&s.amiable.layers))),
                    ("STARTED", &|s| s.start_time.clone()),
                ],
                |s| json!(s),
            )
        }
        SnapshotCommand::Rm { snapshots } => {
            for key in snapshots {
                let id = region.snapshot(&key).map_err(|e| no_snapshot(&e))?.snapshot_id;
                region.delete_snapshot(&id).map_err(|e| region_error(&e))?;
            }
            Ok(())
        }
    }
}

/// `amiable prune`.
pub fn prune() -> Result<(), CliError> {
    let mut region = open_region()?;
    let pruned = region.prune().map_err(|e| region_error(&e))?;
    for path in &pruned.paths {
        write_out(&format!("{}\n", path.display()))?;
    }
    eprintln!("{} freed", human_size(pruned.bytes));
    Ok(())
}
