//! The volume beside plain system calls on a raw file and beside a qcow2 overlay, in one run, so that the ratios count
//! whatever the machine is doing.
//!
//! `cargo bench --bench storage`; the files lie in the temporary directory (`TMPDIR`), mostly in the page cache.
#![allow(missing_docs)]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amiable::storage::volume::VOLUME_BLOCK;
use amiable::storage::{Layer, OpenMode, RawImage, Volume, VolumePaths};
use amiable::vmm::backend::{BlockBackend, Wait};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use imago::file::File as ImageFile;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, Storage, StorageCreateOptions,
    StorageOpenOptions,
};
use vm_memory::VolatileSlice;

const SIZE: u64 = 256 << 20;
const BLOCKS: u64 = SIZE / VOLUME_BLOCK;
const MIB: usize = 1 << 20;

/// Distinct pseudo-random blocks: an odd factor permutes a power of two.
fn nth_block(n: u64) -> u64 {
    (n.wrapping_mul(0x9e37_79b1) % BLOCKS) * VOLUME_BLOCK
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let dir = tempfile::tempdir().unwrap();
        fill(&dir.path().join("base"));
        fill(&dir.path().join("plain"));
        Files { dir }
    }

    fn base(&self) -> Arc<dyn Layer> {
        Arc::new(RawImage::open(&self.dir.path().join("base")).unwrap())
    }

    fn plain(&self) -> File {
        File::options().read(true).write(true).open(self.dir.path().join("plain")).unwrap()
    }

    fn volume(&self, name: &str, size: u64) -> Volume {
        let paths = VolumePaths::in_folder(self.dir.path(), name);
        paths.remove().unwrap();
        Volume::create(&paths, size, Some(self.base()), OpenMode::ReadWrite).unwrap()
    }

    /// A volume with all its blocks in the layer.
    fn full_volume(&self, name: &str) -> Volume {
        let volume = self.volume(name, SIZE);
        let mut buf = vec![3; MIB];
        for at in (0..SIZE).step_by(MIB) {
            volume.write(&[VolatileSlice::from(&mut buf[..])], at, Wait::Allowed).unwrap();
        }
        volume.flush().unwrap();
        volume
    }

    fn overlay(&self, name: &str) -> Qcow {
        let path = self.dir.path().join(name);
        let _ = std::fs::remove_file(&path);
        let base = self.dir.path().join("base");
        let backing: ImageFile = Storage::open(StorageOpenOptions::new().filename(&base)).unwrap();
        let backing =
            FormatAccess::new(Raw::<ImageFile>::builder(backing).open(DenyImplicitOpenGate::default()).unwrap());
        let file: ImageFile = Storage::create_open(StorageCreateOptions::new().filename(&path)).unwrap();
        Qcow2::<ImageFile>::create_builder(file)
            .size(SIZE)
            .cluster_size(64 << 10)
            .backing(base.display().to_string(), "raw".into())
            .create()
            .unwrap();
        let file: ImageFile = Storage::open(StorageOpenOptions::new().filename(&path).write(true)).unwrap();
        let image = Qcow2::<ImageFile, Arc<FormatAccess<ImageFile>>>::builder(file)
            .write(true)
            .backing(Some(Arc::new(backing)))
            .open(DenyImplicitOpenGate::default())
            .unwrap();
        FormatAccess::new(image)
    }

    fn full_overlay(&self, name: &str) -> Qcow {
        let overlay = self.overlay(name);
        let buf = vec![3u8; MIB];
        for at in (0..SIZE).step_by(MIB) {
            overlay.write(&buf[..], at).unwrap();
        }
        overlay.flush().unwrap();
        overlay
    }
}

type Qcow = FormatAccess<ImageFile>;

fn fill(path: &Path) {
    let file = File::create(path).unwrap();
    let buf: Vec<u8> = (0..MIB).map(|i| (i % 251) as u8 + 1).collect();
    for at in (0..SIZE).step_by(MIB) {
        file.write_all_at(&buf, at).unwrap();
    }
    file.sync_all().unwrap();
}

/// Time `n` calls of `op` with 0 to n - 1, of which only `per_round` can be done before `reset`, which is not timed.
fn rounds<T>(n: u64, per_round: u64, mut reset: impl FnMut() -> T, mut op: impl FnMut(&T, u64)) -> Duration {
    let mut time = Duration::ZERO;
    for first in (0..n).step_by(per_round as usize) {
        let state = reset();
        let start = Instant::now();
        for i in 0..per_round.min(n - first) {
            op(&state, i);
        }
        time += start.elapsed();
    }
    time
}

