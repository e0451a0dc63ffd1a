//! qcow2, read through imago behind a check of the header (QEMU's docs/interop/qcow2.txt).

use std::fs::File;
use std::io;

use imago::file::File as ImageFile;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping, StorageOpenOptions};

use super::writer::{BLOCK, CHUNK, Writer};
use super::{ImportError, Input};

/// Incompatible feature bits (version 3).
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
/// Tables larger than this are refused, as QEMU does.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;

pub fn copy(input: &Input<'_>, out: &mut Writer<'_>) -> Result<(), ImportError> {
    let size = check_header(input)?;
    out.set_size(size.next_multiple_of(512))?;
    let file = input.file.try_clone().map_err(|error| input.read_error(error))?;
    let image = open(file).map_err(|error| refused(input, error))?;
    if image.size() != size {
        return Err(input.damaged("its header was changed while it was read"));
    }
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let (mapping, length) = image.get_mapping(at, size - at).map_err(|error| refused(input, error))?;
        let left = size - at;
        // All but the last piece is whole blocks, however small the clusters are.
        let zeros = match mapping {
            Mapping::Zero { .. } | Mapping::Eof { .. } if length >= left => left,
            Mapping::Zero { .. } => length - length % BLOCK,
            _ => 0,
        };
        if zeros > 0 {
            out.zeros(zeros)?;
            at += zeros;
            continue;
        }
        let n = left.min(CHUNK as u64);
        let buf = buf.get_mut(..n as usize).unwrap_or_default();
        image.read(&mut *buf, at).map_err(|error| refused(input, error))?;
        out.data(buf)?;
        at += n;
    }
    Ok(())
}

fn open(file: File) -> io::Result<FormatAccess<ImageFile>> {
    let storage = ImageFile::from_open_file(file, StorageOpenOptions::new())?;
    let image = Qcow2::<ImageFile>::builder(storage).open(DenyImplicitOpenGate::default())?;
    Ok(FormatAccess::new(image))
}

fn refused(input: &Input<'_>, error: io::Error) -> ImportError {
    match (error.raw_os_error(), error.kind()) {
        (Some(_), _) => input.read_error(error),
        (None, io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => input.unsupported(error.to_string()),
        _ => input.damaged(error.to_string()),
    }
}

/// Refuse what is not supported, and tables that could not be for a disk of this size. Answers the disk's size.
fn check_header(input: &Input<'_>) -> Result<u64, ImportError> {
    // Version 2 has 72 bytes; what follows of a version 3 header that is shorter reads as zeros.
    let mut header = [0; 112];
    let have = input.len()?.min(header.len() as u64) as usize;
    input.read_at(0, header.get_mut(..have).unwrap_or_default())?;
    let u32_at = |at: usize| header.get(at..at + 4).map_or(0, |b| b.iter().fold(0, |n, b| n << 8 | u32::from(*b)));
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));

    let version = u32_at(4);
    if u32_at(0) != 0x5146_49fb || have < 72 {
        return Err(input.damaged("it does not begin as a qcow2 image"));
    }
    if !(2..=3).contains(&version) {
        return Err(input.unsupported(format!("qcow2 version {version} is not known")));
    }
    if u64_at(8) != 0 {
        return Err(
            input.unsupported("it is only the difference to a backing file, and other files are never followed")
        );
    }
    if u32_at(32) != 0 {
        return Err(input.unsupported("it is encrypted"));
    }
    let cluster_bits = u32_at(20);
    if !(9..=21).contains(&cluster_bits) {
        return Err(input.damaged(format!("clusters of 2^{cluster_bits} bytes are impossible")));
    }
    let size = input.checked_size(u64_at(24))?;
    if version == 3 {
        let incompatible = u64_at(72);
        if incompatible & EXTERNAL_DATA != 0 {
            return Err(input.unsupported("its data is in another file, and other files are never followed"));
        }
        // The compression type is in the header when the header is that long.
        if incompatible & COMPRESSION_TYPE != 0 && u32_at(100) > 104 && header.get(104) == Some(&1) {
            return Err(input.unsupported("it is compressed with zstd"));
        }
    }
    // An L1 entry stands for one L2 table: a cluster of 8-byte entries, each a cluster.
    let per_l1 = 1u64 << (2 * cluster_bits - 3);
    let l1_bytes = u64::from(u32_at(36)).saturating_mul(8);
    if l1_bytes > MAX_L1_BYTES || u64::from(u32_at(36)) < size.div_ceil(per_l1) {
        return Err(input.damaged("its L1 table does not fit the size of the disk"));
    }
    if u64::from(u32_at(56)) << cluster_bits > MAX_REFCOUNT_TABLE {
        return Err(input.damaged("its refcount table is too large"));
    }
    Ok(size)
}
