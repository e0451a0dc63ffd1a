//! `amiable type`: the catalogue of instance types.

use super::args::{OutputArgs, OutputForm, TypeCommand};
use super::error::{CliError, exit};
use super::output::{human_size, print_list, print_value};
use crate::ec2::instance_types::{self, Filter, InstanceType, check_runnable, suggestions};
use crate::region::capacity::host_facts;

/// Run the command.
pub fn run(command: TypeCommand) -> Result<(), CliError> {
    match command {
        TypeCommand::Ls { vcpus, memory, arch, name, runnable, output } => {
            let architecture = match arch {
                None => None,
                Some(text) => Some(text.parse().map_err(|e: crate::ec2::Ec2Error| region_error(&e))?),
            };
            let filter = Filter { vcpus, memory_gib: memory, architecture, name, ..Filter::default() };
            let host = host_facts();
            let mut types = filter.select();
            if runnable {
                types.retain(|t| check_runnable(t, &host).is_ok());
            }
            list(&output, &types)
        }
        TypeCommand::Describe { name, output } => {
            let found = find(&name)?;
            if output.output == OutputForm::Table && output.query.is_none() {
                match check_runnable(&found, &host_facts()) {
                    Ok(warnings) => warnings.iter().for_each(|w| eprintln!("warning: {}", w.message)),
                    Err(error) => eprintln!("note: {error}"),
                }
            }
            print_value(&output, found.describe())
        }
    }
}

/// The type of this name, or EC2's error with what was perhaps meant.
pub fn find(name: &str) -> Result<InstanceType, CliError> {
    instance_types::find(name).ok_or_else(|| {
        let error = region_error(&crate::ec2::Ec2Error::invalid_instance_type(name));
        match suggestions(name).first() {
            Some(near) => error.next(format!("-t {near}")),
            None => error.next("amiable type ls"),
        }
    })
}

fn region_error(error: &crate::ec2::Ec2Error) -> CliError {
    CliError::new(exit::REGION, error.message.clone()).code(error.code)
}

fn list(output: &OutputArgs, types: &[InstanceType]) -> Result<(), CliError> {
    print_list(
        output,
        "InstanceTypes",
        types,
        &[
            ("TYPE", &|t| t.name.to_owned()),
            ("VCPUS", &|t| t.vcpus.to_string()),
            ("CORES x THREADS", &|t| format!("{} x {}", t.cores, t.threads_per_core)),
            ("MEMORY", &|t| human_size(t.memory_mib << 20)),
            ("ARCH", &|t| t.architectures.join(", ")),
            ("INSTANCE STORE", &|t| {
                t.instance_store.as_ref().map_or("-".into(), |s| format!("{} x {} GB {}", s.count, s.size_gb, s.kind))
            }),
            ("NETWORK", &|t| t.network.performance.to_owned()),
        ],
        InstanceType::describe,
    )
}
