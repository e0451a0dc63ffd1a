//! Whole processes, measured: amiable, and Debian's QEMU beside it, by the same script. Prints one JSON document on standard
//! output, `name → {unit, min, median, max, values, runs}` with the target where there is one, and its progress on standard
//! error.
//!
//! # How to run it
//!
//! ```sh
//! tests/run quick                                            # or: cargo build --release --target x86_64-unknown-linux-musl
//! cargo bench --target x86_64-unknown-linux-musl --bench machine                    # everything
//! cargo bench --target x86_64-unknown-linux-musl --bench machine -- disk --vmm amiable --runs 1
//! ```
//!
//! The program must be a static one, for it has three roles: it runs here; *beside the monitors*, which may be inside the
//! emulated host; and inside the guest. It needs `target/images/{tiny,debian-12}.raw` (`tests/run` makes them), QEMU for its
//! part of the figures, and where there is no usable KVM the emulated host's kernel (`target/images/emulated-host`).
//!
//! | argument | |
//! |---|---|
//! | `start` `disk` `net` `memory` `test` | only these groups |
//! | `--vmm amiable`, `--vmm qemu` | only this monitor |
//! | `--runs N` | processes per figure, 3 if left out |
//! | `--native`, `--emulated` | on this machine's KVM, or in the emulated host; by itself it does as the tests do |
//! | `--wall` | the emulated host without icount: quicker, and the figures depend on what else the machine does |
//!
//! In the emulated host the clock counts instructions (`-icount shift=0,sleep=off`), one nanosecond each: figures repeat
//! within 0.5 %, whatever the machine does. They are *virtual* times: ratios carry over to other machines, absolute values
//! do not. `test` alone is measured in real time with a free-running emulated host, for a whole boot of Debian would take too
//! long; its runs alternate between the monitors.
//!
//! Such a guest sometimes dies, and such an emulated host sometimes stands still, whatever monitor runs: TCG's own trouble. The
//! run is then made once more, said on standard error; what is printed comes from whole runs only.
//!
//! # The figures
//!
//! Each name begins with `amiable/` or `qemu/`. Guests of `start`, `disk`, `net` and `memory` run the tiny image's stock kernel and
//! busybox with one vCPU and 256 MiB (amiable: a t2.nano with `mem=256M`), files lie on tmpfs.
//!
//! | name | what | target for amiable |
//! |---|---|---|
//! | `start/first-line` | exec of the monitor to the tiny image's line "TINY: up" in its output, ms. For amiable that is all of `amiable run`: store, volume, metadata, network. | 1,618 virtual ms |
//! | `start/exits` | exits from the guest until then (emulated host only) | |
//! | `disk/random-read-4k` | 4 KiB, `O_DIRECT`, queue depth 1, µs each | 38 virtual µs |
//! | `disk/random-write-4k` | the same, writing | |
//! | `disk/write-flush-4k` | 4 KiB write and `fdatasync`, µs each | 57 virtual µs |
//! | `disk/read-1m`, `disk/write-1m` | sequential, `O_DIRECT`, MB/s | 2,000 MB/s reading |
//! | `disk/first-write-1m` | the same on blocks never written before | |
//! | `net/round-trip` | one byte there and back over TCP, µs | |
//! | `net/send`, `net/receive` | TCP throughput, guest → host and host → guest, MB/s | |
//! | `memory/beyond-guest` | PSS of the idle guest's process without the guest's RAM, MB | 3 MB |
//! | `memory/files` | the part of it that is pages of files (program and libraries), which instances share, MB | |
//! | `memory/command` | PSS of the command that watches it, MB; there is none with `run --detach`, nor with QEMU | |
//! | `test/verdict` | exec to the verdict of a one-line script on debian-12, s; with QEMU, a NoCloud seed with the same script, to cloud-init's last line | half of QEMU's |
//!
//! amiable's disk is its NVMe controller over a copy-on-write volume, without `--throw-away`: flushes are real. QEMU's is
//! virtio-blk (`disk/…`) and its own NVMe controller (`disk-nvme/…`), both on a raw file. amiable's network is its own NAT, QEMU's
//! is virtio-net on its user network.

mod beside;
mod debian;
mod figures;
mod guest;
mod lab;
mod monitors;
mod settings;

use std::process::ExitCode;

/// What may go wrong is told and ends the run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["guest", rest @ ..] => guest::main(rest),
        ["beside", plan] => beside::main(plan.as_ref()),
        options => settings::Settings::parse(options).and_then(|settings| lab::main(&settings)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("machine: {error}");
            ExitCode::FAILURE
        }
    }
}
