//! The emulated host for real: QEMU, a stock kernel, this crate's static binary as its `/init`.
//!
//! Needs `qemu-system-x86_64`, a kernel (`guest-images/build emulated-host`, or one that is installed here) and the
//! binary built for x86_64-unknown-linux-musl; without one of them the tests say so and are skipped.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use amiable::emulate::{Cache, Drive, EmulatedHost, Error, Kernel};
use programs::{COPY, LIMIT, elf, ready};

#[path = "common/programs.rs"]
mod programs;

/// Writes "c" to /proc/sysrq-trigger: the kernel panics.
#[rustfmt::skip]
const CRASH: &[u8] = &[
    0x48, 0x8d, 0x3d, 0x24, 0x00, 0x00, 0x00, // lea rdi, [rip + 36]
    0xbe, 0x01, 0x00, 0x00, 0x00,             // mov esi, 1 (O_WRONLY)
    0xb8, 0x02, 0x00, 0x00, 0x00,             // mov eax, 2 (open)
    0x0f, 0x05,                               // syscall
    0x89, 0xc7,                               // mov edi, eax
    0x48, 0x8d, 0x35, 0x0e, 0x00, 0x00, 0x00, // lea rsi, [rip + 14]
    0xba, 0x01, 0x00, 0x00, 0x00,             // mov edx, 1
    0xb8, 0x01, 0x00, 0x00, 0x00,             // mov eax, 1 (write)
    0x0f, 0x05,                               // syscall
    0xeb, 0xfe,                               // jmp here
    b'c',
    b'/', b'p', b'r', b'o', b'c', b'/', b's', b'y', b's', b'r', b'q', b'-', b't', b'r', b'i', b'g', b'g', b'e', b'r', 0,
];

fn host(kernel: Kernel, binary: PathBuf, code: &[u8]) -> EmulatedHost {
    EmulatedHost::new(kernel, [""; 0])
        .binary(binary)
        .memory_mib(512)
        .file("/bin/program", 0o755, elf(code))
        .program("/bin/program")
        .boot_timeout(LIMIT)
}

#[test]
fn streams_and_the_exit_status_come_back_exactly() {
    let Some((kernel, binary)) = ready() else { return };
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let drive = Drive { path: disk.path().to_owned(), read_only: true, cache: Cache::Unsafe };
    let mut running = host(kernel, binary, COPY).drive(drive).start().unwrap();
    // More than any buffer on the way, so that nothing but a working copy gets it through.
    let sent: Vec<u8> = (0..1_000_003u32).map(|n| (n.wrapping_mul(n) / 7) as u8).collect();
    let (mut input, mut output) = (running.stdin.take().unwrap(), running.stdout.take().unwrap());
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&sent).unwrap();
            drop(input);
        });
        output.read_to_end(&mut received).unwrap();
    });
    let mut messages = String::new();
    running.stderr.take().unwrap().read_to_string(&mut messages).unwrap();
    assert_eq!(running.wait(Some(LIMIT)).unwrap().code(), Some(7), "{}", running.console());
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    assert_eq!(messages, "err\n");
}

#[test]
fn a_signal_reaches_the_command() {
    use std::os::unix::process::ExitStatusExt;
    let Some((kernel, binary)) = ready() else { return };
    let mut running = host(kernel, binary, COPY).start().unwrap();
    let input = running.stdin.take();
    assert!(matches!(running.wait(Some(Duration::ZERO)), Err(Error::TimedOut { .. })));
    running.signal(15).unwrap();
    assert_eq!(running.wait(Some(LIMIT)).unwrap().signal(), Some(15));
    drop(input);
}

#[test]
fn a_command_that_is_not_there_and_a_dead_kernel_are_told_apart() {
    let Some((kernel, binary)) = ready() else { return };
    let error =
        host(kernel.clone(), binary.clone(), COPY).program("/bin/none").start().and_then(|mut r| r.wait(Some(LIMIT)));
    assert!(matches!(&error, Err(Error::Command(why)) if why.contains("/bin/none")), "{error:?}");
    let error = host(kernel, binary, CRASH).start().and_then(|mut running| running.wait(Some(LIMIT))).unwrap_err();
    assert!(matches!(&error, Error::Died { .. }), "{error}");
    assert!(error.to_string().contains("Kernel panic"), "{error}");
}
