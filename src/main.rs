//! The amiable command: arguments in, exit status out.

<<<<<<< HEAD
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let started = Instant::now();
    if amiable::emulate::init::is_init() {
        amiable::emulate::init::main();
    }
    amiable::cli::main(std::env::args_os(), started)
=======
use amiable::emulate;

fn main() {
    if emulate::init::is_init() {
        emulate::init::main()
    }
>>>>>>> emulate
}
