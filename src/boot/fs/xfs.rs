//! XFS through `lamxfs`, which also replays a log that was left behind.

use lamxfs::{Error, Path, Xfs};

use super::reader::PartitionReader;
use super::{FileKind, RawFs, Stat};

/// The library decodes a file's extents at each call, so the pieces are large.
const CHUNK: usize = 16 << 20;

struct XfsFs(Xfs<PartitionReader>);

pub(super) fn open(reader: PartitionReader) -> Result<Box<dyn RawFs>, String> {
    let size = reader.len();
    Ok(Box::new(XfsFs(Xfs::open(reader, size).map_err(|e| e.to_string())?)))
}

impl RawFs for XfsFs {
    fn lstat(&mut self, path: &str) -> Result<Option<Stat>, String> {
        let inode = match self.0.resolve(Path::new(path.as_bytes())) {
            Ok(inode) => inode,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let m = self.0.metadata(&inode).map_err(|e| e.to_string())?;
        let kind = match () {
            () if m.is_file() => FileKind::File,
            () if m.is_dir() => FileKind::Dir,
            () if m.is_symlink() => FileKind::Symlink,
            () => FileKind::Other,
        };
        // The library shows no times. A file that was replaced, as package managers do, has another inode.
        Ok(Some(Stat { kind, size: m.size(), stamp: inode.ino }))
    }

    fn read_link(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.0.read_link(Path::new(path.as_bytes())).map_err(|e| e.to_string())
    }

    fn read_range(&mut self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let inode = self.0.resolve(Path::new(path.as_bytes())).map_err(|e| e.to_string())?;
        super::read_in_pieces(offset, length, CHUNK, |at, buf| {
            self.0.read_file_at(&inode, at, buf).map_err(|e| e.to_string())
        })
    }

    fn list(&mut self, path: &str, max: usize) -> Result<Vec<String>, String> {
        let entries = self.0.read_dir(Path::new(path.as_bytes())).map_err(|e| e.to_string())?;
        Ok(entries.into_iter().filter_map(|e| String::from_utf8(e.name).ok()).take(max).collect())
    }
}
