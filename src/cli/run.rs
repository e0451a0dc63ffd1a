//! `amiable run` and `amiable test`: launch, watch, tell.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use super::args::{LaunchArgs, RunArgs, TestArgs, Timings, Wait};
use super::error::{CliError, exit};
use super::output::write_out;
use super::progress::Progress;
use super::{launch, report, terminal, types, user_data};
use crate::ec2::instance_types::check_runnable;
use crate::ec2::metadata_options::MetadataOptions;
use crate::host::event::End;
use crate::host::running::Running;
use crate::host::session::Update;
use crate::host::watch::{Goal, Patience, Reason, Report, watch};
use crate::region::capacity::host_facts;
use crate::region::model::{Instance, StateReason};
use crate::region::{EndOfRun, LaunchRequest, Region};

/// How a launch is shown and what is left of it.
struct Manner {
    goal: Goal,
    console: bool,
    interactive: bool,
    keep: bool,
    throw_away: bool,
}

/// `amiable run`.
pub fn run(args: RunArgs, emulate: bool, started: Instant) -> Result<u8, CliError> {
    let goal = if args.wait == Some(Wait::UserData) { Goal::UserData } else { Goal::PowerOff };
    let manner = Manner {
        goal,
        console: !args.quiet && !args.interactive,
        interactive: args.interactive,
        keep: !args.rm,
        throw_away: args.throw_away,
    };
    launch_and_watch(&args.image, args.user_data.as_deref(), &args.launch, &manner, emulate, started)
}

/// `amiable test`.
pub fn test(args: TestArgs, emulate: bool, started: Instant) -> Result<u8, CliError> {
    let manner = Manner {
        goal: Goal::UserData,
        console: args.verbose,
        interactive: false,
        keep: args.keep,
        throw_away: !args.keep,
    };
    launch_and_watch(&args.image, Some(&args.user_data), &args.launch, &manner, emulate, started)
}

fn launch_and_watch(
    image: &str,
    data: Option<&Path>,
    args: &LaunchArgs,
    manner: &Manner,
    emulate: bool,
    started: Instant,
) -> Result<u8, CliError> {
    let progress = Progress::new();
    let mut region = super::open_region()?;
    let request = request(&region, image, data, args, manner, &progress)?;
    let way = launch::choose(emulate, region.paths())?;
    let launched = region.run_instance(request).map_err(|e| super::region_error(&e))?;
    let mut instance = launched.instance;
    if way.is_emulated() {
        progress.note("emulated host: QEMU TCG with nested SVM; expect a minute where KVM takes seconds");
    }
    let records = region.paths().instance(&instance.instance_id);
    let running = match launch::start(&way, &launched.spec, &records, started) {
        Ok(running) => running,
        Err(error) => {
            // Nothing ran: nothing is worth keeping.
            let _ = region.terminate(&instance);
            return Err(error);
        }
    };
    progress.note(&format!(
        "{}  {} from {} ({})",
        instance.instance_id, instance.instance_type, image, instance.private_ip_address
    ));
    let (watched, running) = follow(running, args, manner, way.is_emulated(), &progress);
    conclude(&mut region, &mut instance, watched, running, args, manner, &records, &progress)
}

/// All that a launch asks for, checked as EC2 and this machine would.
fn request(
    region: &Region,
    image: &str,
    data: Option<&Path>,
    args: &LaunchArgs,
    manner: &Manner,
    progress: &Progress,
) -> Result<LaunchRequest, CliError> {
    let user_data = data.map(user_data::read).transpose()?;
    if let (Some(path), Some(bytes)) = (data, &user_data) {
        crate::ec2::user_data::check_size(bytes).map_err(|e| super::region_error(&e.into()))?;
        user_data::check(path, bytes, args.strict)?;
    }
    let image = region.image(image).map_err(|e| match e.code() {
        Some("InvalidAMIID.NotFound") => {
            super::region_error(&e).next("amiable image ls, or: amiable image pull --list")
        }
        _ => super::region_error(&e),
    })?;
    let instance_type = types::find(&args.instance_type)?;
    let warnings = check_runnable(&instance_type, &host_facts()).map_err(|e| super::region_error(&e.into()))?;
    warnings.iter().for_each(|w| progress.warning(&w.message));
    let mut tags = args.tag.clone();
    if let Some(name) = &args.name {
        tags.retain(|(key, _)| key != "Name");
        tags.push(("Name".to_owned(), name.clone()));
    }
    let options = args.metadata_options.as_deref().unwrap_or("");
    let metadata_options = MetadataOptions::default().with(options).map_err(|e| super::region_error(&e.into()))?;
    Ok(LaunchRequest {
        image,
        instance_type,
        user_data,
        metadata_options,
        tags,
        public_key: args.ssh_key.as_deref().map(launch::read_public_key).transpose()?,
        root_size: args.root_size,
        throw_away: manner.throw_away,
        forwards: args.publish.iter().map(|p| (*p).into()).collect(),
        host_loopback: args.host_loopback,
        kernel: args.kernel.as_deref().map(launch::existing_file).transpose()?,
        initrd: args.initrd.as_deref().map(launch::existing_file).transpose()?,
        append: args.append.clone(),
        keep_initrd: args.keep_initrd,
    })
}

