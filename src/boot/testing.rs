//! Images for this room's tests, made by the real tools (no loop devices, no privileges), and small kernels made of
//! bytes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::SharedDisk;

/// Whether all tools are installed. If not, the test that asked says loudly that it is skipped.
pub fn have(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools.iter().filter(|t| find(t).is_none()).collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: {missing:?} not installed");
    }
    missing.is_empty()
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.into_iter().map(|d| d.join(tool)).find(|p| p.is_file())
}

/// Run a tool; its output matters only when it fails.
pub fn run(tool: &str, args: &[&str], stdin: &str) {
    let mut child = Command::new(find(tool).expect(tool))
        .args(args)
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A folder to fill.
pub struct Tree(pub TempDir);

impl Tree {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }
    pub fn path(&self) -> &Path {
        self.0.path()
    }
    pub fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        let to = self.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
        self
    }
    pub fn dir(self, path: &str) -> Self {
        std::fs::create_dir_all(self.path().join(path.trim_start_matches('/'))).unwrap();
        self
    }
    pub fn link(self, path: &str, target: &str) -> Self {
        let to = self.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, to).unwrap();
        self
    }
    /// What makes a root file system recognisable.
    pub fn rootfs(self) -> Self {
        self.file("etc/os-release", "ID=debian\n").file("usr/sbin/init", "#!").link("sbin", "usr/sbin")
    }
}

pub const UUID: &str = "11111111-2222-3333-4444-555555555555";
const MIB: u64 = 1 << 20;

fn blank(dir: &TempDir, size: u64) -> PathBuf {
    let path = dir.path().join("fs");
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    path
}

/// ext4 with `tree` in it.
pub fn ext4(tree: &Tree, label: &str) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = blank(&dir, 24 * MIB);
    let source = tree.path().to_str().unwrap();
    run("mke2fs", &["-q", "-t", "ext4", "-U", UUID, "-L", label, "-d", source, path.to_str().unwrap()], "");
    std::fs::read(path).unwrap()
}

/// FAT with `tree` in it.
pub fn fat(tree: &Tree, label: &str, bits: &str) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = blank(&dir, if bits == "32" { 40 * MIB } else { 16 * MIB });
    let image = path.to_str().unwrap();
    run("mkfs.vfat", &["-F", bits, "-n", label, "-i", "ABCD1234", image], "");
    let entries: Vec<String> =
        std::fs::read_dir(tree.path()).unwrap().map(|e| e.unwrap().path().to_str().unwrap().into()).collect();
    let mut args = vec!["-s", "-i", image];
    args.extend(entries.iter().map(String::as_str));
    args.push("::");
    run("mcopy", &args, "");
    std::fs::read(path).unwrap()
}

/// btrfs with `tree` in it.
pub fn btrfs(tree: &Tree, label: &str) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = blank(&dir, 128 * MIB);
    let source = tree.path().to_str().unwrap();
    run("mkfs.btrfs", &["-q", "-U", UUID, "-L", label, "--rootdir", source, path.to_str().unwrap()], "");
    std::fs::read(path).unwrap()
}

/// XFS with `tree` in it, by a prototype file (mkfs.xfs(8)).
pub fn xfs(tree: &Tree, label: &str) -> Vec<u8> {
    fn walk(dir: &Path, out: &mut String) {
        let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect();
        entries.sort_by_key(|e| e.file_name());
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                out.push_str(&format!("{name} l--777 0 0 {}\n", target.to_str().unwrap()));
            } else if kind.is_dir() {
                out.push_str(&format!("{name} d--755 0 0\n"));
                walk(&path, out);
            } else {
                out.push_str(&format!("{name} ---644 0 0 {}\n", path.to_str().unwrap()));
            }
        }
        out.push_str("$\n");
    }
    let dir = TempDir::new().unwrap();
    let path = blank(&dir, 320 * MIB);
    let mut proto = String::from("/stand/diag\n0 0\nd--755 0 0\n");
    walk(tree.path(), &mut proto);
    let file = dir.path().join("proto");
    std::fs::write(&file, proto).unwrap();
    let uuid = format!("uuid={UUID}");
    let args = ["-q", "-m", &uuid, "-L", label, "-p", file.to_str().unwrap(), path.to_str().unwrap()];
    run("mkfs.xfs", &args, "");
    std::fs::read(path).unwrap()
}

