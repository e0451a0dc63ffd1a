//! How large an image is, and how much of it is stored.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::SeekFrom;

/// The two sizes of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// What the guest sees, in bytes.
    pub virtual_size: u64,
    /// What it takes on the host's disk, in bytes.
    pub stored: u64,
}

/// Both sizes of a raw image file.
pub fn size_of(path: &Path) -> io::Result<ImageSize> {
    let metadata = std::fs::metadata(path)?;
    // st_blocks counts 512 bytes, whatever the file system's block size (stat(2)).
    Ok(ImageSize { virtual_size: metadata.len(), stored: metadata.blocks().saturating_mul(512) })
}

/// The next range of `file` from `offset` on that may hold data, below `size`: all else reads as zeros. `None` if there
/// is no more. A file system that can't tell calls everything data.
pub fn next_data(file: &File, offset: u64, size: u64) -> io::Result<Option<Range<u64>>> {
    use rustix::io::Errno;
    if offset >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => return Ok(Some(offset..size)),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    // A file that changes while we look can answer anything.
    if start >= size || end <= start { Ok(None) } else { Ok(Some(start.max(offset)..end.min(size))) }
}
