//! What went wrong, told once: what, why, and the exact next command.

use std::error::Error;
use std::fmt::{self, Write};

/// The exit statuses of amiable's own (AWS CLI v2's, and `timeout`'s).
pub mod exit {
    /// The time given with `--timeout` ran out.
    pub const TIMEOUT: u8 = 124;
    /// Ended by Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
    /// The command line is wrong.
    pub const USAGE: u8 = 252;
    /// Something is missing on this machine.
    pub const ENVIRONMENT: u8 = 253;
    /// The region said no.
    pub const REGION: u8 = 254;
    /// Anything else.
    pub const OTHER: u8 = 255;
}

/// An error on its way to the terminal.
#[derive(Debug)]
pub struct CliError {
    /// The exit status.
    pub exit: u8,
    /// EC2's code, where there is one: `InvalidAMIID.NotFound`.
    pub code: Option<String>,
    /// What could not be done, and the chain of reasons.
    pub what: String,
    /// Why, from near to far.
    pub causes: Vec<String>,
    /// What to type next.
    pub next: Option<String>,
}

impl CliError {
    /// An error with this status.
    pub fn new(exit: u8, what: impl Into<String>) -> Self {
        CliError { exit, code: None, what: what.into(), causes: Vec::new(), next: None }
    }

    /// An error made of `error` and the errors behind it.
    pub fn from_error(exit: u8, error: &dyn Error) -> Self {
        let mut made = CliError::new(exit, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some errors repeat their cause in their own text, or their cause is themselves with EC2's code.
            if !made.what.contains(&text)
                && !text.contains(&made.what)
                && !made.causes.iter().any(|c| c.contains(&text))
            {
                made.causes.push(text);
            }
            source = cause.source();
        }
        made
    }

    /// With EC2's code.
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// With the next command.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("error: {}", self.what.trim_end());
        if let Some(code) = &self.code {
            write!(text, " ({code})")?;
        }
        for cause in &self.causes {
            write!(text, "\n  because: {}", cause.trim_end())?;
        }
        if let Some(next) = &self.next {
            write!(text, "\n  try: {next}")?;
        }
        f.write_str(&text)
    }
}
