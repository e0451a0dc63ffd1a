//! What a chain of layers shows, written out as one file: sparse raw, qcow2, and VMDK with `qemu-img`'s help.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use imago::file::File as ImageFile;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, Storage, StorageOpenOptions};
use sha2::{Digest, Sha256};
use vm_memory::VolatileSlice;

use super::{Layer, StorageError};
use crate::vmm::backend::Wait;
use crate::vmm::volatile_io::Window;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// Zeros of this length become holes.
const HOLE: usize = 64 << 10;

/// The formats that images are exported in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// As it is, with holes.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's (streamOptimized), as EC2's image export takes it.
    Vmdk,
}

/// Write all of `layer` to a new file. Answers the file's SHA-256 in hexadecimal.
///
/// # Errors
/// A file that is there already; for VMDK a machine without `qemu-img`.
pub fn export(layer: &dyn Layer, to: &Path, format: ExportFormat) -> Result<String, StorageError> {
    if to.exists() {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(StorageError::Io { action: "write", path: to.into(), source });
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder).map_err(StorageError::io("write into", folder))?;
    let written = match format {
        ExportFormat::Raw | ExportFormat::Vmdk => raw(layer, file.as_file()),
        ExportFormat::Qcow2 => qcow2(layer, file.path()),
    };
    written.map_err(StorageError::io("write", to))?;
    let done = if format == ExportFormat::Vmdk { to_vmdk(file.path(), folder)? } else { file };
    done.as_file().sync_all().map_err(StorageError::io("write", to))?;
    let sum = digest(done.path()).map_err(StorageError::io("read", to))?;
    // There at once and as a whole, or not at all.
    done.persist_noclobber(to).map_err(|error| StorageError::Io {
        action: "write",
        path: to.into(),
        source: error.error,
    })?;
    Ok(sum)
}

fn raw(layer: &dyn Layer, to: &File) -> io::Result<()> {
    to.set_len(layer.size())?;
    copy(layer, |piece, at| to.write_all_at(piece, at))
}

/// Into an empty file, in clusters of 64 KiB.
fn qcow2(layer: &dyn Layer, to: &Path) -> io::Result<()> {
    let file: ImageFile = Storage::open(StorageOpenOptions::new().filename(to).write(true))?;
    let create = Qcow2::<ImageFile>::create_builder(file).size(layer.size()).cluster_size(HOLE);
    let image = create.create_open(DenyImplicitOpenGate::default(), |file| Ok(Qcow2::builder(file)))?;
    let image = FormatAccess::new(image);
    copy(layer, |piece, at| image.write(piece, at))?;
    image.flush()
}

/// Give `write` all pieces that are not zeros, with their offsets.
fn copy(layer: &dyn Layer, write: impl Fn(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let size = layer.size();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some(data) = layer.next_data(at, size)? {
        // Whole pieces, so that one that is all zeros is seen as such.
        at = data.start - data.start % HOLE as u64;
        let length = data.end.next_multiple_of(HOLE as u64).min(size).saturating_sub(at).min(CHUNK as u64) as usize;
        let Some(part) = buffer.get_mut(..length) else { return Err(io::ErrorKind::InvalidInput.into()) };
        {
            let slices = [VolatileSlice::from(&mut *part)];
            let window = Window::whole(&slices).ok_or(io::ErrorKind::InvalidInput)?;
            layer.read_layer(window, at, Wait::Allowed)?;
        }
        for (index, piece) in part.chunks(HOLE).enumerate() {
            if piece.iter().any(|byte| *byte != 0) {
                write(piece, at + (index * HOLE) as u64)?;
            }
        }
        at += length as u64;
    }
    Ok(())
}

fn to_vmdk(raw: &Path, folder: &Path) -> Result<tempfile::NamedTempFile, StorageError> {
    let out = tempfile::NamedTempFile::new_in(folder).map_err(StorageError::io("write into", folder))?;
    let failed = |source| StorageError::Io { action: "convert with qemu-img into", path: folder.into(), source };
    let ran = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "vmdk", "-osubformat=streamOptimized"])
        .arg(raw)
        .arg(out.path())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                failed(io::Error::new(error.kind(), "it is not installed: sudo apt-get install qemu-utils"))
            }
            _ => failed(error),
        })?;
    if !ran.status.success() {
        return Err(failed(io::Error::other(String::from_utf8_lossy(&ran.stderr).trim().to_owned())));
    }
    Ok(out)
}

