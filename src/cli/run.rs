//! `amiable run` and `amiable test`: launch, watch, tell.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::args::{LaunchArgs, RerunArgs, RunArgs, TestArgs, Timings, Wait};
use super::error::{CliError, exit};
use super::output::write_out;
use super::progress::Progress;
use super::{launch, report, security_groups, terminal, types, user_data};
use crate::ec2::instance_types::check_runnable;
use crate::ec2::metadata_options::MetadataOptions;
use crate::host::event::End;
use crate::host::logs::GUEST_LOGS;
use crate::host::observer::Observer;
use crate::host::process::Way;
use crate::host::session::Update;
use crate::host::spec::PortForward;
use crate::host::stage::Stage;
use crate::host::watch::{Finally, Goal, Patience, Report, Watcher, watch};
use crate::region::capacity::host_facts;
use crate::region::model::{Instance, ShutdownBehavior};
use crate::region::process::Starting;
use crate::region::{LaunchParameters, LaunchRequest, Pending, Region};

/// How a launch is shown and what is left of it.
struct Manner {
    goal: Goal,
    count: u32,
    detach: bool,
    console: bool,
    interactive: bool,
    keep: bool,
    throw_away: bool,
    private_ip: Option<Ipv4Addr>,
    shutdown_behavior: ShutdownBehavior,
    /// Whether it gets the region's own key pair if none is named.
    default_key: bool,
}

impl Manner {
    /// Whether the instance is of no use without this command.
    fn bound_to_command(&self) -> bool {
        !self.keep && !self.detach
    }
}

/// `amiable run`.
pub fn run(args: RunArgs, emulate: bool, started: Instant) -> Result<u8, CliError> {
    let goal = if args.wait == Some(Wait::UserData) { Goal::UserData } else { Goal::PowerOff };
    if args.count > 1 && !args.detach {
        let what = "several instances can't share this terminal";
        return Err(CliError::new(exit::USAGE, what).next("amiable run … --count N --detach"));
    }
    let manner = Manner {
        goal,
        count: args.count,
        detach: args.detach,
        console: !args.quiet && !args.interactive && !args.detach,
        interactive: args.interactive,
        keep: !args.rm,
        throw_away: args.throw_away,
        private_ip: args.private_ip,
        shutdown_behavior: args.shutdown_behavior.map_or(ShutdownBehavior::Stop, Into::into),
        default_key: true,
    };
    launch_and_watch(&args.image, args.user_data.as_deref(), &args.launch, &manner, emulate, started)
}

