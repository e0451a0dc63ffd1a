//! What can go wrong with an emulated host.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

use super::channel::Failure;
use super::qemu::MAX_DRIVES;
use super::{binary, modules};

/// Why an emulated host did not start, or did not end as it should.
#[derive(Debug, Error)]
pub enum Error {
    /// QEMU is not installed.
    #[error("{0} is not installed, and the emulated host runs in it: `sudo apt-get install qemu-system-x86`")]
    NoQemu(String),
    /// The binary cannot run inside.
    #[error(transparent)]
    Binary(#[from] binary::Error),
    /// The kernel's modules cannot be used.
    #[error(transparent)]
    Modules(#[from] modules::Error),
    /// More drives than there are slots.
    #[error("an emulated host takes at most {MAX_DRIVES} drives, not {0}")]
    TooManyDrives(usize),
    /// A step on the outer host failed.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The command could not be run inside.
    #[error("inside the emulated host: {0}")]
    Command(String),
    /// A drive could not be put into the emulated host.
    #[error("the emulated host can't take the drive {0}")]
    Drive(String),
    /// A port of this machine could not be had.
    #[error("{0}")]
    Port(String),
    /// The shared emulated host did not start, or is going away.
    #[error("the emulated host {0}")]
    Host(String),
    /// QEMU ended before the command did: the inner kernel died, or QEMU refused its arguments.
    #[error("the emulated host ended ({status}) {when}{tail}")]
    Died {
        /// How QEMU ended.
        status: ExitStatus,
        /// At what stage.
        when: &'static str,
        /// The last lines of its console and of QEMU's messages.
        tail: String,
    },
    /// The connection to it ended before the command did.
    #[error("the emulated host was killed {when}")]
    Lost {
        /// At what stage.
        when: &'static str,
    },
    /// The binary inside, or the shared host's keeper, is of another version.
    #[error(
        "the emulated host is of another version of amiable: `amiable emulate stop` ends it and all that runs in it"
    )]
    OtherVersion,
    /// It did not get ready, or did not end, in time.
    #[error("the emulated host was not {what} within {} s{tail}", after.as_secs())]
    TimedOut {
        /// `up`, `ready` or `done`.
        what: &'static str,
        /// The limit.
        after: Duration,
        /// The last lines of its console.
        tail: String,
    },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Command(why) => Error::Command(why),
            Failure::Drive(why) => Error::Drive(why),
            Failure::Port(why) => Error::Port(why),
            Failure::Host(why) => Error::Host(why),
        }
    }
}

pub(super) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