/// Watch the instance to its end.
fn follow(
    mut running: Running,
    args: &LaunchArgs,
    manner: &Manner,
    emulated: bool,
    progress: &Progress,
) -> (Report, Running) {
    let interrupts = Arc::new(AtomicU32::new(0));
    let _handlers = terminal::count_interrupts(&interrupts);
    let raw = manner.interactive.then(|| terminal::connect(running.session.orders(), &interrupts));
    // Emulated guests are slow in everything: all patience is measured for them tenfold.
    let scale = if emulated { 10 } else { 1 };
    let usual = (manner.goal == Goal::UserData).then(|| Duration::from_secs(if emulated { 3600 } else { 600 }));
    let patience = Patience {
        timeout: args.timeout.or(usual),
        sync: Duration::from_secs(3 * scale),
        grace: Duration::from_secs(20 * scale),
    };
    let disk = running.disk.clone();
    let result_is_there = move || report::result_is_there(&*disk);
    let console = manner.console || manner.interactive;
    let mut show = |update: &Update| match update {
        Update::Stage(mark) if !manner.interactive => progress.stage(mark),
        Update::Console(bytes) if console => {
            let mut out = std::io::stdout().lock();
            // A reader that went away is no reason to end an instance.
            let _ = out.write_all(bytes).and_then(|()| out.flush());
        }
        Update::Warning(text) => progress.warning(text),
        _ => {}
    };
    let report = watch(&mut running.session, manner.goal, patience, &interrupts, &result_is_there, &mut show);
    drop(raw);
    (report, running)
}

/// After the end: the verdict, the logs, what is kept, and the exit status.
#[expect(clippy::too_many_arguments, reason = "the two ends of one story: what was launched and what came of it")]
fn conclude(
    region: &mut Region,
    instance: &mut Instance,
    watched: Report,
    running: Running,
    args: &LaunchArgs,
    manner: &Manner,
    records: &Path,
    progress: &Progress,
) -> Result<u8, CliError> {
    // A guest that was still running when the time ran out or the user lost patience has no verdict.
    let judged = watched.synced && watched.finished.is_some();
    let looked = watched.synced.then(|| report::read_files(&*running.disk, records));
    let verdict = match (&looked, judged) {
        (Some(files), true) => Some(crate::host::verdict::judge(files)),
        _ => None,
    };
    report::timings(args.timings, running.session.marks(), verdict.as_ref(), instance)?;
    let failed = match &watched.end {
        End::Failed { text, causes } => {
            let mut error = CliError::new(exit::OTHER, text.clone());
            error.causes.clone_from(causes);
            Some(error)
        }
        _ => None,
    };
    let status = match failed {
        Some(error) => Err(error),
        None => Ok(report::tell(&watched, manner.goal, verdict.as_ref(), &running.session, progress)),
    };
    drop(running);
    let keep = manner.keep && !matches!(watched.end, End::Failed { .. });
    region
        .end_run(instance, EndOfRun { reason: state_reason(&watched), verdict })
        .map_err(|e| super::region_error(&e))?;
    if keep {
        let id = &instance.instance_id;
        progress.note(&format!("kept {id}: amiable console {id}; amiable imds-log {id}; amiable terminate {id}"));
        if looked.is_some() {
            progress.note(&format!("the guest's own logs: {}", records.join(report::GUEST_LOGS).display()));
        }
    } else {
        if !matches!(status, Ok(0)) {
            let kept = report::keep_logs(records, region.paths(), &instance.instance_id);
            kept.iter().for_each(|path| progress.note(&format!("full logs: {}", path.display())));
        }
        region.terminate(instance).map_err(|e| super::region_error(&e))?;
    }
    status
}

fn state_reason(watched: &Report) -> StateReason {
    match (&watched.end, watched.reason) {
        (End::PowerOff, Reason::Ended) => {
            StateReason::new("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
        }
        (End::Crashed { text }, _) => StateReason::new("Server.InternalError", text),
        (End::Failed { text, .. }, _) => StateReason::new("Server.InternalError", text),
        _ => StateReason::new("Client.UserInitiatedShutdown", "User initiated shutdown"),
    }
}

/// Print what `--timings` asks for.
pub(super) fn print_timings(form: Timings, value: &serde_json::Value) -> Result<(), CliError> {
    match form {
        Timings::Json => write_out(&format!("{value}\n")),
        Timings::Text => {
            let empty = Vec::new();
            let mut text = String::new();
            for stage in value["Stages"].as_array().unwrap_or(&empty) {
                let name = stage["Stage"].as_str().unwrap_or_default();
                text.push_str(&format!("{:>12.3} ms  {name}\n", stage["Milliseconds"].as_f64().unwrap_or_default()));
            }
            write_out(&text)
        }
    }
}
