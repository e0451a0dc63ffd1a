//! Beside the monitors, on whichever host they run: starts them, reads their consoles and the host's books.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::figures::Figures;
use super::monitors::{self, Guest, IMAGE};
use super::settings::{Group, Monitor};

/// What to measure with what.
#[derive(Clone, Serialize, Deserialize)]
pub struct Plan {
    pub monitor: Monitor,
    /// A group for each run, in this order.
    pub groups: Vec<Group>,
    /// The static binary.
    pub amiable: PathBuf,
    pub qemu: PathBuf,
    /// The image's kernel, unpacked, and its command line: for QEMU.
    pub kernel: PathBuf,
    pub cmdline: String,
    /// The tiny image with this program in its partition 15.
    pub image: PathBuf,
    pub program_mib: usize,
    /// A directory in memory.
    pub work: PathBuf,
}

/// The size of the area on which disks are measured, in MiB, and where it begins: behind the tiny image.
const AREA_MIB: u64 = 64;
const AREA: u64 = 256 << 20;
/// How often a guest may die.
const ATTEMPTS: usize = 3;
/// Counters of KVM.
const KVM: &str = "/sys/kernel/debug/kvm";

/// What is said every [`BEAT`], so that the other end sees a clock that stands.
pub const ALIVE: &str = "alive";
const BEAT: Duration = Duration::from_secs(2);

/// Carry a plan out. For the role that waits at the other end of standard output: a line when all is prepared, and one with
/// the figures of each run.
pub fn main(plan: &Path) -> Result<(), Failure> {
    let plan: Plan = serde_json::from_slice(&fs::read(plan)?)?;
    fs::create_dir_all(&plan.work)?;
    // Counters are a bonus: they need root, and a kernel that has them.
    if !Path::new(KVM).exists() {
        let _ = mount("debugfs", "/sys/kernel/debug", "debugfs", MountFlags::empty(), None);
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(BEAT);
            println!("{ALIVE}");
        }
    });
    prepare(&plan, plan.monitor)?;
    println!("{}", serde_json::to_string(&Figures::default())?);
    for group in &plan.groups {
        println!("{}", serde_json::to_string(&patiently(&plan, plan.monitor, *group)?)?);
    }
    Ok(())
}

/// Once more where a guest dies: under icount, guests of a KVM that itself runs in TCG do now and then, with any monitor.
fn patiently(plan: &Plan, monitor: Monitor, group: Group) -> Result<Figures, Failure> {
    for _ in 1..ATTEMPTS {
        match measure(plan, monitor, group) {
            Err(error) => eprintln!("{} {group:?} once more: {error}", monitor.name()),
            figures => return figures,
        }
    }
    measure(plan, monitor, group)
}

fn measure(plan: &Plan, monitor: Monitor, group: Group) -> Result<Figures, Failure> {
    let mut figures = Figures::default();
    match group {
        Group::Start => start(plan, monitor, &mut figures)?,
        Group::Disk => disk(plan, monitor, &mut figures)?,
        Group::Net => net(plan, monitor, &mut figures)?,
        Group::Memory => memory(plan, monitor, &mut figures)?,
        Group::Test => {}
    }
    Ok(figures)
}

/// All that is made once: amiable's image and keys, QEMU's disks. One boot warms what is cached.
fn prepare(plan: &Plan, monitor: Monitor) -> Result<(), Failure> {
    match monitor {
        Monitor::Amiable => {
            let mut import = monitors::amiable(plan);
            let import = import.args(["image", "import", "--name", IMAGE]).arg(&plan.image).output()?;
            if !import.status.success() {
                return Err(format!("amiable image import: {}", String::from_utf8_lossy(&import.stderr)).into());
            }
        }
        Monitor::Qemu => {
            let root = File::create(monitors::qemu_disk(plan, "root"))?;
            copy_sparse(&File::open(&plan.image)?, &root)?;
            root.set_len(monitors::DISK_BYTES)?;
            File::create(monitors::qemu_disk(plan, "data"))?.set_len(AREA_MIB << 20)?;
        }
    }
    Guest::start(monitors::command(plan, monitor, Some("sleep 3")), &plan.work)?.finish()
}

/// With holes for zeros.
fn copy_sparse(from: &File, to: &File) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let length = match from.read_at(&mut buffer, at)? {
            0 => return Ok(()),
            length => length,
        };
        if buffer[..length].iter().any(|byte| *byte != 0) {
            to.write_all_at(&buffer[..length], at)?;
        }
        at += length as u64;
    }
}

fn start(plan: &Plan, monitor: Monitor, figures: &mut Figures) -> Result<(), Failure> {
    let before = counter("exits");
    let mut guest = Guest::start(monitors::command(plan, monitor, None), &plan.work)?;
    let at = guest.wait_for("TINY: up")?;
    let taken = at - guest.started;
    figures.add(format!("{}/start/first-line", monitor.name()), "ms", taken.as_secs_f64() * 1e3);
    if let (Some(before), Some(after)) = (before, counter("exits")) {
        figures.add(format!("{}/start/exits", monitor.name()), "exits", (after - before) as f64);
    }
    guest.finish()
}

/// A counter of this host's KVM over all guests.
fn counter(name: &str) -> Option<i64> {
    fs::read_to_string(Path::new(KVM).join(name)).ok()?.trim().parse().ok()
}

