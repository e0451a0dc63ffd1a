//! A process that writes and flushes is killed; what it said to be flushed must be there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use vm_memory::VolatileSlice;

use super::*;
use crate::boot::Disk;
use crate::storage::chain::{MOST_LAYERS, is_frozen};
use crate::storage::{Chain, LiveVolume};
use crate::vmm::backend::{BlockBackend, Wait};

const FOLDER: &str = "AMIABLE_TEST_CRASH_FOLDER";
const SNAPSHOTS: &str = "AMIABLE_TEST_CRASH_SNAPSHOTS";
const SIZE: u64 = 64 << 20;
const BLOCKS: u64 = SIZE / 4096;

/// Where the writer puts value `n`, and how long the record is: 512 bytes to 8 KiB, anywhere, often across blocks.
fn place(n: u64) -> (u64, usize) {
    let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let len = 512 * (1 + random % 16);
    ((random >> 8) % ((SIZE - len) / 512) * 512, len as usize)
}

fn record(n: u64, len: usize) -> Vec<u8> {
    n.to_le_bytes().repeat(len / 8)
}

/// Not a test by itself: the process that is killed.
#[test]
fn crash_writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let layer = |number: u32| layer(Path::new(&folder), number);
    let volume = Chain::default().open_volume(&layer(1), OpenMode::ReadWrite).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| write_and_flush(&volume));
        if std::env::var_os(SNAPSHOTS).is_some() {
            (2..MOST_LAYERS as u32).for_each(|number| volume.snapshot(&layer(number)).unwrap());
        }
    });
}

fn layer(folder: &Path, number: u32) -> VolumePaths {
    VolumePaths::in_folder(folder, &format!("vol-{number}"))
}

fn write_and_flush(volume: &LiveVolume) {
    let mut out = std::io::stderr();
    for n in 1u64.. {
        let (at, len) = place(n);
        let mut bytes = record(n, len);
        volume.write(&[VolatileSlice::from(&mut bytes[..])], at, Wait::Allowed).unwrap();
        if n % 3 == 0 {
            volume.flush().unwrap();
            // One write(2) a line: whatever arrives was flushed.
            if out.write_all(format!("flushed {n}\n").as_bytes()).is_err() {
                return;
            }
        }
        assert!(n < 200_000, "nobody killed us");
    }
}

#[test]
fn acknowledged_flushes_survive_kill_9() {
    for round in 0..4 {
        killed(10 + 17 * round, false);
    }
}

#[test]
fn acknowledged_flushes_survive_kill_9_in_a_snapshot() {
    let layers: Vec<usize> = (0..8).map(|round| killed(3 + 5 * round, true)).collect();
    assert!(layers.iter().any(|frozen| *frozen > 0), "never was a snapshot taken: {layers:?}");
}

/// Kill the writer after so many flushes. Answers how many layers were frozen.
fn killed(after: usize, snapshots: bool) -> usize {
    let dir = tempfile::tempdir().unwrap();
    drop(Volume::create(&layer(dir.path(), 1), SIZE, None, OpenMode::ReadWrite).unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "storage::volume::crash_tests::crash_writer", "--nocapture", "--test-threads=1"])
        .env(FOLDER, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if snapshots {
        command.env(SNAPSHOTS, "1");
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut flushed = 0;
    let mut acknowledge = |line: String| {
        if let Some(n) = line.strip_prefix("flushed ") {
            flushed = n.parse().unwrap();
        }
    };
    for line in lines.by_ref().take(after) {
        acknowledge(line);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    lines.for_each(&mut acknowledge);
    assert!(flushed > 0, "the writer did not get to flush");
    // As the protocol of snapshots has it: what lies over a frozen layer counts, what lies over another does not.
    let mut chain = Chain::default();
    while is_frozen(&layer(dir.path(), chain.frozen.len() as u32 + 1)).unwrap() {
        chain.frozen.push(layer(dir.path(), chain.frozen.len() as u32 + 1));
    }
    let top = layer(dir.path(), chain.frozen.len() as u32 + 1);
    let volume = chain.open_volume(&top, OpenMode::ReadWrite).unwrap();
    // What each sector must have, or a later value that was written and not flushed.
    let mut expected = vec![0u64; (BLOCKS * 8) as usize];
    for n in 1..=flushed {
        let (at, len) = place(n);
        expected[(at / 512) as usize..][..len / 512].fill(n);
    }
    for (i, at_least) in expected.into_iter().enumerate() {
        let mut sector = [0; 512];
        volume.read_at(i as u64 * 512, &mut sector).unwrap();
        let n = u64::from_le_bytes(sector[..8].try_into().unwrap());
        assert_eq!(sector[..], record(n, 512)[..], "sector {i} is torn");
        if n != at_least {
            let (at, len) = place(n);
            assert!(n > flushed && (at..at + len as u64).contains(&(i as u64 * 512)), "sector {i} shows {n}");
        }
    }
    chain.frozen.len()
}
