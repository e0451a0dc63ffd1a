//! Instances of the region: listed, described, their records shown, terminated.

use serde_json::json;

use super::args::{ListArgs, OutputArgs, OutputForm};
use super::error::{CliError, exit};
use super::output::{print_list, print_value};
use super::{open_region, records, region_error};
use crate::region::error::RegionError;
use crate::region::model::{Instance, StateName};

pub(super) fn not_found(error: &RegionError) -> CliError {
    region_error(error).next("amiable ls")
}

/// `amiable ls`.
pub fn list(list: &ListArgs, all: bool) -> Result<(), CliError> {
    let (filters, output) = (list.filters(), &list.output);
    let mut instances = open_region()?.instances_that_fit(&filters).map_err(|e| region_error(&e))?;
    // As everywhere, terminated instances are no news; `describe` still finds them, and whoever asks for a state gets it.
    let asked = all || filters.has("instance-state-name") || filters.has("instance-state-code");
    instances.retain(|i| asked || i.state.name != StateName::Terminated);
    if instances.is_empty() && output.output == OutputForm::Table && !list.filters.is_empty() {
        eprintln!("no instances fit");
    } else if instances.is_empty() && output.output == OutputForm::Table {
        eprintln!("no instances; try: amiable run IMAGE --user-data FILE");
    }
    print_list(
        output,
        "Instances",
        &instances,
        &[
            ("INSTANCE ID", &|i| i.instance_id.clone()),
            ("NAME", &|i| i.name().unwrap_or("-").to_owned()),
            ("STATE", &|i| i.state.name.as_str().to_owned()),
            ("TYPE", &|i| i.instance_type.clone()),
            ("PRIVATE IP", &|i| i.private_ip_address.clone()),
            ("IMAGE ID", &|i| i.image_id.clone()),
            ("LAUNCHED", &|i| i.launch_time.clone()),
        ],
        |i| json!(i),
    )
}

/// `amiable describe`.
pub fn describe(key: &str, output: &OutputArgs) -> Result<(), CliError> {
    let region = open_region()?;
    let instance = region.instance(key).map_err(|e| not_found(&e))?;
    let mut value = serde_json::to_value(&instance).map_err(|e| CliError::from_error(exit::OTHER, &e))?;
    if let (Some(facts), Some(process)) = (value.get_mut("Amiable"), region.process_id(&instance.instance_id)) {
        facts["ProcessId"] = process.into();
    }
    let notices = records::last_notices(&region.paths().instance(&instance.instance_id));
    if let (Some(facts), false) = (value.get_mut("Amiable"), notices.is_empty()) {
        facts["Notices"] = notices.into();
    }
    print_value(output, value)
}

/// `amiable console`.
pub fn console(key: &str, follow: bool) -> Result<(), CliError> {
    let region = open_region()?;
    let instance = region.instance(key).map_err(|e| not_found(&e))?;
    let directory = region.paths().instance(&instance.instance_id);
    let runs = || region.instance(&instance.instance_id).is_ok_and(|i: Instance| i.state.name == StateName::Running);
    records::console(&directory, follow, runs)
}

/// `amiable imds-log`.
pub fn imds_log(key: &str, json: bool) -> Result<(), CliError> {
    let region = open_region()?;
    let instance = region.instance(key).map_err(|e| not_found(&e))?;
    records::imds_log(&region.paths().instance(&instance.instance_id), json)
}
