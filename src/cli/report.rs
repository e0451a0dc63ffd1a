//! What came of a launch: the guest's own logs fetched from its volume, the verdict told, the stages' times printed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::Timings;
use super::error::{CliError, exit};
use super::progress::Progress;
use super::run::print_timings;
use crate::host::event::End;
use crate::host::observer::Observer;
use crate::host::session::Mark;
use crate::host::stage::Stage;
use crate::host::verdict::{Outcome, Verdict};
use crate::host::watch::{Goal, Reason, Report};
use crate::region::model::Instance;
use crate::region::paths::Paths;

/// Copy an instance's logs to where they outlive it.
pub fn keep_logs(records: &Path, paths: &Paths, instance_id: &str) -> Option<PathBuf> {
    let to = paths.kept_logs(instance_id);
    fs::create_dir_all(to.parent()?).ok()?;
    fs::rename(records, &to).ok()?;
    Some(to)
}

/// Tell on standard error how it ended; answers the exit status.
pub fn tell(watched: &Report, goal: Goal, observer: &Observer, progress: &Progress) -> u8 {
    let verdict = watched.verdict.as_ref();
    if let Some(End::Crashed { text }) = &watched.end {
        progress.warning(text);
        return exit::OTHER;
    }
    match watched.reason {
        Reason::TimedOut => {
            tell_time_out(watched, observer, progress);
            exit::TIMEOUT
        }
        Reason::Interrupted => exit::INTERRUPTED,
        Reason::Panicked => {
            progress.warning(watched.panic.as_deref().unwrap_or("the guest's kernel panicked"));
            print_lines(progress, "last console lines", &observer.last_lines());
            exit::OTHER
        }
        Reason::Ended | Reason::UserData => match verdict {
            Some(verdict) if goal == Goal::UserData => {
                tell_verdict(verdict, progress);
                u8::try_from(verdict.exit_code()).unwrap_or(1)
            }
            None if goal == Goal::UserData => {
                progress.warning(if watched.finished.is_some() {
                    "the user-data ended, and the guest did not write its result to the volume: no verdict"
                } else {
                    "the instance ended before its user-data did: no verdict"
                });
                print_lines(progress, "last console lines", &observer.last_lines());
                1
            }
            _ => 0,
        },
    }
}

/// Tell a verdict on standard error.
pub fn tell_verdict(verdict: &Verdict, progress: &Progress) {
    for warning in &verdict.warnings {
        progress.note(&format!("cloud-init warns: {warning}"));
    }
    match &verdict.outcome {
        Outcome::Success => progress.note("user-data: success"),
        Outcome::Failed { part, exit_code, .. } => {
            print_lines(progress, "its last lines", &verdict.last_lines);
            progress.note(&format!("user-data: {part} failed with exit status {exit_code}"));
        }
        Outcome::Errors => {
            print_lines(progress, "its last lines", &verdict.last_lines);
            progress.note("user-data: cloud-init finished with errors:");
            verdict.errors.iter().for_each(|e| progress.note(&format!("  {e}")));
        }
        Outcome::NotRun => progress.note(&format!(
            "user-data: did not run: cloud-init used {} instead of EC2's",
            verdict.datasource.as_deref().unwrap_or("no data source")
        )),
        Outcome::Unknown => progress.note("user-data: no verdict: cloud-init left no result on the volume"),
    }
}

fn tell_time_out(watched: &Report, observer: &Observer, progress: &Progress) {
    let reached = observer.marks().iter().rev().find(|m| m.stage != Stage::PowerOff);
    let stage = reached.map_or("it did not start".to_owned(), |m| {
        format!("{} since {:.1} s ({})", m.stage.name(), m.ms / 1e3, m.stage.meaning())
    });
    progress.warning(&format!("time-out; the guest was in: {stage}"));
    if let Some(request) = observer.last_request() {
        progress.note(&format!("last metadata request: {request}"));
    } else if observer.marks().iter().any(|m| m.stage == Stage::Init) {
        progress
            .note("it has not asked the metadata service: cloud-init may be missing, or may not use EC2's data source");
    }
    watched.vcpus.iter().for_each(|line| progress.note(line));
    if let Some(verdict) = &watched.verdict {
        print_lines(progress, "last lines of its output", &verdict.last_lines);
    }
    print_lines(progress, "last console lines", &observer.last_lines());
}

fn print_lines(progress: &Progress, title: &str, lines: &[String]) {
    if !lines.is_empty() {
        progress.note(&format!("{title}:"));
        lines.iter().for_each(|line| progress.note(&format!("  | {line}")));
    }
}

/// Print the stages with their times, if that was asked for.
pub fn timings(
    form: Option<Timings>,
    marks: &[Mark],
    verdict: Option<&Verdict>,
    instance: &Instance,
) -> Result<(), CliError> {
    let Some(form) = form else { return Ok(()) };
    let stages: Vec<_> = marks
        .iter()
        .map(|m| json!({ "Stage": m.stage.name(), "Milliseconds": (m.ms * 1e3).round() / 1e3, "Detail": m.detail }))
        .collect();
    let value = json!({
        "InstanceId": instance.instance_id,
        "ImageId": instance.image_id,
        "InstanceType": instance.instance_type,
        "Stages": stages,
        "Verdict": verdict,
    });
    print_timings(form, &value)
}
