//! User data: what kind it is and what is wrong with it, before an instance boots.
//!
//! The rules are cloud-init's, which reads the data in the guest (its `user_data.py` and `handlers/`): gzip is
//! unpacked once, `MIME-Version:` in the first 4096 bytes makes it a MIME message, else the start of the text names
//! the type. [`lint`] finds what cloud-init would ignore or fail on. It never changes the data.

mod cloud_config;
mod lint;
mod mime;
mod script;
mod text;
mod yaml;

use serde::Serialize;

use super::Ec2Error;

pub use lint::lint;

/// EC2's limit, in bytes before base64.
pub const MAX_SIZE: usize = 16_384;

/// What user data is, by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// No bytes at all.
    None,
    /// `#!`: runs once, at the end of the first boot.
    ShellScript,
    /// `#cloud-config`
    CloudConfig,
    /// `#cloud-config-archive`: a YAML list of parts.
    CloudConfigArchive,
    /// `#cloud-config-jsonp`: a JSON patch for the cloud-config.
    CloudConfigJsonPatch,
    /// `#cloud-boothook`: runs early, on every boot.
    BootHook,
    /// `#include` or `#include-once`: addresses of more user data.
    Include,
    /// `## template: jinja`, then another kind.
    JinjaTemplate,
    /// `#part-handler`: Python code for parts of other types.
    PartHandler,
    /// A MIME message, mostly multipart.
    Mime,
    /// Compressed data of another kind.
    Gzip,
    /// Anything else: cloud-init ignores it.
    Unknown,
}

/// The starts of user data, a longer one before its own beginning.
const STARTS: [(&str, Kind, &str); 10] = [
    ("#cloud-config-archive", Kind::CloudConfigArchive, "text/cloud-config-archive"),
    ("#cloud-config-jsonp", Kind::CloudConfigJsonPatch, "text/cloud-config-jsonp"),
    ("## template: jinja", Kind::JinjaTemplate, "text/jinja2"),
    ("#cloud-boothook", Kind::BootHook, "text/cloud-boothook"),
    ("#cloud-config", Kind::CloudConfig, "text/cloud-config"),
    ("#include-once", Kind::Include, "text/x-include-once-url"),
    ("#part-handler", Kind::PartHandler, "text/part-handler"),
    ("#include", Kind::Include, "text/x-include-url"),
    ("#!", Kind::ShellScript, "text/x-shellscript"),
    // cloud-init's table has these MIME types among the starts, too.
    ("text/x-shellscript-per-", Kind::ShellScript, "text/x-shellscript-per-instance"),
];

impl Kind {
    /// The kind of `data`, as cloud-init finds it.
    pub fn of(data: &[u8]) -> Self {
        if data.is_empty() {
            Self::None
        } else if data.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if is_mime(data) {
            Self::Mime
        } else {
            Self::by_start(data)
        }
    }

    /// The kind that the start of a text names, after white space and in any case.
    fn by_start(data: &[u8]) -> Self {
        let start = text::trim_start(data);
        let longest = start.get(..32).unwrap_or(start).to_ascii_lowercase();
        STARTS
            .iter()
            .find(|(prefix, ..)| longest.starts_with(prefix.as_bytes()))
            .map_or(Self::Unknown, |(_, kind, _)| *kind)
    }

    /// The kind that a MIME type names.
    fn by_mime_type(mime_type: &str) -> Option<Self> {
        if matches!(
            mime_type,
            "text/x-shellscript-per-boot" | "text/x-shellscript-per-instance" | "text/x-shellscript-per-once"
        ) {
            return Some(Self::ShellScript);
        }
        STARTS.iter().find(|(.., name)| *name == mime_type).map(|(_, kind, _)| *kind)
    }

    /// A name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "no user data",
            Self::ShellScript => "shell script",
            Self::CloudConfig => "cloud-config",
            Self::CloudConfigArchive => "cloud-config archive",
            Self::CloudConfigJsonPatch => "cloud-config JSON patch",
            Self::BootHook => "cloud-boothook",
            Self::Include => "include file",
            Self::JinjaTemplate => "Jinja template",
            Self::PartHandler => "part handler",
            Self::Mime => "MIME message",
            Self::Gzip => "gzip",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether cloud-init takes it for a MIME message.
fn is_mime(data: &[u8]) -> bool {
    let head = data.get(..4096).unwrap_or(data).to_ascii_lowercase();
    text::find(&head, b"mime-version:").is_some()
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a look.
    Hint,
    /// Probably not what was meant.
    Warning,
    /// EC2 refuses it, or cloud-init ignores it or fails.
    Error,
}

/// Something that [`lint`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name: `crlf`.
    pub code: &'static str,
    /// What is wrong and what happens because of it.
    pub message: String,
    /// The line, from 1, in the data, or in the part if `part` is set.
    pub line: Option<usize>,
    /// What to do.
    pub fix: Option<String>,
    /// Which part of a MIME message, archive or gzip it is about.
    pub part: Option<String>,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self { severity, code, message: message.into(), line: None, fix: None, part: None }
    }

    fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    fn hint(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Hint, code, message)
    }

    fn line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.severity {
            Severity::Error => write!(f, "error")?,
            Severity::Warning => write!(f, "warning")?,
            Severity::Hint => write!(f, "hint")?,
        }
        if let Some(part) = &self.part {
            write!(f, ", {part}")?;
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {} [{}]", self.message, self.code)?;
        match &self.fix {
            Some(fix) => write!(f, ". {fix}"),
            None => Ok(()),
        }
    }
}

/// Check what EC2 itself checks.
///
/// # Errors
/// `InvalidParameterValue` above [`MAX_SIZE`].
pub fn check_size(data: &[u8]) -> Result<(), Ec2Error> {
    if data.len() > MAX_SIZE { Err(Ec2Error::user_data_too_large()) } else { Ok(()) }
}

#[cfg(test)]
#[path = "user_data_tests.rs"]
mod tests;
