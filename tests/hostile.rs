//! A hostile guest in a real virtual machine: `hostile/guest.rs` drives the devices with garbage in every doorbell, BAR, descriptor
//! and PRP that it can reach. Its instance may end; its host may not notice more than that.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Lab, lab, text};

/// Garbage without end would find more; this much takes a minute in the emulated host.
const SEEDS: [u32; 2] = [1, 2];
const ROUNDS: u32 = 4;

/// Compile the guest into an ELF file with a PVH entry.
fn guest(lab: &Lab) -> PathBuf {
    let elf = lab.path("hostile.elf");
    let layout =
        "-nostartfiles -nostdlib -static -no-pie -Wl,-e,entry32,-Ttext-segment=0x100000,--build-id=none,-z,norelro";
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition", "2024", "--target", "x86_64-unknown-linux-musl", "-C", "opt-level=1", "-C", "panic=abort"])
        .args(["-C", "relocation-model=static", "-C", "link-self-contained=no", "-C", "linker=cc"])
        .args(["-D", "warnings", "-C", &format!("link-args={layout}"), "-o"])
        .arg(&elf)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/guest.rs"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    elf
}

#[test]
fn garbage_in_all_registers_rings_and_lists_ends_nothing_but_the_guest() {
    let Some(lab) = lab("garbage_in_all_registers", "tiny") else { return };
    let elf = guest(lab);
    for seed in SEEDS {
        let append = format!("seed={seed} rounds={ROUNDS}");
        let kernel = elf.to_str().unwrap();
        let more = ["--throw-away", "--rm", "--timeout", "10m", "--kernel", kernel, "--append", &append];
        let output = lab.run(&[&["run", "tiny", "-t", "t2.nano"], &more[..]].concat());
        let (console, log) = (text(&output.stdout), text(&output.stderr));
        assert!(console.contains("HOSTILE: before: alive"), "the guest's own driver works");
        for round in 0..ROUNDS {
            // A device that garbage got stuck is whole after a reset.
            assert!(console.contains(&format!("HOSTILE: round {round} alive")), "seed {seed}, round {round}");
        }
        // From here on it may have killed itself, in a way that the instance's process can tell.
        assert!(console.contains("HOSTILE: wild"));
        let ended = match output.status.code() {
            Some(0) => console.contains("HOSTILE: still there"),
            Some(255) => log.contains("error: "),
            _ => false,
        };
        assert!(ended && !log.contains("panicked"), "{:?}", output.status);
    }
    // The next instance of the same image finds it as it was.
    let output = lab.run(&["run", "tiny", "-t", "t2.micro", "--rm", "--throw-away", "--timeout", "5m"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("TINY: up"));
}
