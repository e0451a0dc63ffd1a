//! A one-line script on debian-12, from exec to the verdict: `amiable test`, and QEMU with the same image and a NoCloud seed.
//!
//! Both times begin on this machine, and hold the start of an emulated host where there is one. QEMU starts the image's kernel
//! directly and unpacked, with the initial RAM disk that virtio-blk needs: what firmware and GRUB would take is not counted.
//! Its verdict is cloud-init's last line on the console; whether the script failed is not in it. Its disk is a raw copy of the
//! image, made before.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amiable::boot::SharedDisk;
use amiable::boot::cache::KernelCache;
use amiable::boot::plan::{BootPlan, InitrdPolicy, prepare};
use amiable::emulate::kernel::KERNEL_VARIABLE;
use amiable::emulate::{Cache, Drive, EmulatedHost};

use super::Failure;
use super::figures::Figures;
use super::lab::{QEMU, amiable, kernel, target, with_qemu};
use super::settings::{Monitor, Settings};

const SCRIPT: &str = "#!/bin/sh\necho \"this is all\"\n";
/// One vCPU, 2 GiB.
const TYPE: &str = "t2.small";
const MEMORY_MIB: u32 = 2048;
/// What the emulated host needs beside the guest: its own kernel, QEMU and its libraries, the guest's kernel.
const HOST_MIB: u32 = 768;
/// cloud-init's last line begins so, and has this in it.
const LAST: [&str; 2] = ["Cloud-init v.", " finished at "];

