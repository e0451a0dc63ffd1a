//! FAT12, FAT16 and FAT32 through `fatfs`: the EFI system partition.

use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{Dir, FsOptions};

use super::reader::PartitionReader;
use super::{FileKind, RawFs, Stat};

const CHUNK: usize = 1 << 20;
/// A directory cannot hold more 32-byte slots (FAT specification 1.03 §6).
const MAX_SLOTS: usize = 65_536;

struct FatFs(fatfs::FileSystem<Cursor>);

pub(super) fn open(reader: PartitionReader) -> Result<Box<dyn RawFs>, String> {
    let fs = fatfs::FileSystem::new(Cursor { reader, at: 0 }, FsOptions::new()).map_err(|e| e.to_string())?;
    Ok(Box::new(FatFs(fs)))
}

/// A partition as the library wants it. Writes are refused.
struct Cursor {
    reader: PartitionReader,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.reader.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let n = buf.len().min(left);
        self.reader.read(self.at, buf.get_mut(..n).unwrap_or_default())?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Cursor {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.reader.len().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

enum Node<'a> {
    Dir(Dir<'a, Cursor>),
    File(fatfs::DirEntry<'a, Cursor>),
}

impl FatFs {
    fn node(&self, path: &str) -> Result<Option<Node<'_>>, String> {
        let mut dir = self.0.root_dir();
        let mut names = path.split('/').filter(|n| !n.is_empty()).peekable();
        while let Some(name) = names.next() {
            let mut found = None;
            for entry in dir.iter().take(MAX_SLOTS) {
                let entry = entry.map_err(|e| e.to_string())?;
                if entry.file_name().eq_ignore_ascii_case(name) || entry.short_file_name().eq_ignore_ascii_case(name) {
                    found = Some(entry);
                    break;
                }
            }
            match found {
                Some(entry) if entry.is_dir() => dir = entry.to_dir(),
                Some(entry) if names.peek().is_none() => return Ok(Some(Node::File(entry))),
                _ => return Ok(None),
            }
        }
        Ok(Some(Node::Dir(dir)))
    }
}

impl RawFs for FatFs {
    fn lstat(&mut self, path: &str) -> Result<Option<Stat>, String> {
        Ok(self.node(path)?.map(|node| match node {
            Node::Dir(_) => Stat { kind: FileKind::Dir, size: 0, stamp: 0 },
            Node::File(entry) => {
                let t = entry.modified();
                let fields = [t.date.year, t.date.month, t.date.day, t.time.hour, t.time.min, t.time.sec];
                let stamp = fields.iter().fold(0_u64, |n, f| n.wrapping_mul(100).wrapping_add((*f).into()));
                Stat { kind: FileKind::File, size: entry.len(), stamp }
            }
        }))
    }

    fn read_link(&mut self, path: &str) -> Result<Vec<u8>, String> {
        Err(format!("{path}: FAT has no links"))
    }

    fn read_range(&mut self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let Some(Node::File(entry)) = self.node(path)? else { return Err(format!("{path} vanished")) };
        let mut file = entry.to_file();
        file.seek(SeekFrom::Start(offset)).map_err(|e| e.to_string())?;
        super::read_in_pieces(offset, length, CHUNK, |_, buf| {
            let mut done = 0;
            while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
                match file.read(rest).map_err(|e| e.to_string())? {
                    0 => break,
                    n => done += n,
                }
            }
            Ok(done)
        })
    }

    fn list(&mut self, path: &str, max: usize) -> Result<Vec<String>, String> {
        let Some(Node::Dir(dir)) = self.node(path)? else { return Err(format!("{path} vanished")) };
        let mut names = Vec::new();
        for entry in dir.iter().take(max) {
            let name = entry.map_err(|e| e.to_string())?.file_name();
            if !matches!(name.as_str(), "." | "..") {
                names.push(name);
            }
        }
        Ok(names)
    }
}
