//! Inside the guest: disk and network, measured by the guest's own clock. Each value is a line of the console:
//! `FIGURE name unit value`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Instant;

use super::Failure;

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
/// Each measurement is made so often.
const ROUNDS: usize = 3;

/// `disk NAME DEVICE OFFSET MIB` or `net ADDRESS`.
pub fn main(words: &[&str]) -> Result<(), Failure> {
    match words {
        ["disk", name, device, offset, mib] => disk(name, device, offset.parse()?, mib.parse()?),
        ["net", address] => net(address),
        _ => Err("guest: disk NAME DEVICE OFFSET MIB, or net ADDRESS".into()),
    }
}

fn tell(name: &str, unit: &str, value: f64) {
    println!("FIGURE {name} {unit} {value:.4}");
}

/// Seconds that `work` takes.
fn seconds(mut work: impl FnMut() -> std::io::Result<()>) -> std::io::Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}

/// The area of `mib` MiB at `offset` of a block device, past the page cache. What it held is lost.
fn disk(name: &str, device: &str, offset: u64, mib: usize) -> Result<(), Failure> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(device)?;
    // O_DIRECT wants aligned memory.
    let mut memory = vec![0u8; MIB + BLOCK];
    let aligned = memory.as_ptr().align_offset(BLOCK);
    let buffer = &mut memory[aligned..][..MIB];
    buffer.iter_mut().enumerate().for_each(|(n, byte)| *byte = (n as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]);

    let rate = |taken: f64| (mib * MIB) as f64 / 1e6 / taken;
    let sequence = |n: usize| offset + (n * MIB) as u64;
    let write_all = |buffer: &[u8]| (0..mib).try_for_each(|n| file.write_all_at(buffer, sequence(n)));
    tell(&format!("{name}/first-write-1m"), "MB/s", rate(seconds(|| write_all(buffer))?));
    for _ in 0..ROUNDS {
        tell(&format!("{name}/write-1m"), "MB/s", rate(seconds(|| write_all(buffer))?));
    }
    file.sync_data()?;
    for _ in 0..ROUNDS {
        let taken = seconds(|| (0..mib).try_for_each(|n| file.read_exact_at(buffer, sequence(n))))?;
        tell(&format!("{name}/read-1m"), "MB/s", rate(taken));
    }

    const OPERATIONS: usize = 1000;
    let blocks = (mib * MIB / BLOCK) as u64;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let small = &mut buffer[..BLOCK];
    type Operation = fn(&File, &mut [u8], u64) -> std::io::Result<()>;
    let operations: [(&str, usize, Operation); 3] = [
        ("random-read-4k", OPERATIONS, |file, block, at| file.read_exact_at(block, at)),
        ("random-write-4k", OPERATIONS, |file, block, at| file.write_all_at(block, at)),
        ("write-flush-4k", OPERATIONS / 2, |file, block, at| {
            file.write_all_at(block, at).and_then(|()| file.sync_data())
        }),
    ];
    for (what, count, operation) in operations {
        for _ in 0..ROUNDS {
            let mut one = || operation(&file, small, offset + random.next() % blocks * BLOCK as u64);
            let taken = seconds(|| (0..count).try_for_each(|_| one()))?;
            tell(&format!("{name}/{what}"), "µs", taken / count as f64 * 1e6);
        }
    }
    Ok(())
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// How much goes each way.
const STREAM: usize = 16 * MIB;
const ROUND_TRIPS: usize = 500;

/// Against [`serve`](super::beside::serve) at `address`.
fn net(address: &str) -> Result<(), Failure> {
    let connect = |request: u8| -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&[request])?;
        stream.write_all(&(STREAM as u64).to_le_bytes())?;
        Ok(stream)
    };
    let mut byte = [0];
    let mut stream = connect(b'e')?;
    let mut there_and_back = || stream.write_all(&[1]).and_then(|()| stream.read_exact(&mut byte));
    there_and_back()?;
    for _ in 0..ROUNDS {
        let taken = seconds(|| (0..ROUND_TRIPS).try_for_each(|_| there_and_back()))?;
        tell("net/round-trip", "µs", taken / ROUND_TRIPS as f64 * 1e6);
    }
    let rate = |taken: f64| STREAM as f64 / 1e6 / taken;
    let mut buffer = vec![0x5au8; 128 << 10];
    for _ in 0..ROUNDS {
        let mut stream = connect(b's')?;
        // The answer comes when the last byte has arrived.
        let taken = seconds(|| {
            (0..STREAM / buffer.len()).try_for_each(|_| stream.write_all(&buffer))?;
            stream.read_exact(&mut byte)
        })?;
        tell("net/send", "MB/s", rate(taken));
    }
    for _ in 0..ROUNDS {
        let mut stream = connect(b'r')?;
        let mut left = STREAM;
        let taken = seconds(|| {
            while left > 0 {
                match stream.read(&mut buffer)? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    length => left -= length.min(left),
                }
            }
            Ok(())
        })?;
        tell("net/receive", "MB/s", rate(taken));
    }
    Ok(())
}