/// The monitors by turns, so that both see the same machine.
pub fn measure(settings: &Settings, work: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let image = target("images/debian-12.raw")?;
    let home = work.join("debian");
    std::fs::create_dir_all(&home)?;
    let script = home.join("script");
    std::fs::write(&script, SCRIPT)?;
    let emulated = settings.emulated;
    if settings.monitors.contains(&Monitor::Amiable) {
        let mut import = command(&home, false)?;
        let output = import.args(["image", "import", "--name", "debian-12"]).arg(&image).output()?;
        if !output.status.success() {
            return Err(format!("amiable image import: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
    }
    let qemu =
        settings.monitors.contains(&Monitor::Qemu).then(|| Qemu::prepare(&image, &home, emulated)).transpose()?;
    for run in 1..=settings.runs {
        for monitor in &settings.monitors {
            let taken = match (monitor, &qemu) {
                (Monitor::Qemu, Some(qemu)) => qemu.run()?,
                _ => test(&home, &script, emulated)?,
            };
            eprintln!("{} test {run}: {:.1} s", monitor.name(), taken.as_secs_f64());
            figures.add(format!("{}/test/verdict", monitor.name()), "s", taken.as_secs_f64());
        }
    }
    Ok(())
}

fn command(home: &Path, emulated: bool) -> Result<Command, Failure> {
    let mut command = Command::new(amiable()?);
    command.env("AMIABLE_HOME", home.join("home")).env_remove("AMIABLE_EMULATE").stdin(Stdio::null());
    if emulated {
        command.env("AMIABLE_EMULATE", "1");
        if std::env::var_os(KERNEL_VARIABLE).is_none() {
            command.env(KERNEL_VARIABLE, target("images/emulated-host")?);
        }
    }
    Ok(command)
}

/// `amiable test`, as a person would type it.
fn test(home: &Path, script: &Path, emulated: bool) -> Result<Duration, Failure> {
    let mut command = command(home, emulated)?;
    let started = Instant::now();
    let output = command.arg("test").arg(script).args(["--image", "debian-12", "-t", TYPE]).output()?;
    let taken = started.elapsed();
    if emulated {
        // It would stay up: the other monitor has the machine to itself, and each run begins with nothing.
        self::command(home, emulated)?.args(["emulate", "stop"]).output()?;
    }
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("amiable test: {}\n{told}", output.status).into());
    }
    told.lines()
        .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        .for_each(|l| eprintln!("{l}"));
    Ok(taken)
}

/// What QEMU is given.
struct Qemu {
    image: PathBuf,
    disk: PathBuf,
    seed: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    cmdline: String,
    emulated: bool,
}

impl Qemu {
    fn prepare(image: &Path, home: &Path, emulated: bool) -> Result<Self, Failure> {
        let disk: SharedDisk = Arc::new(File::open(image)?);
        let cache = KernelCache::open(home)?;
        let BootPlan { kernel, initrd, cmdline, .. } = prepare(&disk, &cache, InitrdPolicy::Always, None)?;
        let path =
            |key: Option<String>| key.and_then(|key| cache.path(&key)).ok_or("debian-12 has no initial RAM disk");
        let seed = home.join("seed.raw");
        write_seed(&seed)?;
        let (kernel, initrd) = (path(Some(kernel))?, path(initrd)?);
        Ok(Qemu { image: image.to_owned(), disk: home.join("qemu.raw"), seed, kernel, initrd, cmdline, emulated })
    }

    fn run(&self) -> Result<Duration, Failure> {
        let copied = Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&self.disk).status()?;
        if !copied.success() {
            return Err(format!("cp: {copied}").into());
        }
        let path = |path: &Path| path.display().to_string();
        if !self.emulated {
            let started = Instant::now();
            let arguments =
                self.arguments(&path(&self.disk), &path(&self.seed), &path(&self.kernel), &path(&self.initrd));
            let mut child = Command::new(QEMU).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            let found = await_last_line(child.stdout.take().ok_or("no output")?);
            let taken = started.elapsed();
            child.kill()?;
            child.wait()?;
            return found.map(|()| taken);
        }
        let inside = self.arguments(&EmulatedHost::device(0), &EmulatedHost::device(1), "/root/kernel", "/root/initrd");
        let drive = |path: &Path, read_only| Drive { path: path.to_owned(), read_only, cache: Cache::Unsafe };
        let host = with_qemu(EmulatedHost::new(kernel()?, inside).binary(amiable()?).program(QEMU))?
            .memory_mib(MEMORY_MIB + HOST_MIB)
            .drive(drive(&self.disk, false))
            .drive(drive(&self.seed, true))
            .file("/root/kernel", 0o644, std::fs::read(&self.kernel)?)
            .file("/root/initrd", 0o644, std::fs::read(&self.initrd)?);
        let started = Instant::now();
        let mut running = host.start()?;
        let messages = running.stderr.take().ok_or("no messages")?;
        std::thread::spawn(move || {
            BufReader::new(messages).lines().map_while(Result::ok).for_each(|line| eprintln!("qemu: {line}"));
        });
        let found = await_last_line(running.stdout.take().ok_or("no output")?);
        let taken = started.elapsed();
        running.kill();
        found.map(|()| taken)
    }

    fn arguments(&self, disk: &str, seed: &str, kernel: &str, initrd: &str) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        add(&["-machine", "q35,accel=kvm", "-cpu", "host", "-smp", "1", "-m", &MEMORY_MIB.to_string()]);
        add(&["-kernel", kernel, "-initrd", initrd, "-append", &self.cmdline]);
        // Flushes may do nothing, as in `amiable test`.
        add(&["-drive", &format!("if=none,id=root,format=raw,cache=unsafe,file={disk}")]);
        add(&["-device", "virtio-blk-pci,drive=root"]);
        add(&["-drive", &format!("if=none,id=seed,format=raw,readonly=on,file={seed}")]);
        add(&["-device", "virtio-blk-pci,drive=seed"]);
        add(&["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]);
        add(&["-device", "virtio-rng-pci"]);
        arguments
    }
}

/// cloud-init's NoCloud data source: a FAT file system named CIDATA with two files.
fn write_seed(path: &Path) -> Result<(), Failure> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(4 << 20)?;
    fatfs::format_volume(&file, fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     "))?;
    let seed = fatfs::FileSystem::new(&file, fatfs::FsOptions::new())?;
    let metadata = "instance-id: i-measured\nlocal-hostname: measured\n";
    for (name, content) in [("user-data", SCRIPT), ("meta-data", metadata)] {
        seed.root_dir().create_file(name)?.write_all(content.as_bytes())?;
    }
    seed.unmount()?;
    Ok(())
}

fn await_last_line(console: impl Read) -> Result<(), Failure> {
    let mut tail = Vec::new();
    for line in BufReader::new(console).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if LAST.iter().all(|part| line.contains(part)) {
            eprintln!("{}", line.trim());
            return Ok(());
        }
        tail.push(line);
    }
    let tail = tail[tail.len().saturating_sub(20)..].join("\n");
    Err(format!("QEMU ended before cloud-init did:\n{tail}").into())
}
