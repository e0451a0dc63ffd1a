//! btrfs through `lambutter`. One device only, as an AMI's root volume is.

use lambutter::{Btrfs, Error, Path};

use super::reader::PartitionReader;
use super::{FileKind, RawFs, Stat, Subvolume};

const CHUNK: usize = 4 << 20;
/// The id of the top level.
const TOP: u64 = 5;

/// One or two views of the same file system; a path is looked up in each until one has it.
struct BtrfsFs(Vec<Btrfs<PartitionReader>>);

pub(super) fn open(reader: &dyn Fn() -> PartitionReader, subvolume: Subvolume<'_>) -> Result<Box<dyn RawFs>, String> {
    let size = reader().len();
    let text = |e: Error| e.to_string();
    let views = match subvolume {
        Subvolume::Path(path) => {
            let path = format!("/{}", path.trim_start_matches('/'));
            vec![Btrfs::open_subvol_path(reader(), size, Path::from(path.as_str())).map_err(text)?]
        }
        Subvolume::Id(id) => vec![Btrfs::open_subvol_id(reader(), size, id).map_err(text)?],
        Subvolume::Default => vec![Btrfs::open(reader(), size).map_err(text)?],
        Subvolume::Any => {
            let default = Btrfs::open(reader(), size).map_err(text)?;
            if default.subvolume() == TOP {
                vec![default]
            } else {
                vec![default, Btrfs::open_subvol_id(reader(), size, TOP).map_err(text)?]
            }
        }
    };
    Ok(Box::new(BtrfsFs(views)))
}

impl BtrfsFs {
    /// The first view that has `path`.
    fn view(&mut self, path: &str) -> Result<Option<(&mut Btrfs<PartitionReader>, lambutter::Inode)>, String> {
        for view in &mut self.0 {
            match view.resolve(Path::from(path)) {
                Ok(inode) => return Ok(Some((view, inode))),
                Err(Error::NotFound) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(None)
    }

    fn existing(&mut self, path: &str) -> Result<(&mut Btrfs<PartitionReader>, lambutter::Inode), String> {
        self.view(path)?.ok_or_else(|| format!("{path} vanished"))
    }
}

impl RawFs for BtrfsFs {
    fn lstat(&mut self, path: &str) -> Result<Option<Stat>, String> {
        let Some((view, inode)) = self.view(path)? else { return Ok(None) };
        let m = view.metadata(&inode).map_err(|e| e.to_string())?;
        let kind = match () {
            () if m.is_file() => FileKind::File,
            () if m.is_dir() => FileKind::Dir,
            () if m.is_symlink() => FileKind::Symlink,
            () => FileKind::Other,
        };
        Ok(Some(Stat { kind, size: m.size, stamp: m.generation }))
    }

    fn read_link(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.existing(path)?.0.read_link(Path::from(path)).map_err(|e| e.to_string())
    }

    fn read_range(&mut self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let (view, inode) = self.existing(path)?;
        super::read_in_pieces(offset, length, CHUNK, |at, buf| {
            view.read_file_at(&inode, at, buf).map_err(|e| e.to_string())
        })
    }

    fn list(&mut self, path: &str, max: usize) -> Result<Vec<String>, String> {
        let entries = self.existing(path)?.0.read_dir(Path::from(path)).map_err(|e| e.to_string())?;
        Ok(entries.into_iter().filter_map(|e| String::from_utf8(e.name).ok()).take(max).collect())
    }
}
