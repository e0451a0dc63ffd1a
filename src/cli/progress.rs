//! The stages of a launch on standard error, as they happen: a line each, nothing animated.

use std::io::{IsTerminal, Write};

use crate::host::session::Mark;
use crate::host::stage::Stage;

/// Prints stages.
#[derive(Debug)]
pub struct Progress {
    colour: bool,
}

impl Progress {
    /// For this process's standard error. Colour only for a terminal, and not with `NO_COLOR` or `TERM=dumb`.
    pub fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        Progress { colour: wanted && std::io::stderr().is_terminal() }
    }

    /// A stage was reached.
    pub fn stage(&self, mark: &Mark) {
        let text = match &mark.detail {
            Some(detail) => format!("{} ({detail})", mark.stage.meaning()),
            None => mark.stage.meaning().to_owned(),
        };
        let style = match mark.stage {
            Stage::UserData => "\x1b[1;32m",
            Stage::Reboot | Stage::PowerOff => "\x1b[33m",
            _ => "\x1b[36m",
        };
        self.line(style, &format!("{:>9.3}s  {:<18}", mark.ms / 1e3, mark.stage.name()), &text);
    }

    /// Something that the user should know.
    pub fn warning(&self, text: &str) {
        self.line("\x1b[33m", "warning:", text);
    }

    /// A remark.
    pub fn note(&self, text: &str) {
        self.line("", "", text);
    }

    fn line(&self, style: &str, head: &str, text: &str) {
        let mut err = std::io::stderr().lock();
        let separator = if head.is_empty() { "" } else { " " };
        // Standard error that went away is no reason to end an instance.
        let _ = match self.colour && !style.is_empty() {
            true => writeln!(err, "{style}{head}\x1b[0m{separator}{text}"),
            false => writeln!(err, "{head}{separator}{text}"),
        };
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
