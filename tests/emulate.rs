//! The emulated host for real: QEMU, a stock kernel, this crate's static binary as its `/init`.
//!
//! Needs `qemu-system-x86_64`, a kernel (`guest-images/build emulated-host`, or one that is installed here) and the
//! binary built for x86_64-unknown-linux-musl; without one of them the tests say so and are skipped.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use amiable::emulate::kernel::{KERNEL_VARIABLE, Search};
use amiable::emulate::{Cache, Drive, EmulatedHost, Error, Kernel};

const LIMIT: Duration = Duration::from_secs(300);

/// Copies its standard input to its standard output, writes "err\n" to its standard error and ends with status 7.
#[rustfmt::skip]
const COPY: &[u8] = &[
    0x48, 0x81, 0xec, 0x00, 0x10, 0x00, 0x00, // sub rsp, 4096
    // copy:
    0x31, 0xc0,                               // xor eax, eax (read)
    0x31, 0xff,                               // xor edi, edi
    0x48, 0x89, 0xe6,                         // mov rsi, rsp
    0xba, 0x00, 0x10, 0x00, 0x00,             // mov edx, 4096
    0x0f, 0x05,                               // syscall
    0x85, 0xc0,                               // test eax, eax
    0x7e, 0x0d,                               // jle done
    0x89, 0xc2,                               // mov edx, eax
    0xb8, 0x01, 0x00, 0x00, 0x00,             // mov eax, 1 (write)
    0x89, 0xc7,                               // mov edi, eax
    0x0f, 0x05,                               // syscall
    0xeb, 0xe1,                               // jmp copy
    // done:
    0xb8, 0x01, 0x00, 0x00, 0x00,             // mov eax, 1 (write)
    0xbf, 0x02, 0x00, 0x00, 0x00,             // mov edi, 2
    0x48, 0x8d, 0x35, 0x13, 0x00, 0x00, 0x00, // lea rsi, [rip + 19]
    0xba, 0x04, 0x00, 0x00, 0x00,             // mov edx, 4
    0x0f, 0x05,                               // syscall
    0xb8, 0x3c, 0x00, 0x00, 0x00,             // mov eax, 60 (exit)
    0xbf, 0x07, 0x00, 0x00, 0x00,             // mov edi, 7
    0x0f, 0x05,                               // syscall
    b'e', b'r', b'r', b'\n',
];

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

/// A static x86_64 executable of one segment.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let size = (120 + code.len()) as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [BASE + 120, 64, 0] {
        elf.extend(u64::to_le_bytes(word)); // entry, program headers, section headers
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // flags, sizes, one program header
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]); // PT_LOAD, readable and executable
    for word in [0, BASE, BASE, size, size, 4096] {
        elf.extend(u64::to_le_bytes(word));
    }
    elf.extend(code);
    elf
}

/// The newest static binary of this crate.
fn static_binary() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_amiable")).ancestors().find(|path| path.ends_with("target"))?;
    ["debug", "release"]
        .map(|profile| target.join("x86_64-unknown-linux-musl").join(profile).join("amiable"))
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}

fn data_folder() -> Option<PathBuf> {
    std::env::var_os("AMIABLE_HOME").map(PathBuf::from).or_else(|| {
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
        Some(data.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".local/share")))?.join("amiable"))
    })
}

/// The kernel and the binary, or a loud skip.
fn ready() -> Option<(Kernel, PathBuf)> {
    let search = Search {
        named: std::env::var_os(KERNEL_VARIABLE).map(PathBuf::from),
        data: data_folder(),
        root: Some("/".into()),
        from_image: None,
    };
    let missing = |what: String| {
        eprintln!("SKIPPED: {what}");
        None
    };
    let kernel = match search.find() {
        Ok(kernel) => kernel,
        Err(error) => return missing(error.to_string()),
    };
    let Some(binary) = static_binary() else {
        return missing("no static binary: cargo build --target x86_64-unknown-linux-musl".into());
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join("qemu-system-x86_64").is_file()) {
        return missing("no qemu-system-x86_64: sudo apt-get install qemu-system-x86".into());
    }
    Some((kernel, binary))
}

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
