//! What came of a launch: the guest's own logs fetched from its volume, the verdict told, the stages' times printed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::Timings;
use super::error::{CliError, exit};
use super::progress::Progress;
use super::run::print_timings;
use crate::boot::guest::{GuestRoot, open_root};
use crate::host::event::End;
use crate::host::running::OpenDisk;
use crate::host::session::{Mark, Session};
use crate::host::stage::Stage;
use crate::host::verdict::{Files, MAX_LOG, Outcome, Verdict};
use crate::host::watch::{Goal, Reason, Report};
use crate::region::model::Instance;
use crate::region::paths::Paths;

/// The folder in an instance's records for logs from its volume.
pub const GUEST_LOGS: &str = "guest-logs";

const RESULT: &str = "/var/lib/cloud/data/result.json";
const LOGS: [&str; 2] = ["/var/log/cloud-init.log", "/var/log/cloud-init-output.log"];
/// cloud-init's result is some hundred bytes.
const MAX_RESULT: u64 = 1 << 20;

/// Whether the guest's root volume holds cloud-init's result by now.
pub fn result_is_there(open: &OpenDisk) -> bool {
    root_of(open).is_some_and(|mut root| root.read(RESULT, MAX_RESULT).is_ok())
}

fn root_of(open: &OpenDisk) -> Option<GuestRoot> {
    open_root(&open().ok()?).ok()
}

/// Read cloud-init's files from the root volume; copies stay in the instance's records.
pub fn read_files(open: &OpenDisk, records: &Path) -> Files {
    let Some(mut root) = root_of(open) else { return Files::default() };
    let folder = records.join(GUEST_LOGS);
    let kept = fs::create_dir_all(&folder).is_ok();
    let keep = |path: &str, bytes: Option<Vec<u8>>| {
        if let (true, Some(bytes), Some(name)) = (kept, &bytes, Path::new(path).file_name()) {
            let _ = fs::write(folder.join(name), bytes);
        }
        bytes
    };
    Files {
        result: keep(RESULT, root.read(RESULT, MAX_RESULT).ok()),
        log: keep(LOGS[0], root.read_tail(LOGS[0], MAX_LOG).ok()),
        output: keep(LOGS[1], root.read_tail(LOGS[1], MAX_LOG).ok()),
    }
}

/// Copy an instance's logs to where they outlive it.
pub fn keep_logs(records: &Path, paths: &Paths, instance_id: &str) -> Option<PathBuf> {
    let to = paths.kept_logs(instance_id);
    fs::create_dir_all(to.parent()?).ok()?;
    fs::rename(records, &to).ok()?;
    Some(to)
}

/// Tell on standard error how it ended; answers the exit status.
pub fn tell(watched: &Report, goal: Goal, verdict: Option<&Verdict>, session: &Session, progress: &Progress) -> u8 {
    if let End::Crashed { text } = &watched.end {
        progress.warning(text);
        return exit::OTHER;
    }
    match watched.reason {
        Reason::TimedOut => {
            tell_time_out(watched, verdict, session, progress);
            exit::TIMEOUT
        }
        Reason::Interrupted => exit::INTERRUPTED,
        Reason::Panicked => {
            progress.warning(watched.panic.as_deref().unwrap_or("the guest's kernel panicked"));
            print_lines(progress, "last console lines", &session.last_lines());
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
                print_lines(progress, "last console lines", &session.last_lines());
                1
            }
            _ => 0,
        },
    }
}

fn tell_verdict(verdict: &Verdict, progress: &Progress) {
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

fn tell_time_out(watched: &Report, verdict: Option<&Verdict>, session: &Session, progress: &Progress) {
    let reached = session.marks().iter().rev().find(|m| m.stage != Stage::PowerOff);
    let stage = reached.map_or("it did not start".to_owned(), |m| {
        format!("{} since {:.1} s ({})", m.stage.name(), m.ms / 1e3, m.stage.meaning())
    });
    progress.warning(&format!("time-out; the guest was in: {stage}"));
    if let Some(request) = session.last_request() {
        progress.note(&format!("last metadata request: {request}"));
    } else if session.marks().iter().any(|m| m.stage == Stage::Init) {
        progress
            .note("it has not asked the metadata service: cloud-init may be missing, or may not use EC2's data source");
    }
    watched.vcpus.iter().for_each(|line| progress.note(line));
    if let Some(verdict) = verdict {
        print_lines(progress, "last lines of its output", &verdict.last_lines);
    }
    print_lines(progress, "last console lines", &session.last_lines());
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
