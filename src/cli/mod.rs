//! What a person types: arguments parsed, the region called, results printed. No EC2 rule lives here.

#![forbid(unsafe_code)]

pub mod args;
mod doctor;
mod emulate;
pub mod error;
mod generate;
mod image;
mod instances;
mod keys;
mod launch;
mod lifecycle;
mod output;
mod parse;
mod progress;
mod records;
mod report;
mod run;
mod security_groups;
mod ssh;
mod tags;
mod terminal;
mod types;
mod user_data;
mod volumes;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use self::args::{Cli, Command};
use self::error::{CliError, exit};
use crate::emulate::keeper;
use crate::host::running;
use crate::region::Region;
use crate::region::error::RegionError;
use crate::region::paths::Paths;
use crate::region::process;

/// Do what the command line says. Times count from `started`, the process's own start as far as it is known.
pub fn main(arguments: impl IntoIterator<Item = OsString>, started: Instant) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // An instance's process is not to pay, in time and in memory, for all the commands that there are.
    if matches!(arguments.as_slice(), [_, command] if command == process::COMMAND) {
        return process::main().into();
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli, started) {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("{error}");
            error.exit.into()
        }
    }
}

fn dispatch(cli: Cli, started: Instant) -> Result<u8, CliError> {
    let emulate = cli.emulate;
    match cli.command {
        Command::Run(args) => return run::run(args, emulate, started),
        Command::Test(args) => return run::test(args, emulate, started),
        Command::Watch(args) => return watch::run(&args, started),
        Command::Rerun(args) => return run::rerun(args, emulate, started),
        Command::Doctor => return doctor::run(),
        Command::Lint(args) => user_data::run(&args)?,
        Command::Image(command) => image::run(command, emulate, started)?,
        Command::Type(command) => types::run(command)?,
        Command::Ls { all, list } => instances::list(&list, all)?,
        Command::Describe { instance, output } => instances::describe(&instance, &output)?,
        Command::Console { instance, attach: true, .. } => lifecycle::attach(&instance)?,
        Command::Console { instance, follow, .. } => instances::console(&instance, follow)?,
        Command::Ssh { target, identity, command } => ssh::ssh(&target, identity.as_deref(), &command, false)?,
        Command::Exec { target, identity, command } => ssh::ssh(&target, identity.as_deref(), &command, true)?,
        Command::Cp { from, to, identity, recursive } => ssh::cp(&from, &to, identity.as_deref(), recursive)?,
        Command::Volume(command) => volumes::volume(command)?,
        Command::Snapshot(command) => volumes::snapshot(command)?,
        Command::SecurityGroup(command) => security_groups::run(command)?,
        Command::Prune => volumes::prune()?,
        Command::Key(command) => keys::run(command)?,
        Command::Logs { instance } => lifecycle::logs(&instance)?,
        Command::ImdsLog { instance, json } => instances::imds_log(&instance, json)?,
        Command::Stop { instances, force, no_wait } => return lifecycle::stop(&instances, force, !no_wait),
        Command::Start { instances } => return lifecycle::start(&instances, emulate, started),
        Command::Reboot { instances } => return lifecycle::reboot(&instances),
        Command::Wait { state, instances, timeout } => return lifecycle::wait(state, &instances, timeout),
        Command::Tag(command) => tags::run(command)?,
        Command::Modify(args) => lifecycle::modify(args)?,
        Command::Terminate { instances } => return lifecycle::terminate(&instances),
        Command::Completions { shell } => generate::completions(shell)?,
        Command::Man { directory } => generate::man(&directory)?,
        Command::Emulate(command) => emulate::run(command)?,
        Command::Hold => {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        }
        Command::EmulateKeeper { settings } => return Ok(keeper::main(&settings)),
        Command::InstanceProcess { specification: Some(specification) } => instance_process(&specification)?,
        Command::InstanceProcess { specification: None } => return Ok(process::main()),
    }
    Ok(0)
}

/// Inside the emulated host: one instance, told of by JSON on standard output, told what to do on standard input.
fn instance_process(specification: &Path) -> Result<(), CliError> {
    let other = |e: &dyn std::error::Error| CliError::from_error(exit::OTHER, e);
    let text = std::fs::read(specification).map_err(|e| {
        CliError::new(exit::OTHER, format!("can't read the specification {}: {e}", specification.display()))
    })?;
    let spec = serde_json::from_slice(&text).map_err(|e| other(&e))?;
    running::serve(&spec, std::io::stdin(), std::io::stdout()).map_err(|e| other(&e))
}

fn paths() -> Result<Paths, CliError> {
    Paths::from_env()
        .map_err(|e| CliError::from_error(exit::ENVIRONMENT, &e).next("AMIABLE_HOME=/some/folder amiable …"))
}

fn open_region() -> Result<Region, CliError> {
    let mut region = Region::open(paths()?).map_err(|e| region_error(&e))?;
    let deaf = match region.reconcile() {
        Err(error) if error.is_no_room() => {
            eprintln!("warning: what happened since can't be recorded: the disk is full");
            Vec::new()
        }
        other => other.map_err(|e| region_error(&e))?,
    };
    for id in deaf {
        eprintln!("note: {id} is to end, and its process hangs; try: amiable stop --force {id}");
    }
    Ok(region)
}

/// The region's no, with EC2's code if it has one.
fn region_error(error: &RegionError) -> CliError {
    let told = match error.code() {
        Some(code) => CliError::from_error(exit::REGION, error).code(code),
        None => CliError::from_error(exit::OTHER, error),
    };
    match error.is_no_room() {
        true => told.next(
            "amiable doctor tells what takes room; amiable prune, terminate, and volume, snapshot or image rm free it",
        ),
        false => told,
    }
}