fn transfers(c: &mut Criterion, files: &Files, name: &str, len: usize) {
    let mut buf = vec![7u8; len];
    let place = move |n: &mut u64| {
        *n += 1;
        if len == MIB { *n * MIB as u64 % SIZE } else { nth_block(*n) }
    };
    let plain = files.plain();
    let base = RawImage::open(&files.dir.path().join("base")).unwrap();
    let (empty, full) = (files.volume("empty", SIZE), files.full_volume("full"));
    let (overlay, full_overlay) = (files.overlay("o.qcow2"), files.full_overlay("f.qcow2"));

    let mut group = c.benchmark_group(format!("read {name}"));
    group.throughput(Throughput::Bytes(len as u64));
    let mut n = 0;
    group.bench_function("pread", |b| b.iter(|| plain.read_exact_at(black_box(&mut buf), place(&mut n)).unwrap()));
    for (title, disk) in [("raw image", &base as &dyn BlockBackend), ("volume, base", &empty), ("volume, layer", &full)]
    {
        group.bench_function(title, |b| {
            b.iter(|| disk.read(&[VolatileSlice::from(&mut buf[..])], place(&mut n), Wait::Allowed).unwrap())
        });
    }
    for (title, image) in [("qcow2, base", &overlay), ("qcow2, layer", &full_overlay)] {
        group.bench_function(title, |b| b.iter(|| image.read(&mut buf[..], place(&mut n)).unwrap()));
    }
    group.finish();

    let mut group = c.benchmark_group(format!("write {name}"));
    group.throughput(Throughput::Bytes(len as u64));
    group.bench_function("pwrite", |b| b.iter(|| plain.write_all_at(black_box(&buf), place(&mut n)).unwrap()));
    group.bench_function("volume, again", |b| {
        b.iter(|| full.write(&[VolatileSlice::from(&mut buf[..])], place(&mut n), Wait::Allowed).unwrap())
    });
    group.bench_function("qcow2, again", |b| b.iter(|| full_overlay.write(&buf[..], place(&mut n)).unwrap()));
    // The first write of each place, into new files.
    let fresh = SIZE / len as u64 / 4;
    group.bench_function("pwrite, first", |b| {
        b.iter_custom(|count| {
            let new = || {
                let file = tempfile::tempfile_in(files.dir.path()).unwrap();
                file.set_len(SIZE).unwrap();
                file
            };
            rounds(count, fresh, new, |file, i| file.write_all_at(&buf, place(&mut { i })).unwrap())
        })
    });
    group.bench_function("volume, first", |b| {
        b.iter_custom(|count| {
            rounds(
                count,
                fresh,
                || files.volume("fresh", SIZE),
                |volume, i| {
                    volume.write(&[VolatileSlice::from(&mut buf[..])], place(&mut { i }), Wait::Allowed).unwrap();
                },
            )
        })
    });
    group.bench_function("qcow2, first", |b| {
        b.iter_custom(|count| {
            rounds(
                count,
                fresh,
                || files.overlay("fresh.qcow2"),
                |image, i| {
                    image.write(&buf[..], place(&mut { i })).unwrap();
                },
            )
        })
    });
    group.finish();
}

fn storage(c: &mut Criterion) {
    let files = Files::new();
    transfers(c, &files, "4 KiB random", 4096);
    transfers(c, &files, "1 MiB sequential", MIB);

    let mut buf = vec![9u8; 4096];
    let plain = files.plain();
    let (volume, fresh) = (files.full_volume("full"), files.volume("fresh", 1 << 40));
    let overlay = files.full_overlay("f.qcow2");
    let mut n = 0u64;
    let mut next = || {
        n += 1;
        nth_block(n)
    };
    let mut group = c.benchmark_group("write 4 KiB + flush");
    group.sample_size(40);
    group.bench_function("pwrite + fdatasync", |b| {
        b.iter(|| {
            plain.write_all_at(&buf, next()).unwrap();
            plain.sync_data().unwrap();
        })
    });
    group.bench_function("volume, again", |b| {
        b.iter(|| {
            volume.write(&[VolatileSlice::from(&mut buf[..])], next(), Wait::Allowed).unwrap();
            volume.flush().unwrap();
        })
    });
    let mut at = 0;
    group.bench_function("volume, first", |b| {
        b.iter(|| {
            at += 16 * VOLUME_BLOCK;
            fresh.write(&[VolatileSlice::from(&mut buf[..])], at, Wait::Allowed).unwrap();
            fresh.flush().unwrap();
        })
    });
    group.bench_function("qcow2, again", |b| {
        b.iter(|| {
            overlay.write(&buf[..], next()).unwrap();
            overlay.flush().unwrap();
            overlay.sync().unwrap();
        })
    });
    group.bench_function("nothing new", |b| b.iter(|| volume.flush().unwrap()));
    group.finish();

    let mut group = c.benchmark_group("start");
    group.bench_function("create a volume of 8 GiB", |b| b.iter(|| files.volume("made", 8 << 30)));
    let paths = VolumePaths::in_folder(files.dir.path(), "made");
    group.bench_function("open a volume of 8 GiB", |b| {
        b.iter(|| Volume::open(&paths, Some(files.base()), OpenMode::ReadWrite).unwrap())
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(30);
    targets = storage
}
criterion_main!(benches);
