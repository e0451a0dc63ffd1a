//! Real commands over a pair of sockets; only the machine around them is missing.

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::running::Running;
use super::super::window;
use super::*;

/// Disks that are files: an order finds its disk if the target is even.
#[derive(Default, Clone)]
struct Files(Arc<AtomicUsize>);

impl Disks for Files {
    fn take(&self, disk: &InnerDisk) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if disk.target.is_multiple_of(2) { Ok(()) } else { Err(io::Error::other("odd")) }
    }

    fn let_go(&self, _: &InnerDisk) -> io::Result<()> {
        self.0.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

const LIMIT: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Order {
    let argv = ["sh", "-c", script].map(str::to_owned).into();
    Order { program: "/bin/sh".into(), argv, grace_ms: 60_000, ..Order::default() }
}

fn start_with(order: &Order, disks: Files) -> Running {
    let (outside, inside) = UnixStream::pair().unwrap();
    let output = inside.try_clone().unwrap();
    thread::spawn(move || serve(io::BufReader::new(inside), output, disks));
    let running = Running::new(outside, None).unwrap();
    running.wait_until_up(LIMIT).unwrap();
    running.order(order).unwrap();
    running
}

fn start(order: &Order) -> Running {
    start_with(order, Files::default())
}

fn text(mut pipe: impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn streams_and_the_exit_status_come_back_exactly() {
    let mut running = start(&shell("cat; echo err >&2; exit 7"));
    let sent: Vec<u8> = (0..3_000_003u32).map(|n| (n.wrapping_mul(n) / 7) as u8).collect();
    let (mut input, mut output) = (running.stdin.take().unwrap(), running.stdout.take().unwrap());
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&sent).unwrap();
            drop(input);
        });
        output.read_to_end(&mut received).unwrap();
    });
    assert_eq!(text(running.stderr.take().unwrap()), "err\n");
    assert_eq!(running.wait(Some(LIMIT)).unwrap().code(), Some(7));
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
}

#[test]
fn output_that_is_read_late_is_not_lost() {
    let bytes = window::SIZE * 3;
    let mut running = start(&shell(&format!("head -c {bytes} /dev/zero")));
    running.wait_until_started(LIMIT).unwrap();
    // Nobody reads: it can't get through.
    assert!(matches!(running.wait(Some(Duration::from_millis(50))), Err(crate::emulate::Error::TimedOut { .. })));
    assert_eq!(text(running.stdout.take().unwrap()).len(), bytes);
    assert!(running.wait(Some(LIMIT)).unwrap().success());
}

#[test]
fn files_are_placed_and_taken_away_with_their_folder() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("own");
    let file = InnerFile { path: folder.join("deep/note"), mode: 0o640, content: vec![0xff, b'\n'] };
    let path = file.path.clone();
    let order = Order {
        files: vec![file],
        folder: Some(folder.clone()),
        env: vec![("WHAT".into(), "stat".into())],
        ..shell(&format!("/usr/bin/$WHAT -c %a {0}; /usr/bin/wc -c <{0}", path.display()))
    };
    let mut running = start(&order);
    assert_eq!(text(running.stdout.take().unwrap()), "640\n2\n");
    assert!(running.wait(Some(LIMIT)).unwrap().success());
    assert!(!folder.exists());
}

#[test]
fn disks_are_let_go_of_also_when_one_is_missing() {
    let disk = |target| InnerDisk { path: format!("/dev/amiable/{target}").into(), target };
    for (targets, works) in [(vec![0, 2], true), (vec![0, 1, 2], false)] {
        let disks = Files::default();
        let order = Order { disks: targets.into_iter().map(disk).collect(), ..shell("exit 0") };
        let mut running = start_with(&order, disks.clone());
        let result = running.wait(Some(LIMIT));
        if works {
            assert!(result.unwrap().success());
            assert_eq!(disks.0.load(Ordering::Relaxed), 0);
        } else {
            let error = result.unwrap_err();
            assert!(matches!(&error, crate::emulate::Error::Drive(why) if why == "/dev/amiable/1: odd"), "{error:?}");
        }
    }
}

#[test]
fn a_command_that_is_not_there_says_so() {
    let order = Order { program: "/none".into(), argv: vec!["none".into()], ..Order::default() };
    let error = start(&order).wait_until_started(LIMIT).unwrap_err();
    assert!(matches!(&error, crate::emulate::Error::Command(why) if why.contains("/none: No such")), "{error:?}");
}

#[test]
fn what_a_command_leaves_behind_goes_with_it() {
    let mut running = start(&shell("sleep 1000 & echo $!"));
    let pid: u32 = text(running.stdout.take().unwrap()).trim().parse().unwrap();
    assert!(running.wait(Some(LIMIT)).unwrap().success());
    let deadline = Instant::now() + LIMIT;
    let alive = || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    };
    while alive() {
        assert!(Instant::now() < deadline, "{pid} lives on");
        thread::yield_now();
    }
}

#[test]
fn signals_and_a_kill_reach_the_command() {
    for (number, kill) in [(15, false), (9, true)] {
        let mut running = start(&shell("exec sleep 1000"));
        running.wait_until_started(LIMIT).unwrap();
        if kill {
            running.kill();
        } else {
            running.signal(number).unwrap();
        }
        assert_eq!(running.wait(Some(LIMIT)).unwrap().signal(), Some(number));
    }
}

