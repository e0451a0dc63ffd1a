//! An instance's process shuts itself out of the file system, but for what its instance is made of (Landlock, landlock(7)).
//!
//! A guest that breaks out of its virtual machine then is in a process that can read images, and read and write this region's
//! volumes and records, and nothing else of the user's: no home directory, no keys of theirs, no program to execute. The network stays
//! open, for it is the guest's anyway, behind the process's own translation.
//!
//! Landlock needs no privilege, and is inherited by all threads that are started afterwards; so it is entered before the first one. On
//! kernels that lack it, or lack parts of it, instances run with what there is; `amiable doctor` says so.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};

/// What a process may reach. Paths that do not exist are left out.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Files and directories, with all in them, that it may read.
    pub read: Vec<PathBuf>,
    /// Files and directories, with all in them, that it may read, write, make and remove.
    pub write: Vec<PathBuf>,
}

/// How far the kernel does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// All of it.
    Fully,
    /// An older Landlock: a part of it.
    Partly,
    /// The kernel has no Landlock, or it is switched off.
    Not,
}

/// The newest version of Landlock whose rights are asked for.
const NEWEST: ABI = ABI::V5;

/// Shut this thread, and all that it starts from now on, into `rules`. It can't be undone.
pub fn enter(rules: &Rules) -> Result<Enforced, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(&rules.read, read))?
        .add_rules(path_beneath_rules(&rules.write, write))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Enforced::Fully,
        RulesetStatus::PartiallyEnforced => Enforced::Partly,
        RulesetStatus::NotEnforced => Enforced::Not,
    })
}

/// What [`enter`] would achieve here, tried on a thread that ends at once.
pub fn probe() -> Enforced {
    let tried = std::thread::spawn(|| enter(&Rules::default()).unwrap_or(Enforced::Not));
    tried.join().unwrap_or(Enforced::Not)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;

    use super::*;

    #[test]
    fn what_is_not_named_is_out_of_reach() {
        if probe() == Enforced::Not {
            eprintln!("SKIPPED: this kernel has no Landlock");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["read", "write", "other"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("file"), name).unwrap();
        }
        let rules = Rules { read: vec![path("read"), path("missing")], write: vec![path("write")] };
        fn refused(result: std::io::Result<()>) {
            assert_eq!(result.unwrap_err().kind(), PermissionDenied);
        }
        // The restriction is the thread's, and ends with it.
        std::thread::scope(|scope| {
            let shut_in = scope.spawn(|| {
                enter(&rules).unwrap();
                assert_eq!(fs::read(path("read").join("file")).unwrap(), b"read");
                refused(fs::write(path("read").join("file"), "x"));
                fs::write(path("write").join("new"), "x").unwrap();
                fs::remove_file(path("write").join("file")).unwrap();
                refused(fs::read(path("other").join("file")).map(drop));
                refused(fs::read("/etc/passwd").map(drop));
                refused(fs::write(path("new"), "x"));
                refused(std::process::Command::new("/bin/true").status().map(drop));
                // Inherited, and not to be widened.
                std::thread::spawn(|| refused(fs::read("/etc/passwd").map(drop))).join().unwrap();
            });
            shut_in.join().unwrap();
        });
    }
}
