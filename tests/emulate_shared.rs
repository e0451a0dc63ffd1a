//! The shared emulated host for real: see `emulate.rs` for what it needs. Each test has one of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use amiable::emulate::{Cache, Drive, Error, Forward, Phase, Protocol, Running, Settings, SharedCommand, SharedHost};
use programs::{COPY, LIMIT, SWAP, elf, greet, ready};

#[path = "common/programs.rs"]
mod programs;

/// A host in a directory of its own, stopped at the end however the test ends.
struct Shared {
    host: SharedHost,
    settings: Settings,
    _directory: tempfile::TempDir,
}

impl Shared {
    fn open() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory.path().join("state"))?;
        let host = SharedHost::open(settings.clone()).unwrap();
        Some(Shared { host, settings, _directory: directory })
    }

    fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// A command that is this program.
    fn command(&self, code: &[u8], ports: u16) -> SharedCommand {
        let mut command = self.host.command([""; 0], ports).unwrap();
        let program = command.file("program", 0o755, elf(code));
        command.program(program)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = SharedHost::stop(self.directory(), Duration::ZERO);
    }
}

fn settings(directory: &Path) -> Option<Settings> {
    let (kernel, binary) = ready()?;
    let mut settings = Settings::new(directory, kernel);
    settings.binary = Some(binary);
    settings.memory_mib = 1024;
    settings.boot_timeout = LIMIT;
    Some(settings)
}

fn output(running: &mut Running) -> Vec<u8> {
    let mut bytes = Vec::new();
    running.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// A disk of 1 MiB whose first sector is all this byte.
fn disk(byte: u8) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[byte; 512]).unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    file
}

fn first_sector(disk: &tempfile::NamedTempFile) -> Vec<u8> {
    std::fs::read(disk.path()).unwrap()[..512].to_vec()
}

fn on(disk: &tempfile::NamedTempFile) -> Drive {
    Drive { path: disk.path().to_owned(), read_only: false, cache: Cache::Unsafe }
}

fn free_port() -> SocketAddrV4 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port())
}

/// Waits for something that another process does.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::yield_now();
    }
}

#[test]
fn two_commands_at_once_have_drives_and_ports_of_their_own() {
    let Some(shared) = Shared::open() else { return };
    // Two that wait for their input, each with its disk; the base is both their's.
    let base = disk(b'=');
    let disks = [disk(b'0'), disk(b'1')];
    let mut running: Vec<Running> = disks
        .iter()
        .map(|disk| {
            let mut command = shared.command(SWAP, 0);
            let path = command.drive(on(disk));
            command.drive(Drive { read_only: true, ..on(&base) });
            command.arg(path.to_str().unwrap());
            command.start().unwrap()
        })
        .collect();
    assert_eq!(SharedHost::status(shared.directory()).unwrap().unwrap().commands, 2);
    // What is in use is nobody else's.
    let mut third = shared.command(COPY, 0);
    third.drive(on(&disks[0]));
    let error = third.start().err().unwrap();
    assert!(matches!(&error, Error::Drive(why) if why.contains("lock")), "{error}");
    // But it can be read.
    let mut third = shared.command(COPY, 0);
    third.drive(Drive { read_only: true, ..on(&disks[0]) });
    assert_eq!(third.start().unwrap().wait(Some(LIMIT)).unwrap().code(), Some(7));
    for (n, running) in running.iter_mut().enumerate() {
        running.stdin.take().unwrap().write_all(&[b'a' + n as u8; 512]).unwrap();
        assert_eq!(output(running), [b'0' + n as u8; 512]);
        assert!(running.wait(Some(LIMIT)).unwrap().success());
        // The disk is out of the machine, and what was written is in it.
        assert_eq!(first_sector(&disks[n]), [b'a' + n as u8; 512]);
    }

    // Two ports, and one of them again when its command has ended.
    let addresses = [free_port(), free_port()];
    let mut greeters: Vec<Running> = addresses.iter().map(|address| greeter(&shared, *address).unwrap()).collect();
    let error = greeter(&shared, addresses[0]).err().unwrap();
    assert!(matches!(&error, Error::Port(why) if why.contains(" in use")), "{error}");
    for (running, address) in greeters.iter_mut().zip(addresses) {
        let mut greeting = [0; 2];
        // QEMU listens before the program does, and then closes what came too early.
        until("a greeting", || TcpStream::connect(address).and_then(|mut s| s.read_exact(&mut greeting)).is_ok());
        assert!((20_000..32_768).contains(&u16::from_be_bytes(greeting)));
        assert!(running.wait(Some(LIMIT)).unwrap().success());
    }
    drop(greeter(&shared, addresses[0]).unwrap());
    // Many times on one host, and a missing file in between.
    let mut missing = shared.command(COPY, 0);
    missing.drive(Drive { path: "/none".into(), read_only: true, cache: Cache::Unsafe });
    assert!(matches!(missing.start(), Err(Error::Drive(why)) if why.contains("/none: No such file")));
    for round in 0..20u8 {
        let mut command = shared.command(SWAP, 0);
        let path = command.drive(on(&disks[0]));
        command.arg(path.to_str().unwrap());
        let mut running = command.start().unwrap();
        running.stdin.take().unwrap().write_all(&[round; 512]).unwrap();

        assert_eq!(output(&mut running), [if round == 0 { b'a' } else { round - 1 }; 512]);
        assert!(running.wait(Some(LIMIT)).unwrap().success());
    }
}

