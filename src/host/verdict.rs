//! What became of the user-data, read from the files that cloud-init leaves on the root volume.
//!
//! Nothing in the image is changed for this and no agent runs in the guest: `result.json` says which modules failed, and
//! `cloud-init.log` holds, for each command that failed, a block of its own with the command and its exit status. (The
//! console shows only that *something* failed.) All four files are the guest's, so they are read bounded and believed only
//! as far as they go: a missing or strange file makes the verdict [`Outcome::Unknown`], never a success.
//!
//! The blocks look like this since cloud-init 0.7, whoever ran the command:
//!
//! ```text
//! Command: ['/var/lib/cloud/instance/scripts/part-001']
//! Exit code: 7
//! ```

use serde::{Deserialize, Serialize};

/// How many of the last output lines a verdict carries.
pub const LAST_LINES: usize = 20;

/// The most that is read of one log, in bytes, counted from its end.
pub const MAX_LOG: u64 = 4 << 20;

/// The result of one launch's user-data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Verdict {
    /// Success, failure, or neither.
    pub outcome: Outcome,
    /// The data source that cloud-init used, if it said so: `DataSourceEc2Local`.
    pub datasource: Option<String>,
    /// Errors of cloud-init's modules, in its own words.
    pub errors: Vec<String>,
    /// Warnings that did not fail the launch.
    pub warnings: Vec<String>,
    /// The last lines that the user-data (and cloud-init around it) wrote.
    pub last_lines: Vec<String>,
}

/// Success, failure, or neither.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "Result", rename_all = "PascalCase", rename_all_fields = "PascalCase")]
pub enum Outcome {
    /// cloud-init finished without errors.
    Success,
    /// A part of the user-data ended with a status other than 0.
    Failed {
        /// Its name on the instance: `part-001`, `runcmd`, `bootcmd`.
        part: String,
        /// The command as cloud-init ran it.
        command: String,
        /// Its exit status; 128 + n for a death by signal n.
        exit_code: i32,
    },
    /// No part failed by its status, but cloud-init reports errors.
    Errors,
    /// The instance ran without its user-data: cloud-init found no EC2 data source.
    NotRun,
    /// cloud-init left no result that could be read.
    Unknown,
}

impl Verdict {
    /// The exit status that `--wait user-data` ends with.
    pub fn exit_code(&self) -> i32 {
        match &self.outcome {
            Outcome::Success => 0,
            Outcome::Failed { exit_code, .. } => (*exit_code).clamp(1, 255),
            Outcome::Errors | Outcome::NotRun | Outcome::Unknown => 1,
        }
    }
}

/// The files of a launch, as far as they could be read.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// `/var/lib/cloud/data/result.json`.
    pub result: Option<Vec<u8>>,
    /// The end of `/var/log/cloud-init.log`.
    pub log: Option<Vec<u8>>,
    /// The end of `/var/log/cloud-init-output.log`.
    pub output: Option<Vec<u8>>,
}

/// Judge a launch by its files.
pub fn judge(files: &Files) -> Verdict {
    let log = files.log.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let log = this_boot(&log);
    let output = files.output.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let last_lines = last_lines(final_stage(this_boot(&output)));
    let warnings = warnings(log);
    let Some((datasource, errors)) = files.result.as_deref().and_then(parse_result) else {
        return Verdict { outcome: Outcome::Unknown, datasource: None, errors: Vec::new(), warnings, last_lines };
    };
    let outcome = if datasource.as_deref().is_none_or(|d| !d.starts_with("DataSourceEc2")) {
        Outcome::NotRun
    } else if let Some(failed) = failed_commands(log).into_iter().next() {
        failed
    } else if errors.is_empty() {
        Outcome::Success
    } else {
        Outcome::Errors
    };
    Verdict { outcome, datasource, errors, warnings, last_lines }
}

/// Logs grow over boots and come along in an AMI that was made of an instance: only the part since the last start of
/// cloud-init's first stage counts.
fn this_boot(log: &str) -> &str {
    let start = log.rfind(" running 'init-local' at ").map_or(0, |at| log[..at].rfind('\n').map_or(0, |nl| nl + 1));
    &log[start..]
}

