//! Several frozen layers, each over the one before, become one new layer that shows the same: when nothing needs those in between any
//! more, or a volume has too many.
//!
//! What is there is only read, so whoever uses the old layers goes on with them. The new layer has the id of the uppermost one and lies
//! over what the lowest one lies over: it can stand in their place, in any chain that has all of them. It is frozen, which is the last
//! thing that is written to it: whoever finds it unfrozen knows that its making was cut short.

use std::fs::File;
use std::io;

use super::bitmap::Bitmap;
use super::block_file::BlockFile;
use super::map_file::{Header, MapFile};
use super::volume::{VOLUME_BLOCK, folder};
use super::{OpenMode, StorageError, VolumePaths};

struct Source {
    data: BlockFile,
    header: Header,
    held: Bitmap,
}

impl Source {
    fn open(paths: &VolumePaths) -> Result<Self, StorageError> {
        let data = BlockFile::open(&paths.data, OpenMode::ReadOnly)?;
        let (_, header, held) = MapFile::open(&paths.map, OpenMode::ReadOnly)?;
        data.require(&paths.data, header.size)?;
        if !header.frozen {
            return Err(StorageError::NotFrozen { path: paths.map.clone() });
        }
        Ok(Source { data, header, held })
    }
}

/// Make the layer `into` of `layers`, which are given from the bottom up. It is durable when this returns.
///
/// # Errors
/// Layers that are not frozen, or don't lie over one another; a full disk. There are no files at `into` then, unless there were before.
pub fn merge(layers: &[VolumePaths], into: &VolumePaths) -> Result<(), StorageError> {
    let mut sources = Vec::new();
    for paths in layers {
        let source = Source::open(paths)?;
        if let Some(Source { header: below, .. }) = sources.last()
            && (below.id != source.header.parent || below.size != source.header.base_size)
        {
            return Err(StorageError::WrongParent { path: paths.map.clone() });
        }
        sources.push(source);
    }
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else {
        return Err(StorageError::TooDeep { layers: 0, most: 0 });
    };
    let header = Header {
        size: last.header.size,
        base_size: first.header.base_size,
        id: last.header.id,
        parent: first.header.parent,
        frozen: false,
    };
    let data = BlockFile::create(&into.data, header.size)?;
    let made = MapFile::create(&into.map, header).and_then(|map| {
        let filled = fill(&sources, header, &data, map, into);
        filled.map_err(StorageError::io("merge layers into", &into.data)).inspect_err(|_| {
            let _ = std::fs::remove_file(&into.map);
        })
    });
    made.inspect_err(|_| {
        let _ = std::fs::remove_file(&into.data);
    })
}

fn fill(sources: &[Source], header: Header, data: &BlockFile, mut map: MapFile, into: &VolumePaths) -> io::Result<()> {
    let held = Bitmap::new(header.size.div_ceil(VOLUME_BLOCK));
    // From the top down: what is there counts.
    for source in sources.iter().rev() {
        let blocks = source.header.size.div_ceil(VOLUME_BLOCK);
        let mut at = 0;
        while at < blocks {
            let (theirs, run_end) = source.held.run(at, blocks);
            let (ours, end) = held.run(at, run_end);
            if theirs && !ours {
                copy(&source.data, data, at * VOLUME_BLOCK, (end * VOLUME_BLOCK).min(source.header.size))?;
                held.set(at, end);
            }
            at = end;
        }
    }
    data.sync()?;
    map.write_back(&held, || Ok(()))?;
    map.sync()?;
    for path in [&into.data, &into.map] {
        // A folder that can't be opened for reading can't be synced; its files can.
        folder(path).map_or(Ok(()), |folder: File| folder.sync_all())?;
    }
    map.replace_header(Header { frozen: true, ..header })
}

/// Copy what is no hole.
fn copy(from: &BlockFile, to: &BlockFile, mut at: u64, end: u64) -> io::Result<()> {
    while let Some(data) = from.next_data(at, end)? {
        to.copy_from(from, data.start, data.end)?;
        at = data.end;
    }
    Ok(())
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
