//! Image formats and their magic numbers.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use rustix::fs::{SeekFrom, seek};

/// A format of disk images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's qcow2, versions 2 and 3.
    Qcow2,
    /// VMware's VMDK: one file, sparse or stream-optimized.
    Vmdk,
    /// A raw disk with a VHD footer.
    FixedVhd,
    /// A raw disk, compressed with xz.
    RawXz,
    /// A raw disk, compressed with gzip.
    RawGzip,
    /// A raw disk, compressed with zstd.
    RawZstd,
}

impl Format {
    /// All formats, with their names.
    pub const ALL: [(Format, &'static str); 7] = [
        (Format::Raw, "raw"),
        (Format::Qcow2, "qcow2"),
        (Format::Vmdk, "vmdk"),
        (Format::FixedVhd, "vhd"),
        (Format::RawXz, "raw.xz"),
        (Format::RawGzip, "raw.gz"),
        (Format::RawZstd, "raw.zst"),
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Format::ALL.iter().find(|(format, _)| format == self).map_or("?", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Format::ALL.iter().find(|(_, known)| *known == name).map(|(format, _)| *format).ok_or_else(|| {
            let names: Vec<&str> = Format::ALL.iter().map(|(_, name)| *name).collect();
            format!("\"{name}\" is not an image format; known are {}", names.join(", "))
        })
    }
}

/// Begins a VHD footer.
const VHD_COOKIE: &[u8] = b"conectix";

/// The format that the file's magic numbers tell; without any, it is raw. The inner error says what else it is, where that
/// can't be imported.
pub fn detect(file: &File) -> io::Result<Result<Format, &'static str>> {
    let mut head = [0; 512];
    let len = read_some(file, &mut head, 0)?;
    let head = head.get(..len).unwrap_or_default();
    Ok(if let Some(format) = by_head(head) {
        Ok(format)
    } else if let Some(what) = unsupported_head(head) {
        Err(what)
    } else if has_vhd_footer(file)? {
        Ok(Format::FixedVhd)
    } else {
        Ok(Format::Raw)
    })
}

/// The format by a file's first bytes, if they tell.
pub fn by_head(head: &[u8]) -> Option<Format> {
    const MAGIC: [(&[u8], Format); 6] = [
        (b"QFI\xfb", Format::Qcow2),
        (b"KDMV", Format::Vmdk),
        (b"# Disk DescriptorFile", Format::Vmdk),
        (b"\xfd7zXZ\0", Format::RawXz),
        (b"\x1f\x8b\x08", Format::RawGzip),
        (b"\x28\xb5\x2f\xfd", Format::RawZstd),
    ];
    MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| *format)
}

/// Formats that are known and not read here, by their first bytes.
pub fn unsupported_head(head: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 5] = [
        (b"vhdxfile", "it is a VHDX image"),
        (VHD_COOKIE, "it is a dynamic VHD image"),
        (b"COWD", "it is an old sparse VMDK of ESX"),
        (b"<<< ", "it is a VirtualBox disk image"),
        (b"QED\0", "it is a QED image"),
    ];
    MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, what)| *what)
}

/// A VHD's last sector is its footer; with disk type 2 all before it is the disk ("Virtual Hard Disk Image Format
/// Specification", hard disk footer format).
fn has_vhd_footer(file: &File) -> io::Result<bool> {
    let mut footer = [0; 512];
    let Some(at) = seek(file, SeekFrom::End(0))?.checked_sub(512) else { return Ok(false) };
    let len = read_some(file, &mut footer, at)?;
    Ok(len == 512 && footer.starts_with(VHD_COOKIE) && footer.get(60..64) == Some(&[0, 0, 0, 2]))
}

fn read_some(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
