//! Programs for the inside of an emulated host, which has no files but ours, and what they need to get there.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use amiable::emulate::Kernel;
use amiable::emulate::kernel::{KERNEL_VARIABLE, Search};

pub const LIMIT: Duration = Duration::from_secs(300);

/// Copies its standard input to its standard output, writes "err\n" to its standard error and ends with status 7.
#[rustfmt::skip]
pub const COPY: &[u8] = &[
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

/// Writes the first 512 bytes of the file that its argument names to its standard output, and then what it reads from its
/// standard input to the file's start. Status 1 if it cannot.
#[rustfmt::skip]
pub const SWAP: &[u8] = &[
    0x48, 0x8b, 0x7c, 0x24, 0x10,             // mov rdi,QWORD PTR [rsp+0x10]
    0x48, 0x81, 0xec, 0x00, 0x10, 0x00, 0x00, // sub rsp,0x1000
    0xbe, 0x02, 0x00, 0x00, 0x00,             // mov esi,0x2
    0xb8, 0x02, 0x00, 0x00, 0x00,             // mov eax,0x2
    0x0f, 0x05,                               // syscall
    0x85, 0xc0,                               // test eax,eax
    0x78, 0x5c,                               // js 78 <fail>
    0x89, 0xc3,                               // mov ebx,eax
    0x89, 0xdf,                               // mov edi,ebx
    0x48, 0x89, 0xe6,                         // mov rsi,rsp
    0xba, 0x00, 0x02, 0x00, 0x00,             // mov edx,0x200
    0x31, 0xc0,                               // xor eax,eax
    0x0f, 0x05,                               // syscall
    0x89, 0xc2,                               // mov edx,eax
    0xbf, 0x01, 0x00, 0x00, 0x00,             // mov edi,0x1
    0x48, 0x89, 0xe6,                         // mov rsi,rsp
    0xb8, 0x01, 0x00, 0x00, 0x00,             // mov eax,0x1
    0x0f, 0x05,                               // syscall
    0x31, 0xff,                               // xor edi,edi
    0x48, 0x89, 0xe6,                         // mov rsi,rsp
    0xba, 0x00, 0x02, 0x00, 0x00,             // mov edx,0x200
    0x31, 0xc0,                               // xor eax,eax
    0x0f, 0x05,                               // syscall
    0x41, 0x89, 0xc4,                         // mov r12d,eax
    0x89, 0xdf,                               // mov edi,ebx
    0x31, 0xf6,                               // xor esi,esi
    0x31, 0xd2,                               // xor edx,edx
    0xb8, 0x08, 0x00, 0x00, 0x00,             // mov eax,0x8
    0x0f, 0x05,                               // syscall
    0x89, 0xdf,                               // mov edi,ebx
    0x48, 0x89, 0xe6,                         // mov rsi,rsp
    0x44, 0x89, 0xe2,                         // mov edx,r12d
    0xb8, 0x01, 0x00, 0x00, 0x00,             // mov eax,0x1
    0x0f, 0x05,                               // syscall
    0x44, 0x39, 0xe0,                         // cmp eax,r12d
    0x75, 0x09,                               // jne 78 <fail>
    0x31, 0xff,                               // xor edi,edi
    0xb8, 0x3c, 0x00, 0x00, 0x00,             // mov eax,0x3c
    0x0f, 0x05,                               // syscall
    // fail:
    0xbf, 0x01, 0x00, 0x00, 0x00,             // mov edi,0x1
    0xb8, 0x3c, 0x00, 0x00, 0x00,             // mov eax,0x3c
    0x0f, 0x05,                               // syscall
];

/// Listens on a TCP port, writes two bytes to the first that comes, and waits until it is gone. Without its address.
#[rustfmt::skip]
const GREET: &[u8] = &[
    0xbf, 0x02, 0x00, 0x00, 0x00,             // mov edi,0x2
    0xbe, 0x01, 0x00, 0x00, 0x00,             // mov esi,0x1
    0x31, 0xd2,                               // xor edx,edx
    0xb8, 0x29, 0x00, 0x00, 0x00,             // mov eax,0x29
    0x0f, 0x05,                               // syscall
    0x89, 0xc3,                               // mov ebx,eax
    0x89, 0xdf,                               // mov edi,ebx
    0x48, 0x8d, 0x35, 0x63, 0x00, 0x00, 0x00, // lea rsi,[rip+0x63]
    0xba, 0x10, 0x00, 0x00, 0x00,             // mov edx,0x10
    0xb8, 0x31, 0x00, 0x00, 0x00,             // mov eax,0x31
    0x0f, 0x05,                               // syscall
    0x89, 0xdf,                               // mov edi,ebx
    0xbe, 0x01, 0x00, 0x00, 0x00,             // mov esi,0x1
    0xb8, 0x32, 0x00, 0x00, 0x00,             // mov eax,0x32
    0x0f, 0x05,                               // syscall
    0x89, 0xdf,                               // mov edi,ebx
    0x31, 0xf6,                               // xor esi,esi
    0x31, 0xd2,                               // xor edx,edx
    0xb8, 0x2b, 0x00, 0x00, 0x00,             // mov eax,0x2b
    0x0f, 0x05,                               // syscall
    0x89, 0xc5,                               // mov ebp,eax
    0x89, 0xef,                               // mov edi,ebp
    0x48, 0x8d, 0x35, 0x33, 0x00, 0x00, 0x00, // lea rsi,[rip+0x33]
    0xba, 0x02, 0x00, 0x00, 0x00,             // mov edx,0x2
    0xb8, 0x01, 0x00, 0x00, 0x00,             // mov eax,0x1
    0x0f, 0x05,                               // syscall
    0x89, 0xef,                               // mov edi,ebp
    0xbe, 0x01, 0x00, 0x00, 0x00,             // mov esi,0x1
    0xb8, 0x30, 0x00, 0x00, 0x00,             // mov eax,0x30
    0x0f, 0x05,                               // syscall
    0x89, 0xef,                               // mov edi,ebp
    0x48, 0x89, 0xe6,                         // mov rsi,rsp
    0xba, 0x01, 0x00, 0x00, 0x00,             // mov edx,0x1
    0x31, 0xc0,                               // xor eax,eax
    0x0f, 0x05,                               // syscall
    0x31, 0xff,                               // xor edi,edi
    0xb8, 0x3c, 0x00, 0x00, 0x00,             // mov eax,0x3c
    0x0f, 0x05,                               // syscall
];

/// [`GREET`] on this port; the greeting is the port, big-endian.
pub fn greet(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    // struct sockaddr_in
    elf(&[GREET, &[2, 0, high, low], &[0; 12]].concat())
}

/// A static x86_64 executable of one segment.
pub fn elf(code: &[u8]) -> Vec<u8> {
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
pub fn ready() -> Option<(Kernel, PathBuf)> {
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
