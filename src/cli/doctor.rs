//! `amiable doctor`: what this machine lacks, and the command that mends it.

use std::path::Path;

use super::error::CliError;
use super::error::exit;
use super::open_region;
use super::output::{human_size, write_out};
use crate::emulate::kvm_usable;
use crate::host::emulated;
use crate::host::sandbox::{Enforced, probe};
use crate::region::Region;
use crate::region::capacity::{host_facts, resolvers};

/// A look at one thing.
struct Check {
    what: &'static str,
    result: Result<String, Trouble>,
}

struct Trouble {
    why: String,
    mend: Option<String>,
    /// Whether instances can't run because of it.
    fatal: bool,
}

/// Run the command. Ends with 253 where instances can't run in any way.
pub fn run() -> Result<u8, CliError> {
    let region = open_region()?;
    let native = kvm_usable();
    let emulated = emulated::Tools::find(region.paths().data(), region.paths().emulate_state());
    let host = host_facts();
    let mut checks = vec![Check {
        what: "KVM",
        result: match &native {
            Ok(()) => Ok("/dev/kvm is usable".to_owned()),
            Err(e) => Err(Trouble { why: e.to_string(), mend: None, fatal: emulated.is_err() }),
        },
    }];
    checks.push(Check {
        what: "emulated host",
        result: match &emulated {
            Ok(tools) if native.is_ok() => Ok(format!("not needed; there is {tools}")),
            Ok(tools) => Ok(format!("run and test work with --emulate: {tools}")),
            // Without need it is no trouble.
            Err(e) if native.is_ok() => Ok(format!("not needed; it would lack: {e}")),
            Err(e) => Err(Trouble { why: e.to_string(), mend: None, fatal: true }),
        },
    });
    checks.push(Check {
        what: "memory",
        result: Ok(format!("{} and {} CPUs for instances", human_size(host.memory_mib << 20), host.cpus)),
    });
    checks.push(Check {
        what: "sandbox",
        result: match probe() {
            Enforced::Fully => Ok("instances' processes are shut into the region's files (Landlock)".to_owned()),
            Enforced::Partly => Ok("an older Landlock: instances' processes are shut in as far as it goes".to_owned()),
            Enforced::Not => Err(Trouble {
                why: "this kernel has no Landlock: instances' processes are not shut in".to_owned(),
                mend: None,
                fatal: false,
            }),
        },
    });
    checks.push(disk(region.paths().data()));
    checks.push(Check {
        what: "name server",
        result: match resolvers().as_slice() {
            [] => Err(Trouble {
                why: "/etc/resolv.conf names none: guests will not resolve names".to_owned(),
                mend: None,
                fatal: false,
            }),
            some => Ok(some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        },
    });
    let images = region.images().map(|i| i.len()).unwrap_or(0);
    checks.push(Check {
        what: "images",
        result: match images {
            0 => Err(Trouble {
                why: "there are none yet".to_owned(),
                mend: Some("amiable image pull debian-12".to_owned()),
                fatal: false,
            }),
            n => Ok(n.to_string()),
        },
    });
    checks.extend(leftovers(&region));
    let mut fatal = false;
    for check in checks {
        let (mark, text, mend) = match check.result {
            Ok(text) => ("ok", text, None),
            Err(trouble) => {
                fatal |= trouble.fatal;
                (if trouble.fatal { "MISSING" } else { "note" }, trouble.why, trouble.mend)
            }
        };
        write_out(&format!("{mark:<8} {:<14} {text}\n", check.what))?;
        if let Some(mend) = mend {
            write_out(&format!("{:<8} {:<14} try: {mend}\n", "", ""))?;
        }
    }
    Ok(if fatal { exit::ENVIRONMENT } else { 0 })
}

/// What interrupted commands and lost files left.
fn leftovers(region: &Region) -> Vec<Check> {
    let trouble = |why: String, mend| Check { what: "leftovers", result: Err(Trouble { why, mend, fatal: false }) };
    match region.leftovers() {
        Ok(none) if none.is_empty() => vec![Check { what: "leftovers", result: Ok("none".to_owned()) }],
        Ok(some) => some.into_iter().map(|leftover| trouble(leftover.what, Some(leftover.mend))).collect(),
        Err(error) => vec![trouble(error.to_string(), None)],
    }
}

/// Space for images and volumes. The directory may not be there yet: then its nearest parent counts.
fn disk(data: &Path) -> Check {
    const LITTLE: u64 = 4 << 30;
    let there = data.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let result = match rustix::fs::statvfs(there) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let text = format!("{} free for images and volumes in {}", human_size(free), data.display());
            if free < LITTLE { Err(Trouble { why: text, mend: None, fatal: false }) } else { Ok(text) }
        }
        Err(e) => Err(Trouble { why: format!("can't look at {}: {e}", there.display()), mend: None, fatal: false }),
    };
    Check { what: "disk", result }
}