/// A disk with a partition table as sfdisk writes it. Each part: number, sfdisk's fields, contents.
pub fn disk(label: &str, header: &str, parts: &[(u32, &str, &[u8])]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let size = 2 * MIB + parts.iter().map(|(_, _, p)| (p.len() as u64).next_multiple_of(MIB)).sum::<u64>();
    let path = blank(&dir, size);
    let (mut script, mut at) = (format!("label: {label}\n{header}\n"), MIB);
    for (number, fields, bytes) in parts {
        let length = (bytes.len() as u64).next_multiple_of(MIB);
        script.push_str(&format!("{number}: start={}, size={}, {fields}\n", at / 512, length / 512));
        at += length;
    }
    run("sfdisk", &["-q", path.to_str().unwrap()], &script);
    let mut image = std::fs::read(path).unwrap();
    let mut at = MIB as usize;
    for (_, _, bytes) in parts {
        image[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len().next_multiple_of(MIB as usize);
    }
    image
}

pub fn shared(image: Vec<u8>) -> SharedDisk {
    Arc::new(image)
}

/// A tiny ELF kernel with a PVH note: one segment at 16 MiB.
pub fn elf() -> Vec<u8> {
    let mut elf = vec![0; 0x2000];
    elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    let mut header = |n: usize, kind: u32, offset: u64, address: u64, file: u64, memory: u64| {
        let at = 64 + n * 56;
        put(at, &kind.to_le_bytes());
        for (field, value) in [(8, offset), (24, address), (32, file), (40, memory)] {
            put(at + field, &value.to_le_bytes());
        }
    };
    header(0, 1, 0x1000, 0x100_0000, 0x1000, 0x3000);
    header(1, 4, 0x1100, 0x100_0100, 20, 20);
    put(0x1100, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    put(0x110c, b"Xen\0");
    put(0x1110, &0x100_0200u32.to_le_bytes());
    elf
}

/// A bzImage of `release` around a compressed payload (with its size field where the format has one).
pub fn bzimage(release: &str, payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0u8; 5 * 512];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[4]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x20e, &0x300u16.to_le_bytes());
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x248, &0x40u32.to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(0x500, format!("{release} (builder@host) #1 SMP\0").as_bytes());
    image.extend([0x90; 0x40]);
    image.extend(payload);
    image
}

/// A gzip-compressed [`elf`] as a bzImage.
pub fn kernel(release: &str) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&elf()).unwrap();
    bzimage(release, &gz.finish().unwrap())
}

const CONFIG: &str = "# Linux/x86 6.1.176 Kernel Configuration\nCONFIG_EXT4_FS=y\nCONFIG_BLK_DEV_NVME=y\nCONFIG_PCI=y\n\
    CONFIG_PCI_MSI=y\nCONFIG_DEVTMPFS=y\nCONFIG_EFI_PARTITION=y\nCONFIG_MSDOS_PARTITION=y\nCONFIG_XFS_FS=m\n";

/// The root file system of a Debian 12 cloud image, small.
pub fn debian_root() -> Tree {
    let tree = Tree::new().rootfs().file("boot/grub/grub.cfg", include_str!("fixtures/debian-12.cfg"));
    let tree = tree.file("boot/grub/grubenv", "# GRUB Environment Block\n").file(
        "etc/fstab",
        format!("UUID={UUID} / ext4 rw,discard 0 1\nPARTUUID={ESP_PARTUUID} /boot/efi vfat defaults 0 0\n"),
    );
    ["6.1.0-49-cloud-amd64", "6.1.0-50-cloud-amd64"].iter().fold(tree, |tree, release| {
        tree.file(&format!("boot/vmlinuz-{release}"), kernel(release))
            .file(&format!("boot/initrd.img-{release}"), format!("initrd of {release}"))
            .file(&format!("boot/config-{release}"), CONFIG)
    })
}

pub const ROOT_PARTUUID: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
pub const ESP_PARTUUID: &str = "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee";

/// A disk like Debian's cloud images: root is partition 1, behind 14 (BIOS boot) and 15 (EFI system partition).
pub fn debian_disk(root: &Tree) -> Vec<u8> {
    let stub =
        format!("search.fs_uuid {UUID} root hd0,gpt1 \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n");
    let esp = fat(&Tree::new().file("EFI/debian/grub.cfg", stub).file("EFI/BOOT/BOOTX64.EFI", "MZ"), "UEFI", "16");
    let kind = "type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=";
    disk(
        "gpt",
        "",
        &[
            (14, "type=21686148-6449-6E6F-744E-656564454649", &[0; 1 << 20]),
            (15, &format!("type=U, uuid={ESP_PARTUUID}"), &esp),
            (1, &format!("{kind}{ROOT_PARTUUID}"), &ext4(root, "rootfs")),
        ],
    )
}

/// Whether a [`debian_disk`] can be made here.
pub fn have_disk_tools() -> bool {
    have(&["mke2fs", "mkfs.vfat", "mcopy", "sfdisk"])
}