/// A shell script that has this program at /tmp/m and runs it as the guest's part.
fn script(plan: &Plan, lines: &str) -> String {
    let mib = plan.program_mib;
    format!("dd if=/dev/nvme0n1p15 of=/tmp/m bs=1M count={mib} 2>/dev/null; chmod +x /tmp/m\n{lines}\n")
}

fn disk(plan: &Plan, monitor: Monitor, figures: &mut Figures) -> Result<(), Failure> {
    let nvme = |name| format!("/tmp/m guest disk {name} /dev/nvme0n1 {AREA} {AREA_MIB}");
    let lines = match monitor {
        Monitor::Amiable => nvme("disk"),
        Monitor::Qemu => {
            format!(
                "modprobe -a virtio_pci virtio_blk; /tmp/m guest disk disk /dev/vda 0 {AREA_MIB} && {}",
                nvme("disk-nvme")
            )
        }
    };
    let guest = Guest::start(monitors::command(plan, monitor, Some(&script(plan, &lines))), &plan.work)?;
    take_figures(guest, monitor, figures)
}

fn net(plan: &Plan, monitor: Monitor, figures: &mut Figures) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    let lines = format!("net-up >/dev/null; /tmp/m guest net {}:{port}", monitors::host_alias(monitor));
    let guest = Guest::start(monitors::command(plan, monitor, Some(&script(plan, &lines))), &plan.work)?;
    take_figures(guest, monitor, figures)
}

/// The lines that the guest's part prints.
fn take_figures(mut guest: Guest, monitor: Monitor, figures: &mut Figures) -> Result<(), Failure> {
    let mut status = None;
    while let Some((_, line)) = guest.line()? {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FIGURE", name, unit, value] => figures.add(format!("{}/{name}", monitor.name()), unit, value.parse()?),
            ["TINY:", "exit", code] => status = Some((*code).to_owned()),
            ["machine:", ..] => eprintln!("{line}"),
            _ => {}
        }
    }
    match status.as_deref() {
        Some("0") => guest.finish(),
        status => Err(guest.failure(&format!("its part ended with {status:?}"))),
    }
}

/// What the guest's part speaks with. A request is a letter and a length: `e`cho single bytes, take what it `s`ends and answer
/// with one byte, give it that much to `r`eceive.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 9];
    stream.read_exact(&mut request)?;
    let [what, length @ ..] = request;
    let mut left = u64::from_le_bytes(length);
    let mut buffer = vec![0x5a; 128 << 10];
    match what {
        b'e' => loop {
            stream.read_exact(&mut buffer[..1])?;
            stream.write_all(&buffer[..1])?;
        },
        b's' => {
            while left > 0 {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    length => left = left.saturating_sub(length as u64),
                }
            }
            stream.write_all(&buffer[..1])
        }
        _ => {
            while left > 0 {
                let length = buffer.len().min(left as usize);
                stream.write_all(&buffer[..length])?;
                left -= length as u64;
            }
            Ok(())
        }
    }
}

fn memory(plan: &Plan, monitor: Monitor, figures: &mut Figures) -> Result<(), Failure> {
    let mut guest = Guest::start(monitors::command(plan, monitor, Some("echo IDLE; sleep 1000")), &plan.work)?;
    guest.wait_for("IDLE")?;
    std::thread::sleep(Duration::from_secs(2));
    let size = monitors::guest_mib(monitor) << 10;
    // amiable's command watches the process that has the guest; QEMU's is that process.
    let (mut beyond, mut watching) = (None, 0);
    for process in guest.processes()? {
        let (of_it, has_guest) = beyond_guest(&fs::read_to_string(format!("/proc/{process}/smaps"))?, size);
        match has_guest {
            true => beyond = Some(of_it),
            false => watching += of_it.files + of_it.anonymous,
        }
    }
    let beyond = beyond.ok_or("no mapping is as large as the guest")?;
    let all = beyond.files + beyond.anonymous;
    for (name, kib) in [("beyond-guest", all), ("files", beyond.files), ("command", watching)] {
        figures.add(format!("{}/memory/{name}", monitor.name()), "MB", kib as f64 * 1024.0 / 1e6);
    }
    Ok(())
}

/// PSS in KiB of what is not the guest's memory.
#[derive(Default)]
struct Beyond {
    /// Pages of mapped files: the program itself and its libraries, shared by all that run them.
    files: u64,
    /// Everything else.
    anonymous: u64,
}

/// The mapping that is as large as the guest's memory is the guest's memory; and whether there is one.
fn beyond_guest(maps: &str, guest_kib: u64) -> (Beyond, bool) {
    let field =
        |line: &str, name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok();
    let (mut size, mut pss, mut in_file, mut found) = (0, 0, false, false);
    let mut beyond = Beyond::default();
    for line in maps.lines() {
        // "start-end permissions offset device inode path"
        if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            in_file = line.split_whitespace().nth(5).is_some_and(|path| path.starts_with('/'));
        } else if let Some(kib) = field(line, "Size:") {
            size = kib;
        } else if let Some(kib) = field(line, "Pss:") {
            pss = kib;
            // The kernel joins what lies beside it and is alike.
            if size >= guest_kib && size < guest_kib + (32 << 10) {
                found = true;
                pss = 0;
            }
        } else if let Some(anonymous) = field(line, "Anonymous:") {
            // What a private mapping of a file has written is no longer the file's.
            let anonymous = if in_file { anonymous.min(pss) } else { pss };
            beyond.anonymous += anonymous;
            beyond.files += pss - anonymous;
        }
    }
    (beyond, found)
}
