//! Instances in the background: stopped, started, rebooted, waited for, changed, terminated, looked into.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::args::{ModifyArgs, WaitState};
use super::error::{CliError, exit};
use super::instances::not_found;
use super::output::write_out;
use super::progress::Progress;
use super::{launch, open_region, region_error, report, run, tags, terminal, types, user_data};
use crate::ec2::instance_types::check_runnable;
use crate::host::control::{Message, Request};
use crate::host::logs::{GUEST_LOGS, OUTPUT_LOG};
use crate::host::observer::{AskError, Observer};
use crate::host::session::Update;
use crate::region::capacity::host_facts;
use crate::region::error::RegionError;
use crate::region::model::{Instance, StateName};
use crate::region::{Modification, Region};

/// A process that was told to end does so within the guest's grace; in the emulated host that is ten minutes.
const MOST_PATIENCE: Duration = Duration::from_secs(900);

/// After this time it is asked whether the process listens at all.
const A_WHILE: Duration = Duration::from_secs(10);

/// Do something with each of several instances. What fails does not keep the others from it; the worst status is answered.
fn each(keys: &[String], mut work: impl FnMut(&mut Region, &Instance) -> Result<u8, CliError>) -> Result<u8, CliError> {
    let mut region = open_region()?;
    let mut status = 0;
    for key in keys {
        let done = match region.instance(key) {
            Ok(instance) => work(&mut region, &instance),
            Err(error) => Err(not_found(&error)),
        };
        match done {
            Ok(code) => status = status.max(code),
            Err(error) if keys.len() == 1 => return Err(error),
            Err(error) => {
                eprintln!("{error}");
                status = status.max(error.exit);
            }
        }
    }
    Ok(status)
}

fn transition(id: &str, (before, after): (StateName, StateName)) -> Result<u8, CliError> {
    write_out(&format!("{id}  {} -> {}\n", before.as_str(), after.as_str()))?;
    Ok(0)
}

/// `amiable stop`.
pub fn stop(keys: &[String], force: bool, wait: bool) -> Result<u8, CliError> {
    each(keys, |region, instance| {
        let id = &instance.instance_id;
        let (before, after) = region.stop_instance(id, force).map_err(|e| region_error(&e))?;
        let after = if wait { settle(region, id)? } else { after };
        transition(id, (before, after))
    })
}

/// Wait until the instance's process has ended.
fn settle(region: &mut Region, id: &str) -> Result<StateName, CliError> {
    let failed = |e: RegionError| region_error(&e);
    let mut ended = region.await_end(id, A_WHILE).map_err(failed)?;
    if !ended && region.reconcile().map_err(failed)?.iter().any(|deaf| deaf == id) {
        return Err(CliError::new(exit::OTHER, format!("the process of {id} hangs"))
            .next(format!("amiable stop --force {id}, or: amiable terminate {id}")));
    }
    if !ended {
        ended = region.await_end(id, MOST_PATIENCE).map_err(failed)?;
    }
    if !ended {
        let what = format!("the process of {id} does not end");
        return Err(CliError::new(exit::OTHER, what).next(format!("amiable stop --force {id}")));
    }
    Ok(region.instance(id).map_err(|e| region_error(&e))?.state.name)
}

/// `amiable start`.
pub fn start(keys: &[String], emulate: bool, started: Instant) -> Result<u8, CliError> {
    let progress = Progress::new();
    each(keys, |region, instance| {
        start_one(region, instance, emulate, started, &progress)?;
        transition(&instance.instance_id, (instance.state.name, StateName::Running))
    })
}

fn start_one(
    region: &mut Region,
    instance: &Instance,
    emulate: bool,
    started: Instant,
    progress: &Progress,
) -> Result<(), CliError> {
    let id = &instance.instance_id;
    let of = types::find(&instance.instance_type)?;
    let warnings = check_runnable(&of, &host_facts()).map_err(|e| region_error(&e.into()))?;
    warnings.iter().for_each(|w| progress.warning(&w.message));
    // Where it ran before, it was asked to.
    let way = launch::choose(emulate || instance.amiable.emulated, region.paths())?;
    let pending = region.start_instance(id, way.is_emulated()).map_err(|e| region_error(&e))?;
    let mut observer = region.start_process(pending, None, &way, false, started).map_err(|e| region_error(&e))?;
    run::wait_until_it_runs(&mut observer)
}