/// `amiable test`.
pub fn test(args: TestArgs, emulate: bool, started: Instant) -> Result<u8, CliError> {
    let manner = Manner {
        goal: Goal::UserData,
        count: 1,
        detach: false,
        console: args.verbose,
        interactive: false,
        keep: args.keep,
        throw_away: !args.keep,
        private_ip: None,
        shutdown_behavior: ShutdownBehavior::Stop,
        default_key: args.keep,
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
    let way = launch::choose(emulate, &super::paths()?)?;
    let beginning = Place::begin(&way);
    let mut region = super::open_region()?;
    let request = request(&mut region, image, data, args, manner, &way, &progress)?;
    let place = Place::prepare(way, beginning, &region, &request);
    launch_request(region, &request, args, manner, place, &progress, started)
}

/// Where an instance will run, and the process for it: that starts, and prepares what it can, while the instance is recorded.
struct Place {
    way: Way,
    starting: Option<Starting>,
}

/// A process that is being started by a thread: this one would wait for as long as it takes to find the image.
type Beginning = Option<JoinHandle<std::io::Result<Starting>>>;

impl Place {
    /// One that can't be started now is tried again, and told of, when there is an instance for it.
    fn begin(way: &Way) -> Beginning {
        let native = !way.is_emulated();
        native.then(|| std::thread::Builder::new().name("start".into()).spawn(Starting::new).ok()).flatten()
    }

    fn prepare(way: Way, beginning: Beginning, region: &Region, request: &LaunchRequest) -> Self {
        let mut starting = beginning.and_then(|thread| thread.join().ok()?.ok());
        starting.take_if(|starting| starting.prepare(region, request).is_err());
        Place { way, starting }
    }
}

/// `amiable rerun`: what an instance was launched with, once more, with other user-data if that is given.
pub fn rerun(args: RerunArgs, emulate: bool, started: Instant) -> Result<u8, CliError> {
    let progress = Progress::new();
    let region = super::open_region()?;
    let instance = region.instance(&args.instance).map_err(|e| super::instances::not_found(&e))?;
    let mut request = region.relaunch(&instance).map_err(|e| super::region_error(&e))?;
    if let Some(path) = &args.user_data {
        let bytes = user_data::read(path)?;
        user_data::check(path, &bytes, args.strict)?;
        request.parameters.user_data = Some(bytes);
    }
    let manner = Manner {
        goal: if args.wait == Some(Wait::UserData) { Goal::UserData } else { Goal::PowerOff },
        count: 1,
        detach: args.detach,
        console: !args.quiet && !args.detach,
        interactive: false,
        keep: !args.rm,
        throw_away: request.parameters.throw_away,
        private_ip: None,
        shutdown_behavior: request.shutdown_behavior,
        default_key: false,
    };
    let way = launch::choose(emulate || instance.amiable.emulated, region.paths())?;
    let place = Place::prepare(way.clone(), Place::begin(&way), &region, &request);
    request.emulated = way.is_emulated();
    request.bound_to_command = manner.bound_to_command();
    let shared = LaunchArgs { timeout: args.timeout, timings: args.timings, ..LaunchArgs::default() };
    launch_request(region, &request, &shared, &manner, place, &progress, started)
}

fn launch_request(
    mut region: Region,
    request: &LaunchRequest,
    args: &LaunchArgs,
    manner: &Manner,
    place: Place,
    progress: &Progress,
    started: Instant,
) -> Result<u8, CliError> {
    let mut launched = region.run_instances(request, manner.count).map_err(|e| match e.code() {
        Some("InvalidGroup.NotFound") => super::region_error(&e).next("amiable security-group ls"),
        _ => super::region_error(&e),
    })?;
    if let Some(first) = launched.first() {
        security_groups::closed_ports(&region, &first.instance)?.iter().for_each(|text| progress.warning(text));
    }
    if place.way.is_emulated() {
        progress.note("emulated host: QEMU TCG with nested SVM; expect a minute where KVM takes seconds");
    }
    if manner.detach {
        return detach(&mut region, launched, place, args, manner, progress, started);
    }
    let Some(pending) = launched.pop() else { return Ok(0) };
    let instance = pending.instance.clone();
    let Place { way, starting } = place;
    let mut observer = region
        .start_process(pending, starting, &way, manner.bound_to_command(), started)
        .map_err(|e| super::region_error(&e))?;
    progress.note(&headline(&instance, &request.image.name));
    let watched = follow(&mut region, &instance, &mut observer, args, manner, &way, progress);
    conclude(&mut region, &instance, &watched, &observer, args, manner, progress)
}

fn headline(instance: &Instance, image: &str) -> String {
    format!("{}  {} from {} ({})", instance.instance_id, instance.instance_type, image, instance.private_ip_address)
}

/// Start instances and leave them running: their ids on standard output, when their guests run or, with `--wait user-data`,
/// when that is through.
fn detach(
    region: &mut Region,
    launched: Vec<Pending>,
    place: Place,
    args: &LaunchArgs,
    manner: &Manner,
    progress: &Progress,
    started: Instant,
) -> Result<u8, CliError> {
    let Place { way, mut starting } = place;
    let mut observers = Vec::new();
    for pending in launched {
        let instance = pending.instance.clone();
        let observer = region
            .start_process(pending, starting.take(), &way, false, started)
            .map_err(|e| super::region_error(&e))?;
        observers.push((instance, observer));
    }
    let mut status = 0;
    for (instance, mut observer) in observers {
        if let Err(error) = wait_until_it_runs(&mut observer) {
            // The others go on; what failed is told.
            eprintln!("{}: {error}", instance.instance_id);
            status = error.exit;
            continue;
        }
        write_out(&format!("{}\n", instance.instance_id))?;
        if manner.goal == Goal::UserData {
            let watched = follow(region, &instance, &mut observer, args, manner, &way, progress);
            status = status.max(report::tell(&watched, manner.goal, &observer, progress));
        }
    }
    Ok(status)
}

/// The guest runs, or the launch failed.
pub(super) fn wait_until_it_runs(observer: &mut Observer) -> Result<(), CliError> {
    loop {
        match observer.next(Duration::from_secs(600)) {
            Some(Update::Stage(mark)) if mark.stage == Stage::Machine => return Ok(()),
            Some(Update::Ended(End::Failed { text, causes })) => {
                return Err(CliError { causes, ..CliError::new(exit::OTHER, text) });
            }
            Some(Update::Ended(_)) => return Ok(()),
            Some(_) => {}
            None => return Err(CliError::new(exit::OTHER, "the instance did not start within ten minutes")),
        }
    }
}

/// All that a launch asks for, checked as EC2 and this machine would.
fn request(
    region: &mut Region,
    image: &str,
    data: Option<&Path>,
    args: &LaunchArgs,
    manner: &Manner,
    way: &Way,
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
    let key = launch::key(region, args, manner.default_key).map_err(|e| e.next("amiable key ls"))?;
    let mut forwards: Vec<PortForward> = args.publish.iter().map(|p| (*p).into()).collect();
    if key.is_some() && !forwards.iter().any(|f| f.guest_port == 22 && !f.udp) {
        // For `amiable ssh`: any free port, on this machine only.
        forwards.push(PortForward { host: (Ipv4Addr::LOCALHOST, 0).into(), guest_port: 22, udp: false });
    }
    let (key_name, public_key) = key.unzip();
    Ok(LaunchRequest {
        image,
        instance_type,
        metadata_options,
        tags,
        security_groups: args.security_group.clone(),
        private_ip: manner.private_ip,
        root_size: args.root_size,
        volumes: args.volume.clone(),
        provisioned: args.provisioned.into(),
        shutdown_behavior: manner.shutdown_behavior,
        termination_protection: false,
        emulated: way.is_emulated(),
        bound_to_command: manner.bound_to_command(),
        parameters: LaunchParameters {
            user_data,
            key_name,
            public_key,
            throw_away: manner.throw_away,
            forwards,
            host_loopback: args.host_loopback,
            limits: args.limits,
            no_public_address: args.no_associate_public_ip_address,
            kernel: args.kernel.as_deref().map(launch::existing_file).transpose()?,
            initrd: args.initrd.as_deref().map(launch::existing_file).transpose()?,
            append: args.append.clone(),
            keep_initrd: args.keep_initrd,
        },
    })
}

/// Shows what happens, and records that the user ends it.
struct Screen<'a> {
    region: &'a mut Region,
    instance_id: &'a str,
    progress: &'a Progress,
    console: bool,
    stages: bool,
}