/// What was written in cloud-init's final stage, in which scripts run; all of it if it did not get there. From version 24.3 on all
/// stages are one process, and what earlier ones have left in its buffers comes after its farewell.
fn final_stage(output: &str) -> &str {
    let start = output.rfind(" running 'modules:final' at ").and_then(|at| Some(at + output[at..].find('\n')? + 1));
    let stage = &output[start.unwrap_or(0)..];
    let end = stage.match_indices("Cloud-init v. ").find(|(at, _)| {
        let line = stage[*at..].lines().next().unwrap_or_default();
        line.contains(" finished at ") && (*at == 0 || stage[..*at].ends_with('\n'))
    });
    &stage[..end.map_or(stage.len(), |(at, _)| at)]
}

/// Whether these are the whole bytes of a `result.json`.
pub fn is_result(json: &[u8]) -> bool {
    parse_result(json).is_some()
}

/// `{"v1": {"datasource": "DataSourceEc2Local", "errors": ["…"]}}`
fn parse_result(json: &[u8]) -> Option<(Option<String>, Vec<String>)> {
    #[derive(Deserialize)]
    struct ResultFile {
        v1: V1,
    }
    #[derive(Deserialize)]
    struct V1 {
        datasource: Option<String>,
        errors: Vec<String>,
    }
    let file: ResultFile = serde_json::from_slice(json).ok()?;
    // `DataSourceNoCloud [seed=…]`: the class name is the first word.
    let datasource = file.v1.datasource.and_then(|d| d.split_whitespace().next().map(str::to_owned));
    Some((datasource, file.v1.errors))
}

/// The parts of the user-data that ended with another status than 0, in the order in which they ran.
fn failed_commands(log: &str) -> Vec<Outcome> {
    let mut failed = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("Command: ") else { continue };
        let Some(status) = lines.peek().and_then(|l| l.strip_prefix("Exit code: ")) else { continue };
        let (Some(part), Ok(status)) = (part_of(command), status.trim().parse::<i32>()) else { continue };
        if status != 0 {
            // Python's subprocess reports a death by signal n as -n; a shell would say 128 + n.
            let exit_code =
                if status < 0 { status.checked_neg().map_or(255, |n| n.saturating_add(128)) } else { status };
            failed.push(Outcome::Failed { part, command: command.to_owned(), exit_code });
        }
    }
    failed
}

/// Which part of the user-data a logged command is: `['/var/lib/cloud/instance/scripts/part-001']` → `part-001`. Commands that
/// cloud-init's modules run on their own account (`locale-gen`, `growpart`) are none: their failure is the module's.
fn part_of(command: &str) -> Option<String> {
    let path = command.trim_start_matches('[').trim_end_matches(']').rsplit(", ").next()?.trim_matches(['\'', '"']);
    let (dir, name) = path.rsplit_once('/')?;
    if dir.starts_with("/var/lib/cloud/") && (dir.contains("/scripts") || dir.ends_with("/boothooks")) {
        return Some(name.to_owned());
    }
    // bootcmd is run as /bin/sh on a temporary file.
    let first = command.trim_start_matches('[').split(", ").next()?.trim_matches(['\'', '"']);
    (first == "/bin/sh" && path.ends_with(".sh") && dir.contains("cloud-init/tmp")).then(|| "bootcmd".to_owned())
}

/// The messages of log lines with level WARNING: `2026-11-20 22:26:18,123 - util.py[WARNING]: Failed loading yaml blob.`
fn warnings(log: &str) -> Vec<String> {
    const MOST: usize = 20;
    let mut seen: Vec<String> = Vec::new();
    for line in log.lines() {
        if let Some((_, message)) = line.split_once("[WARNING]: ")
            // That a script failed is told better, with its name and its status.
            && !message.starts_with("Failed to run module scripts")
            && !message.starts_with("Running module scripts")
            && !seen.iter().any(|w| w == message)
        {
            seen.push(message.chars().take(500).collect());
            if seen.len() == MOST {
                break;
            }
        }
    }
    seen
}

/// The last lines of the output that are not cloud-init's own farewell.
fn last_lines(output: &str) -> Vec<String> {
    let own = |line: &str| {
        line.is_empty()
            || line.contains("Cloud-init v. ")
            || line.starts_with("ci-info: ")
            || line.contains("[WARNING]: Failed to run module scripts")
            || line.contains("[WARNING]: Running module scripts")
    };
    let mut lines: Vec<String> = output
        .lines()
        .rev()
        .filter(|l| !own(l))
        .take(LAST_LINES)
        .map(|l| super::console::plain_text(l.as_bytes()).chars().take(400).collect())
        .collect();
    lines.reverse();
    lines
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
