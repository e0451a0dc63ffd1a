//! On this machine: finds and makes what is needed, has it carried out here or in the emulated host, and prints the document.

use std::any::Any;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use amiable::boot::cache::KernelCache;
use amiable::boot::plan::{InitrdPolicy, prepare};
use amiable::boot::{SharedDisk, partitions};
use amiable::emulate::kernel::{KERNEL_VARIABLE, Search};
use amiable::emulate::{Cache, Drive, EmulatedHost, Kernel, binary};

use super::beside::{ALIVE, Plan};
use super::figures::Figures;
use super::settings::{Group, Monitor, Settings};
use super::{Failure, debian};

/// The partition of the tiny image that is empty and holds the guest's part.
const PARTITION: u32 = 15;
/// The other end says something every two seconds on its clock; under icount that is some ten seconds here.
const SILENCE: Duration = Duration::from_secs(100);
const BOOT: Duration = Duration::from_secs(300);
/// How many emulated hosts may be needed for one monitor.
const HOSTS: usize = 8;
pub const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// What QEMU reads to start a PVH kernel.
const FIRMWARE: [&str; 4] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/pvh.bin",
];

/// Where a built thing lies.
pub fn target(path: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path);
    if path.exists() { Ok(path) } else { Err(format!("{} is missing: tests/run makes it", path.display()).into()) }
}

/// amiable's static binary.
pub fn amiable() -> Result<PathBuf, Failure> {
    target("x86_64-unknown-linux-musl/release/amiable")
}

/// The emulated host's kernel: the named one, or the one that `tests/run` builds.
pub fn kernel() -> Result<Kernel, Failure> {
    let named = std::env::var_os(KERNEL_VARIABLE).map(PathBuf::from);
    let named = named.or_else(|| target("images/emulated-host").ok());
    Ok(Search { named, root: Some("/".into()), ..Search::default() }.find()?)
}

/// All of it.
pub fn main(settings: &Settings) -> Result<(), Failure> {
    let work = tempfile::tempdir_in(target("")?)?;
    let mut figures = Figures::default();
    let result = measure(settings, work.path(), &mut figures);
    // After a failure, what there is.
    println!("{}", figures.document(settings.emulated && settings.icount));
    result
}

fn measure(settings: &Settings, work: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let beside: Vec<Group> = settings.groups.iter().copied().filter(|group| *group != Group::Test).collect();
    if !beside.is_empty() {
        let mut plan = plan(settings, beside, work)?;
        for monitor in &settings.monitors {
            plan.monitor = *monitor;
            carry_out(settings, plan.clone(), figures)?;
        }
    }
    if settings.groups.contains(&Group::Test) {
        debian::measure(settings, work, figures)?;
    }
    Ok(())
}

fn plan(settings: &Settings, groups: Vec<Group>, work: &Path) -> Result<Plan, Failure> {
    let image = work.join("machine.raw");
    let copied = Command::new("cp").arg("--sparse=always").arg(target("images/tiny.raw")?).arg(&image).status()?;
    if !copied.success() {
        return Err(format!("cp: {copied}").into());
    }
    let program = binary::read_static(&std::env::current_exe()?)
        .map_err(|e| format!("run it with --target x86_64-unknown-linux-musl: {e}"))?;
    let disk: SharedDisk = Arc::new(File::open(&image)?);
    let table = partitions::read(&*disk)?;
    let place = table.partitions.iter().find(|p| p.index == PARTITION).filter(|p| p.length >= program.len() as u64);
    let place = place.ok_or("the tiny image has no partition 15 to put the guest's part into")?;
    File::options().write(true).open(&image)?.write_all_at(&program, place.start)?;
    let cache = KernelCache::open(work)?;
    let boot = prepare(&disk, &cache, InitrdPolicy::Auto, None)?;
    Ok(Plan {
        monitor: Monitor::Amiable,
        groups: groups.iter().flat_map(|group| vec![*group; settings.runs]).collect(),
        amiable: amiable()?,
        qemu: QEMU.into(),
        kernel: cache.path(&boot.kernel).ok_or("the kernel is not in the cache")?,
        cmdline: boot.cmdline,
        image,
        program_mib: program.len().div_ceil(1 << 20),
        work: work.join("work"),
    })
}

