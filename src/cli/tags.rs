//! `amiable tag`.

use super::args::TagCommand;
use super::error::CliError;
use super::output::write_out;
use super::progress::Progress;
use super::{open_region, region_error};
use crate::region::{Region, Resource, TagChange};

/// Run the command.
pub fn run(command: TagCommand) -> Result<(), CliError> {
    let (key, change) = match command {
        TagCommand::Add { resource, tags } => (resource, TagChange { set: tags, remove: Vec::new() }),
        TagCommand::Rm { resource, keys } => (resource, TagChange { set: Vec::new(), remove: keys }),
    };
    let mut region = open_region()?;
    let resource =
        region.resource(&key).map_err(|e| region_error(&e).next("amiable ls, volume ls, snapshot ls, image ls"))?;
    let tags = region.change_tags(&resource, &change).map_err(|e| region_error(&e))?;
    if let Resource::Instance(instance) = &resource {
        show(&region, &instance.instance_id);
    }
    for tag in tags {
        write_out(&format!("{}={}\n", tag.key, tag.value))?;
    }
    Ok(())
}

/// Have a running instance's metadata show what was changed. That it can't is no failure: it is recorded.
pub fn show(region: &Region, instance_id: &str) {
    if let Err(error) = region.show_metadata(instance_id) {
        Progress::new().warning(&error.to_string());
    }
}
