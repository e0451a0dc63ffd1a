//! The amiable command: arguments in, exit status out.

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let started = Instant::now();
    if amiable::emulate::init::is_init() {
        amiable::emulate::init::main();
    }
    amiable::cli::main(std::env::args_os(), started)
}
