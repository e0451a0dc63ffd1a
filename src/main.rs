//! The amiable command: arguments in, exit status out.

use std::process::ExitCode;
use std::time::Instant;

/// musl's own allocator asks the kernel for pages and gives them back some hundred times before the command line is even read;
/// and nothing on a hot path allocates.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let started = Instant::now();
    if amiable::emulate::init::is_init() {
        amiable::emulate::init::main();
    }
    amiable::cli::main(std::env::args_os(), started)
}