/// The raw end of a channel, for what [`Running`] does not do.
struct Raw {
    channel: UnixStream,
    server: thread::JoinHandle<()>,
    payload: Vec<u8>,
}

impl Raw {
    fn new() -> Self {
        let (channel, inside) = UnixStream::pair().unwrap();
        channel.set_read_timeout(Some(LIMIT)).unwrap();
        let output = inside.try_clone().unwrap();
        let server = thread::spawn(move || serve(io::BufReader::new(inside), output, Files::default()));
        let mut raw = Raw { channel, server, payload: Vec::new() };
        assert_eq!(raw.receive(), (Kind::Hello, MACHINE));
        raw
    }

    fn send(&mut self, kind: Kind, stream: u32, payload: &[u8]) {
        channel::send(&mut self.channel, kind, stream, payload).unwrap();
    }

    fn order(&mut self, stream: u32, order: &Order) {
        channel::send_value(&mut self.channel, Kind::Run, stream, order).unwrap();
    }

    fn receive(&mut self) -> (Kind, u32) {
        let frame = channel::receive(&mut self.channel, &mut self.payload).unwrap().unwrap();
        (frame.kind, frame.stream)
    }

    /// The next frame of a stream that is of one of these kinds.
    fn next(&mut self, stream: u32, kinds: &[Kind]) -> Kind {
        loop {
            let (kind, of) = self.receive();
            if of == stream && kinds.contains(&kind) {
                return kind;
            }
        }
    }
}

#[test]
fn a_slow_reader_holds_up_nobody_else_and_only_so_much_is_under_way() {
    let mut raw = Raw::new();
    raw.order(1, &shell("exec cat /dev/zero"));
    let mut received = 0;
    while received < window::SIZE {
        if raw.receive() == (Kind::Stdout, 1) {
            received += raw.payload.len();
        }
    }
    // No room was given: no more of it comes, but all of the other's.
    raw.order(2, &shell("read line; echo \"$line\""));
    raw.send(Kind::Stdin, 2, b"hello\n");
    assert_eq!(raw.receive(), (Kind::Started, 2));
    assert_eq!(raw.receive(), (Kind::Stdout, 2));
    assert_eq!(raw.payload, b"hello\n");
    assert_eq!(raw.receive(), (Kind::Exit, 2));
    raw.send(Kind::Room, 1, &channel::room(Kind::Stdout, 10));
    assert_eq!(raw.receive(), (Kind::Stdout, 1));
    assert_eq!(raw.payload.len(), 10);
    raw.send(Kind::Signal, 1, &9i32.to_le_bytes());
    // It ended, but its last bytes wait for room; nobody wants them.
    raw.send(Kind::Leave, 1, &[]);
    assert_eq!(raw.next(1, &[Kind::Exit]), Kind::Exit);
}

#[test]
fn input_that_a_command_does_not_read_holds_up_nobody_and_is_bounded() {
    let mut raw = Raw::new();
    raw.order(1, &shell("exec sleep 1000"));
    raw.order(2, &shell("cat"));
    // Twice what it may be: the sender does not keep to the window, and loses its stream's input.
    for _ in 0..2 * window::SIZE / 1000 {
        raw.send(Kind::Stdin, 1, &[0; 1000]);
    }
    raw.send(Kind::Stdin, 2, b"through");
    assert_eq!(raw.next(2, &[Kind::Stdout]), Kind::Stdout);
    assert_eq!(raw.payload, b"through");
    raw.send(Kind::Bye, MACHINE, &0u32.to_le_bytes());
    raw.next(1, &[Kind::Exit]);
}

#[test]
fn who_leaves_ends_the_command_by_its_input_first() {
    let mut raw = Raw::new();
    raw.order(1, &shell("cat; exit 3"));
    raw.order(2, &Order { grace_ms: 1, ..shell("exec sleep 1000") });
    let mut started = [raw.receive(), raw.receive()];
    started.sort_by_key(|(_, stream)| *stream);
    assert_eq!(started, [(Kind::Started, 1), (Kind::Started, 2)]);
    raw.send(Kind::Leave, 1, &[]);
    raw.next(1, &[Kind::Exit]);
    assert_eq!(raw.payload, (3i32 << 8).to_le_bytes());
    raw.send(Kind::Leave, 2, &[]);
    raw.next(2, &[Kind::Exit]);
    assert_eq!(raw.payload, 15i32.to_le_bytes());
}

#[test]
fn goodbye_ends_all_and_the_hosts_end_too() {
    let mut raw = Raw::new();
    raw.order(1, &shell("trap '' TERM; cat; echo last words"));
    raw.order(2, &shell("trap '' TERM; while :; do sleep 1000; done"));
    raw.next(2, &[Kind::Started]);
    raw.send(Kind::Bye, MACHINE, &100u32.to_le_bytes());
    let mut ended = [false; 3];
    while !(ended[1] && ended[2]) {
        let (kind, stream) = raw.receive();
        if kind == Kind::Exit {
            ended[stream as usize] = true;
        }
    }
    raw.server.join().unwrap();

    let mut raw = Raw::new();
    raw.order(1, &shell("trap '' TERM; exec cat /dev/zero"));
    raw.next(1, &[Kind::Stdout]);
    drop(raw.channel);
    raw.server.join().unwrap();
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(32))]
    #[test]
    fn garbage_on_the_channel_never_panics(wire in proptest::collection::vec(0u8.., 0..300)) {
        serve(&wire[..], io::sink(), Files::default());
    }
}
