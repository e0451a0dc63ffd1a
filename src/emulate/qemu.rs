//! The QEMU command line of the emulated host.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::channel::PORT_NAME;

/// Drives have PCI slots of their own, from [`FIRST_DRIVE_SLOT`] on.
pub const MAX_DRIVES: usize = 14;
const FIRST_DRIVE_SLOT: usize = 0x10;

/// What a guest's flush means for a writable drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Cache {
    /// Nothing: the quickest. For drives that a crash of the outer host may spoil.
    #[default]
    Unsafe,
    /// The data reaches the disk.
    Writeback,
}

/// A file or block device of the outer host, raw, as a block device inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    /// Where it is outside.
    pub path: PathBuf,
    /// Whether the inside may only read it.
    pub read_only: bool,
    /// What flushes mean.
    pub cache: Cache,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the outer host that leads to a port of the emulated host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the outer host listens.
    pub host: SocketAddrV4,
    /// The port inside.
    pub port: u16,
}

/// All that decides the command line.
#[derive(Debug)]
pub(super) struct Config<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub memory_mib: u32,
    /// For guests.
    pub cpus: u32,
    pub icount: bool,
    pub drives: &'a [Drive],
    pub forwards: &'a [Forward],
    /// An inherited socket for QMP: drives and forwards come and go over it.
    pub control: Option<RawFd>,
}

/// The name of the user network, for QMP.
pub(super) const NETDEV: &str = "net";
/// The bus that drives are put on over QMP.
pub(super) const DRIVE_BUS: &str = "scsi.0";

/// QEMU's arguments. Its standard input must be a connected socket (the channel); the serial console goes to its
/// standard output.
pub(super) fn arguments(config: &Config) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    add(&["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
    // With icount the clock counts instructions, 1 ns each: figures repeat whatever else the outer host does.
    if config.icount {
        add(&["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    } else {
        add(&["-accel", "tcg,thread=multi"]);
    }
    // Nested SVM with nested paging. Without erms the kernel copies in ways that TCG translates better; without la57
    // its page tables have one level less.
    add(&["-cpu", "max,+svm,+npt,-erms,-la57"]);
    add(&["-m", &config.memory_mib.to_string(), "-smp", &smp(config).to_string()]);
    add(&["-chardev", "file,id=console,path=/dev/stdout", "-serial", "chardev:console"]);
    add(&["-chardev", "socket,id=channel,fd=0"]);
    add(&["-device", "virtio-serial-pci,addr=0x3,max_ports=2"]);
    add(&["-device", &format!("virtserialport,nr=1,chardev=channel,name={PORT_NAME}")]);
    add(&[
        "-netdev",
        &netdev(config.forwards),
        "-device",
        &format!("virtio-net-pci,addr=0x4,netdev={NETDEV},romfile="),
    ]);
    if let Some(control) = config.control {
        add(&["-chardev", &format!("socket,id=control,fd={control}"), "-mon", "chardev=control,mode=control"]);
        // One slot for hundreds of drives. Inside, they are looked for on order: no events.
        add(&["-device", "virtio-scsi-pci,id=scsi,addr=0x5,hotplug=off"]);
        // Memory that the inside has freed goes back to this machine.
        add(&["-device", "virtio-balloon-pci,addr=0x6,free-page-reporting=on"]);
    }
    // The kernel's check of the timer fails where this machine gives QEMU no time for some milliseconds, and would end it.
    add(&["-append", "console=ttyS0 quiet panic=-1 reboot=k mitigations=off no_timer_check"]);
    add(&["-kernel"]);
    arguments.push(config.kernel.into());
    arguments.push("-initrd".into());
    arguments.push(config.initramfs.into());
    for (n, drive) in config.drives.iter().enumerate() {
        arguments.push("-drive".into());
        arguments.push(drive_option(n, drive));
        arguments.push("-device".into());
        arguments.push(format!("virtio-blk-pci,addr={:#x},drive=drive{n}", FIRST_DRIVE_SLOT + n).into());
    }
    arguments
}

/// One CPU more than guests have: the first is not for them, as [`init`](super::init) sees to, unless it is the only one.
///
/// QEMU keeps IGNNE#, the pin of the x87 coprocessor, among the flags that say whether a CPU is in a guest (`hflags2`), and for
/// the first CPU only. Each CPU that restores floating-point registers clears it there (`cpu_clear_ignne`), and not atomically: a
/// first CPU that is just leaving a guest goes back to being in it, and its kernel's registers are saved as the guest's.
fn smp(config: &Config) -> u32 {
    // With icount one thread plays all CPUs, and nothing comes between.
    if config.icount && config.cpus == 1 { 1 } else { config.cpus.saturating_add(1) }
}

fn netdev(forwards: &[Forward]) -> String {
    let mut option = format!("user,id={NETDEV}");
    for forward in forwards {
        option += &format!(",hostfwd={}-:{}", forward.outer(), forward.port);
    }
    option
}

impl Forward {
    /// The outer end as QEMU writes it.
    pub(super) fn outer(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        format!("{protocol}:{}:{}", self.host.ip(), self.host.port())
    }
}

fn drive_option(n: usize, drive: &Drive) -> OsString {
    let cache = match drive.cache {
        Cache::Unsafe => "unsafe",
        Cache::Writeback => "writeback",
    };
    let read_only = if drive.read_only { "on" } else { "off" };
    let mut option =
        format!("if=none,id=drive{n},driver=raw,readonly={read_only},cache={cache},discard=unmap,file.driver=")
            .into_bytes();
    option.extend_from_slice(if is_block_device(&drive.path) { b"host_device" } else { b"file" });
    option.extend_from_slice(b",file.filename=");
    // QEMU reads a doubled comma as a comma.
    for byte in drive.path.as_os_str().as_bytes() {
        option.push(*byte);
        if *byte == b',' {
            option.push(b',');
        }
    }
    OsString::from_vec(option)
}

pub(super) fn is_block_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