/// Run by run. An emulated host that as good as stands still is replaced, and the next goes on with what is left: under icount,
/// QEMU's loop sometimes comes back from each few instructions with nothing done, and time-outs inside are no help, for they
/// wait for the same clock.
fn carry_out(settings: &Settings, mut plan: Plan, figures: &mut Figures) -> Result<(), Failure> {
    let name = plan.monitor.name();
    for _ in 0..HOSTS {
        let (output, _host) = if settings.emulated { emulated(settings, &plan)? } else { native(&plan)? };
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        let mut prepared = false;
        while let (false, Ok(line)) = (plan.groups.is_empty(), lines.recv_timeout(SILENCE)) {
            if line == ALIVE {
                continue;
            }
            figures.append(serde_json::from_str(&line)?);
            if std::mem::replace(&mut prepared, true) {
                let group = plan.groups.remove(0);
                eprintln!("{name}: {group:?}, {} runs left: {line}", plan.groups.len());
            } else {
                eprintln!("{name}: prepared");
            }
        }
        if plan.groups.is_empty() {
            return Ok(());
        }
        if !settings.emulated {
            break;
        }
        eprintln!("{name}: the emulated host ended or stands still; another takes its place");
    }
    Err(format!("{name}: {} runs were not done", plan.groups.len()).into())
}

/// Where the figures come from, and what keeps their source alive.
type Source = (Box<dyn Read + Send>, Box<dyn Any>);

/// On this machine's KVM; files lie in /dev/shm, as in the emulated host they lie on tmpfs.
fn native(plan: &Plan) -> Result<Source, Failure> {
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let plan = Plan { work: memory.path().to_owned(), ..plan.clone() };
    let file = memory.path().join("plan.json");
    std::fs::write(&file, serde_json::to_vec(&plan)?)?;
    let mut child =
        Command::new(std::env::current_exe()?).arg("beside").arg(&file).stdout(std::process::Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    Ok((Box::new(output), Box::new(memory)))
}

/// In an emulated host.
fn emulated(settings: &Settings, plan: &Plan) -> Result<Source, Failure> {
    let inside = Plan {
        amiable: "/root/amiable".into(),
        kernel: "/root/vmlinux".into(),
        image: EmulatedHost::device(0).into(),
        work: "/tmp/machine".into(),
        ..plan.clone()
    };
    let mut host = EmulatedHost::new(kernel()?, ["beside", "/root/plan.json"])
        .binary(amiable()?)
        .program("/root/machine")
        .icount(settings.icount)
        .memory_mib(3072)
        .boot_timeout(BOOT)
        .drive(Drive { path: plan.image.clone(), read_only: true, cache: Cache::Unsafe })
        .file("/root/machine", 0o755, binary::read_static(&std::env::current_exe()?)?)
        .file("/root/plan.json", 0o600, serde_json::to_vec(&inside)?);
    // Not the emulated host's own /init: pages of a file that two processes run count half for each.
    host = match plan.monitor {
        Monitor::Amiable => host.file("/root/amiable", 0o755, binary::read_static(&amiable()?)?),
        Monitor::Qemu => with_qemu(host)?.file("/root/vmlinux", 0o644, std::fs::read(&plan.kernel)?),
    };
    eprintln!("{}: an emulated host starts", plan.monitor.name());
    let mut running = host.start()?;
    let messages = running.stderr.take().ok_or("no messages")?;
    std::thread::spawn(move || {
        BufReader::new(messages).lines().map_while(Result::ok).for_each(|line| eprintln!("{line}"))
    });
    let output = running.stdout.take().ok_or("no output")?;
    Ok((Box::new(output), Box::new(running)))
}

/// QEMU with its libraries and firmware at the places that it knows.
pub fn with_qemu(mut host: EmulatedHost) -> Result<EmulatedHost, Failure> {
    let libraries = Command::new("ldd").arg(QEMU).output().map_err(|e| format!("ldd: {e}"))?;
    let libraries = String::from_utf8(libraries.stdout)?;
    // "name => /path (address)", and for the dynamic loader "/path (address)".
    let paths = libraries.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    for path in paths.chain(FIRMWARE).chain([QEMU]) {
        let content = std::fs::read(path).map_err(|e| format!("{path}: {e}: sudo apt-get install qemu-system-x86"))?;
        host = host.file(path, 0o755, content);
    }
    Ok(host)
}