/// `amiable image create`.
pub fn create_image(key: &str, name: &str, reboot: bool, emulate: bool, started: Instant) -> Result<(), CliError> {
    let mut region = open_region()?;
    let instance = region.instance(key).map_err(|e| not_found(&e))?;
    let id = &instance.instance_id;
    let progress = Progress::new();
    let runs = instance.state.name == StateName::Running;
    if runs && reboot {
        progress.note(&format!("{id} is stopped for it, and started again (--no-reboot leaves it running)"));
        region.stop_instance(id, false).map_err(|e| region_error(&e))?;
        settle(&mut region, id)?;
    } else if runs && let Ok(mut observer) = connect(&region, &instance) {
        // What the guest has not written yet is worth having; without it the image is what a power failure leaves.
        let _ = observer.ask(Request::FetchLogs, Duration::from_secs(60));
    }
    let made = region.create_image(&instance, name);
    let restarted =
        if runs && reboot { start_one(&mut region, &instance, emulate, started, &progress) } else { Ok(()) };
    write_out(&format!("{}\n", made.map_err(|e| region_error(&e))?.image_id))?;
    restarted
}

/// `amiable reboot`.
pub fn reboot(keys: &[String]) -> Result<u8, CliError> {
    each(keys, |region, instance| {
        region.reboot_instance(&instance.instance_id).map_err(|e| region_error(&e))?;
        write_out(&format!("{}\n", instance.instance_id))?;
        Ok(0)
    })
}

/// `amiable terminate`.
pub fn terminate(keys: &[String]) -> Result<u8, CliError> {
    each(keys, |region, instance| {
        let id = &instance.instance_id;
        let (before, _) = region.terminate_instance(id).map_err(|e| match e.code() {
            Some("OperationNotPermitted") => {
                region_error(&e).next(format!("amiable modify {id} --termination-protection false"))
            }
            _ => region_error(&e),
        })?;
        let after = settle(region, id)?;
        transition(id, (before, after))
    })
}

/// `amiable modify`.
pub fn modify(args: ModifyArgs) -> Result<(), CliError> {
    let mut region = open_region()?;
    let instance = region.instance(&args.instance).map_err(|e| not_found(&e))?;
    let data = match &args.user_data {
        Some(path) => {
            let bytes = user_data::read(path)?;
            user_data::check(path, &bytes, false)?;
            Some(Some(bytes))
        }
        None => args.no_user_data.then_some(None),
    };
    let change = Modification {
        instance_type: args.instance_type.as_deref().map(types::find).transpose()?,
        user_data: data,
        shutdown_behavior: args.shutdown_behavior.map(Into::into),
        termination_protection: args.termination_protection,
        metadata_options: args.metadata_options,
        security_groups: Some(args.security_group).filter(|groups| !groups.is_empty()),
    };
    let shown = change.metadata_options.is_some();
    let id = &instance.instance_id;
    region.modify_instance(id, change).map_err(|e| match e.code() {
        Some("IncorrectInstanceState") => region_error(&e).next(format!("amiable stop {id}")),
        Some("InvalidGroup.NotFound") => region_error(&e).next("amiable security-group ls"),
        _ => region_error(&e),
    })?;
    if shown {
        tags::show(&region, id);
    }
    write_out(&format!("{id}\n"))
}

/// `amiable wait`.
pub fn wait(state: WaitState, keys: &[String], timeout: Option<Duration>) -> Result<u8, CliError> {
    let until = timeout.map(|limit| Instant::now() + limit);
    let progress = Progress::new();
    each(keys, |region, instance| match state {
        WaitState::UserData => wait_for_user_data(region, instance, until, &progress),
        _ => wait_for_state(region, instance, state, until),
    })
}