fn digest(path: &Path) -> io::Result<String> {
    struct Hash(Sha256);
    impl Write for Hash {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hash = Hash(Sha256::new());
    io::copy(&mut OpenOptions::new().read(true).open(path)?, &mut hash)?;
    Ok(hex::encode(hash.0.finalize()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::storage::{Chain, OpenMode, VolumePaths};
    use crate::vmm::backend::BlockBackend;

    /// A TiB of nothing but two blocks, of which only pieces around those may be read.
    struct Sparse(File);
    const SIZE: u64 = 1 << 40;
    const DATA: [u64; 2] = [3 << 38, SIZE - 512];

    impl Layer for Sparse {
        fn size(&self) -> u64 {
            SIZE
        }
        fn read_layer(&self, to: Window<'_, '_>, offset: u64, _: Wait) -> io::Result<()> {
            let end = offset + to.len() as u64;
            let at = DATA.into_iter().find(|at| (offset..end).contains(at)).expect("a hole is read");
            to.zero();
            let (_, rest) = to.split_at((at - offset) as usize);
            let (block, _) = rest.split_at(512);
            crate::vmm::volatile_io::read_window_at(self.0.as_fd(), block, 0, Wait::Allowed)
        }
        fn next_data(&self, from: u64, limit: u64) -> io::Result<Option<std::ops::Range<u64>>> {
            Ok(DATA.into_iter().map(|at| at..at + 512).find(|data| data.end > from && data.start < limit))
        }
    }

    #[test]
    fn holes_are_not_read() {
        let (file, block) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        block.write_all_at(&[7; 512], 0).unwrap();
        raw(&Sparse(block), &file).unwrap();
        for at in DATA {
            let mut bytes = [0; 512];
            file.read_exact_at(&mut bytes, at).unwrap();
            assert_eq!(bytes, [7; 512]);
        }
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        assert!(file.metadata().unwrap().blocks() * 512 <= 2 * HOLE as u64);
    }

    #[test]
    fn a_chain_becomes_one_sparse_file() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, vec![5; 128 << 10]).unwrap();
        let chain = Chain { image: Some(image), frozen: Vec::new() };
        let top = VolumePaths::in_folder(dir.path(), "a");
        let volume = chain.create(&top, 8 << 20, OpenMode::ReadWrite).unwrap();
        let mut bytes = [9; 4096];
        BlockBackend::write(&volume, &[VolatileSlice::from(&mut bytes[..])], 4096, Wait::Allowed).unwrap();
        volume.snapshot(&VolumePaths::in_folder(dir.path(), "b")).unwrap();
        drop(volume);
        let chain = Chain { frozen: vec![top], ..chain };
        let layer = chain.open().unwrap().unwrap();
        let to = dir.path().join("out.raw");
        let sum = export(&*layer, &to, ExportFormat::Raw).unwrap();
        let written = std::fs::read(&to).unwrap();
        assert_eq!(written.len(), 8 << 20);
        assert_eq!((written[0], written[4096], written[8192], written[1 << 20]), (5, 9, 5, 0));
        assert_eq!(sum, hex::encode(Sha256::digest(&written)));
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
        assert!(export(&*layer, &to, ExportFormat::Raw).is_err());

        if Command::new("qemu-img").arg("--version").output().is_err() {
            eprintln!("SKIPPED: VMDK, and a look at qcow2, need qemu-img: sudo apt-get install qemu-utils");
            return;
        }
        for (name, format) in [("out.qcow2", ExportFormat::Qcow2), ("out.vmdk", ExportFormat::Vmdk)] {
            let converted = dir.path().join(name);
            export(&*layer, &converted, format).unwrap();
            assert!(std::fs::metadata(&converted).unwrap().blocks() * 512 < 1 << 20);
            if format == ExportFormat::Qcow2 {
                let sound = Command::new("qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(&converted).status();
                assert!(sound.unwrap().success(), "{name}");
            }
            let same = Command::new("qemu-img").arg("compare").args([&to, &converted]).status().unwrap();
            assert!(same.success(), "{name}");
        }
    }
}
