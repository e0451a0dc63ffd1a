//! A process that writes and flushes is killed; what it said to be flushed must be there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use vm_memory::VolatileSlice;

use super::*;
use crate::boot::Disk;
use crate::vmm::backend::{BlockBackend, Wait};

const FOLDER: &str = "AMIABLE_TEST_CRASH_FOLDER";
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
    let paths = VolumePaths::in_folder(Path::new(&folder), "vol-1");
    let volume = Volume::open(&paths, None, OpenMode::ReadWrite).unwrap();
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
    for round in 0..4u64 {
        let dir = tempfile::tempdir().unwrap();
        let paths = VolumePaths::in_folder(dir.path(), "vol-1");
        drop(Volume::create(&paths, SIZE, None, OpenMode::ReadWrite).unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "storage::volume::crash_tests::crash_writer", "--nocapture", "--test-threads=1"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut flushed = 0;
        let mut acknowledge = |line: String| {
            if let Some(n) = line.strip_prefix("flushed ") {
                flushed = n.parse().unwrap();
            }
        };
        for line in lines.by_ref().take(10 + 17 * round as usize) {
            acknowledge(line);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(&mut acknowledge);
        assert!(flushed > 0, "the writer did not get to flush");
        let volume = Volume::open(&paths, None, OpenMode::ReadWrite).unwrap();
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
    }
}