fn greeter(shared: &Shared, host: SocketAddrV4) -> Result<Running, Error> {
    let mut command = shared.host.command([""; 0], 1).unwrap();
    let port = command.ports()[0];
    command.forward(Forward { protocol: Protocol::Tcp, host, port });
    let program = command.file("program", 0o755, greet(port));
    command.program(program).start()
}

#[test]
fn streams_are_exact_signals_arrive_and_who_goes_takes_the_command_along() {
    let Some(shared) = Shared::open() else { return };
    let mut running = shared.command(COPY, 0).start().unwrap();
    let sent: Vec<u8> = (0..2_000_003u32).map(|n| (n.wrapping_mul(n) / 7) as u8).collect();
    let (mut input, mut received) = (running.stdin.take().unwrap(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&sent).unwrap();
            drop(input);
        });
        received = output(&mut running);
    });
    assert_eq!(running.wait(Some(LIMIT)).unwrap().code(), Some(7));
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());

    let mut running = shared.command(COPY, 0).start().unwrap();
    let input = running.stdin.take();
    running.signal(15).unwrap();
    assert_eq!(running.wait(Some(LIMIT)).unwrap().signal(), Some(15));
    drop(input);
    let error = shared.host.command([""; 0], 0).unwrap().program("/bin/none").start().err().unwrap();
    assert!(matches!(&error, Error::Command(why) if why.contains("/bin/none")), "{error}");

    // A client process that is killed: its command ends, its disk is free.
    let disk = disk(b'x');
    let client = std::env::current_exe().unwrap();
    let mut client = Command::new(client)
        .args(["--exact", "a_client_that_waits", "--ignored", "--nocapture"])
        .env("AMIABLE_TEST_DIRECTORY", shared.directory())
        .env("AMIABLE_TEST_DISK", disk.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let commands = || SharedHost::status(shared.directory()).unwrap().unwrap().commands;
    until("the client's command", || commands() == 1);
    client.kill().unwrap();
    client.wait().unwrap();
    until("its end", || commands() == 0);
    let mut command = shared.command(COPY, 0);
    command.drive(on(&disk));
    drop(command.start().unwrap());

    let before = Instant::now();
    let mut running = shared.command(COPY, 0).start().unwrap();
    let input = running.stdin.take();
    assert!(SharedHost::stop(shared.directory(), Duration::from_secs(20)).unwrap());
    // It ended as its input did, not by a signal, and not by the machine's end.
    assert_eq!(running.wait(Some(LIMIT)).unwrap().code(), Some(7));
    println!("started and stopped in {:?}", before.elapsed());
    assert!(SharedHost::status(shared.directory()).unwrap().is_none());
    drop(input);
}

/// Not a test by itself: the client of the one above.
#[test]
#[ignore = "a part of another test"]
fn a_client_that_waits() {
    let Some(directory) = std::env::var_os("AMIABLE_TEST_DIRECTORY") else { return };
    let host = SharedHost::open(settings(Path::new(&directory)).unwrap()).unwrap();
    let mut command = host.command([""; 0], 0).unwrap();
    let program = command.file("program", 0o755, elf(COPY));
    let path = std::env::var_os("AMIABLE_TEST_DISK").unwrap().into();
    command.drive(Drive { path, read_only: false, cache: Cache::Unsafe });
    let mut running = command.program(program).start().unwrap();
    // Its input stays open, so this never ends.
    let _ = running.stdout.as_mut().unwrap().read(&mut [0]);
}

#[test]
fn clients_race_for_one_keeper_and_a_killed_one_is_noticed_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let Some(settings) = settings(&directory.path().join("state")) else { return };
    let hosts: Vec<SharedHost> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..6).map(|_| scope.spawn(|| SharedHost::open(settings.clone()).unwrap())).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let shared = Shared { host: hosts[0].clone(), settings: settings.clone(), _directory: directory };
    let status = SharedHost::status(shared.directory()).unwrap().unwrap();
    assert_eq!(status.phase, Phase::Up);
    println!("{status:?}");
    let mut running: Vec<_> = (0..3).map(|_| shared.command(COPY, 0).start().unwrap()).collect();
    let kill = |pid: u32| assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    // QEMU's end is told as such.
    let input: Vec<_> = running.iter_mut().map(|running| running.stdin.take()).collect();
    kill(status.qemu_pid.unwrap());
    let error = running[0].wait(Some(LIMIT)).unwrap_err();
    assert!(matches!(&error, Error::Host(why) if why.starts_with("ended")), "{error}");
    drop((input, running));
    // The next user starts another. The keeper's end is noticed by those who wait, and QEMU goes with it.
    let mut running = shared.command(COPY, 0).start().unwrap();
    let input = running.stdin.take();
    let second = SharedHost::status(shared.directory()).unwrap().unwrap();
    assert_ne!(second.pid, status.pid);
    kill(second.pid);
    let error = running.wait(Some(LIMIT)).unwrap_err();
    assert!(matches!(&error, Error::Lost { .. }), "{error}");
    let qemu = format!("/proc/{}/exe", second.qemu_pid.unwrap());
    until("QEMU's end", || std::fs::read_link(&qemu).is_err());
    drop((input, running));
    // Its socket is still there; nobody listens.
    assert!(SharedHost::status(shared.directory()).unwrap().is_none());
    let mut running = shared.command(COPY, 0).start().unwrap();
    assert_eq!(running.wait(Some(LIMIT)).unwrap().code(), Some(7));
}
