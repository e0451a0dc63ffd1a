//! Steps of multi-step actions, named so that a test can kill the process at each of them. In release builds there is nothing here.

/// The environment variable that names the step at which the process dies.
#[cfg(debug_assertions)]
const VARIABLE: &str = "AMIABLE_DIE_AT";

/// Here an action has come so far. What is done by now must be enough for the next command to go on.
pub(super) fn reached(step: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os(VARIABLE).is_some_and(|name| name == step) {
        // As `kill -9` does it: nothing is flushed, nothing unwinds.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    let _ = step;
}