fn wait_for_state(
    region: &mut Region,
    instance: &Instance,
    wanted: WaitState,
    until: Option<Instant>,
) -> Result<u8, CliError> {
    let id = &instance.instance_id;
    loop {
        region.reconcile().map_err(|e| region_error(&e))?;
        let is = region.instance(id).map_err(|e| region_error(&e))?.state.name;
        let (reached, hopeless) = match wanted {
            WaitState::Running => (is == StateName::Running, matches!(is, StateName::Terminated | StateName::Stopped)),
            WaitState::Stopped => (is == StateName::Stopped, is == StateName::Terminated),
            _ => (is == StateName::Terminated, false),
        };
        if reached {
            return Ok(0);
        }
        if hopeless {
            return Err(CliError::new(exit::REGION, format!("{id} is {} and stays so", is.as_str())));
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(CliError::new(exit::TIMEOUT, format!("{id} is still {}", is.as_str())));
        }
        // States are changed by other processes, in the store; it has no way to tell.
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_for_user_data(
    region: &mut Region,
    instance: &Instance,
    until: Option<Instant>,
    progress: &Progress,
) -> Result<u8, CliError> {
    let id = &instance.instance_id;
    let lacks = || {
        let what = format!("{id} is not running, and its user-data was never judged");
        CliError::new(exit::REGION, what).next(format!("amiable start {id}"))
    };
    let mut verdict = None;
    if let Ok((greeting, mut observer)) = Observer::connect(&region.paths().control(id)) {
        verdict = greeting.judged.flatten();
        observer.send(Message::Follow);
        while verdict.is_none() {
            let wait = until.map_or(Duration::from_secs(3600), |u| u.saturating_duration_since(Instant::now()));
            match observer.next(wait) {
                Some(Update::Judged(found)) => verdict = found,
                Some(Update::Ended(_)) => break,
                None if until.is_some_and(|until| Instant::now() >= until) => {
                    return Err(CliError::new(exit::TIMEOUT, format!("the user-data of {id} is not through")));
                }
                _ => {}
            }
        }
    }
    let recorded = || region.instance(id).ok().and_then(|instance| instance.amiable.verdict);
    let verdict = verdict.or_else(recorded).ok_or_else(lacks)?;
    report::tell_verdict(&verdict, progress);
    Ok(u8::try_from(verdict.exit_code()).unwrap_or(1))
}

/// The process of a running instance.
fn connect(region: &Region, instance: &Instance) -> Result<Observer, CliError> {
    let id = &instance.instance_id;
    match Observer::connect(&region.paths().control(id)) {
        Ok((_, observer)) => Ok(observer),
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Err(CliError::from_error(exit::OTHER, &error)),
        Err(_) => {
            let error = crate::ec2::Ec2Error::new("IncorrectInstanceState", format!("{id} is not running"));
            Err(region_error(&RegionError::from(error)).next(format!("amiable start {id}")))
        }
    }
}

/// `amiable console --attach`.
pub fn attach(key: &str) -> Result<(), CliError> {
    let region = open_region()?;
    let instance = region.instance(key).map_err(|e| not_found(&e))?;
    let mut observer = connect(&region, &instance)?;
    observer.send(Message::Follow);
    let progress = Progress::new();
    progress.note("connected to the serial console; Ctrl-] leaves it");
    let leave = Arc::new(AtomicU32::new(0));
    let raw = terminal::connect(observer.orders(), &leave, 1);
    while leave.load(Ordering::Relaxed) == 0 && !observer.has_ended() {
        if let Some(Update::Console(bytes)) = observer.next(Duration::from_millis(100)) {
            use std::io::Write;
            let mut out = std::io::stdout().lock();
            if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                break;
            }
        }
    }
    drop(raw);
    progress.note(if observer.has_ended() { "\nthe instance ended" } else { "\nleft the console" });
    Ok(())
}

/// `amiable logs`.
pub fn logs(key: &str) -> Result<(), CliError> {
    let region = open_region()?;
    let instance = region.instance(key).map_err(|e| not_found(&e))?;
    let id = &instance.instance_id;
    if instance.state.name == StateName::Running {
        let mut observer = connect(&region, &instance)?;
        match observer.ask(Request::FetchLogs, Duration::from_secs(60)) {
            Ok(()) => {}
            // It is told, and what there is is shown.
            Err(AskError::Refused(text)) => Progress::new().warning(&text),
            Err(error) => return Err(CliError::from_error(exit::OTHER, &error)),
        }
    }
    let path = region.paths().instance(id).join(GUEST_LOGS).join(OUTPUT_LOG);
    match std::fs::read(&path) {
        Ok(bytes) => write_out(&String::from_utf8_lossy(&bytes)),
        Err(_) => {
            let what = format!("{id} has no {OUTPUT_LOG} yet: cloud-init has not got that far");
            Err(CliError::new(exit::OTHER, what).next(format!("amiable console {id}")))
        }
    }
}