impl Watcher for Screen<'_> {
    fn show(&mut self, update: &Update) {
        match update {
            Update::Stage(mark) if self.stages => self.progress.stage(mark),
            Update::Console(bytes) if self.console => {
                let mut out = std::io::stdout().lock();
                // A reader that went away is no reason to end an instance.
                let _ = out.write_all(bytes).and_then(|()| out.flush());
            }
            Update::Published(ports) => {
                for port in ports {
                    self.progress.note(&format!("{} leads to the guest's port {}", port.host, port.guest_port));
                }
            }
            Update::Warning(text) => self.progress.warning(text),
            _ => {}
        }
    }

    fn ending(&mut self) {
        if let Err(error) = self.region.mark_stopping(self.instance_id) {
            self.progress.warning(&error.to_string());
        }
    }
}

/// Watch the instance to its end, or until what was waited for is there.
fn follow(
    region: &mut Region,
    instance: &Instance,
    observer: &mut Observer,
    args: &LaunchArgs,
    manner: &Manner,
    way: &Way,
    progress: &Progress,
) -> Report {
    let interrupts = Arc::new(AtomicU32::new(0));
    let _handlers = terminal::count_interrupts(&interrupts);
    let raw = manner.interactive.then(|| terminal::connect(observer.orders(), &interrupts, 0));
    // Emulated guests are slow in everything: all patience is measured for them tenfold.
    let scale = if way.is_emulated() { 10 } else { 1 };
    let usual =
        (manner.goal == Goal::UserData).then(|| Duration::from_secs(if way.is_emulated() { 3600 } else { 600 }));
    let patience = Patience {
        timeout: args.timeout.or(usual),
        sync: Duration::from_secs(3 * scale),
        grace: Duration::from_secs(20 * scale),
    };
    let finally = if manner.detach { Finally::LeaveRunning } else { Finally::End };
    let mut screen = Screen {
        region,
        instance_id: &instance.instance_id,
        progress,
        console: manner.console || manner.interactive,
        stages: !manner.interactive,
    };
    let report = watch(observer, manner.goal, finally, patience, &interrupts, &mut screen);
    drop(raw);
    report
}

/// After the end: the verdict, the logs, what is kept, and the exit status.
fn conclude(
    region: &mut Region,
    instance: &Instance,
    watched: &Report,
    observer: &Observer,
    args: &LaunchArgs,
    manner: &Manner,
    progress: &Progress,
) -> Result<u8, CliError> {
    report::timings(args.timings, observer.marks(), watched.verdict.as_ref(), instance)?;
    if let Some(End::Failed { text, causes }) = &watched.end {
        // It is stopped, or deleted if it never ran: its process saw to that, or the next command does.
        return Err(CliError { causes: causes.clone(), ..CliError::new(exit::OTHER, text.clone()) });
    }
    let status = report::tell(watched, manner.goal, observer, progress);
    let id = &instance.instance_id;
    let records = region.paths().instance(id);
    if manner.keep {
        progress.note(&format!("kept {id}: amiable console {id}; amiable start {id}; amiable terminate {id}"));
        let logs = records.join(GUEST_LOGS);
        if logs.exists() {
            progress.note(&format!("the guest's own logs: {}", logs.display()));
        }
    } else {
        if status != 0 {
            let kept = report::keep_logs(&records, region.paths(), id);
            kept.iter().for_each(|path| progress.note(&format!("full logs: {}", path.display())));
        }
        region.terminate_instance(id).map_err(|e| super::region_error(&e))?;
    }
    Ok(status)
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
