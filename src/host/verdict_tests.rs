use proptest::prelude::*;

use super::*;

const OK: &str = r#"{ "v1": { "datasource": "DataSourceEc2Local", "errors": [] } }"#;
const SCRIPT_FAILED: &str = r#"{ "v1": { "datasource": "DataSourceEc2Local",
  "errors": ["('scripts_user', RuntimeError('Runparts: 1 failures (part-001) in 1 attempted commands'))"] } }"#;

fn log_of(blocks: &str) -> String {
    format!(
        "2026-11-20 22:25:51,1 - util.py[DEBUG]: Cloud-init v. 22.4.2 running 'init-local' at Fri, 20 Nov 2026. Up 20 seconds.\n{blocks}"
    )
}

fn block(command: &str, code: i32) -> String {
    format!(
        "2026-11-20 22:26:18,2 - subp.py[DEBUG]: Unexpected error while running command.\nCommand: {command}\nExit code: {code}\nReason: -\nStdout: -\nStderr: -\n"
    )
}

fn files(result: &str, log: &str, output: &str) -> Files {
    Files { result: Some(result.into()), log: Some(log.into()), output: Some(output.into()) }
}

#[test]
fn no_errors_is_success() {
    let verdict = judge(&files(OK, &log_of(""), "hello\n"));
    assert_eq!(verdict.outcome, Outcome::Success);
    assert_eq!(verdict.exit_code(), 0);
    assert_eq!(verdict.datasource.as_deref(), Some("DataSourceEc2Local"));
}

#[test]
fn the_script_s_own_status_is_the_verdict() {
    let log = log_of(&block("['/var/lib/cloud/instance/scripts/part-001']", 7));
    let verdict = judge(&files(SCRIPT_FAILED, &log, "one\ntwo\nCloud-init v. 22.4.2 finished at x\n"));
    assert_eq!(
        verdict.outcome,
        Outcome::Failed {
            part: "part-001".into(),
            command: "['/var/lib/cloud/instance/scripts/part-001']".into(),
            exit_code: 7
        }
    );
    assert_eq!(verdict.exit_code(), 7);
    assert_eq!(verdict.last_lines, ["one", "two"]);
}

#[test]
fn the_first_failing_part_counts_and_boothooks_and_bootcmd_are_parts() {
    for (command, part) in [
        ("['/var/lib/cloud/instance/boothooks/part-002']", "part-002"),
        ("['/var/lib/cloud/instance/scripts/runcmd']", "runcmd"),
        ("['/bin/sh', '/run/cloud-init/tmp/tmpab12.sh']", "bootcmd"),
        ("['/var/lib/cloud/scripts/per-boot/x.sh']", "x.sh"),
    ] {
        let log = log_of(&(block(command, 5) + &block("['/var/lib/cloud/instance/scripts/part-009']", 9)));
        let verdict = judge(&files(OK, &log, ""));
        assert!(matches!(&verdict.outcome, Outcome::Failed { part: p, exit_code: 5, .. } if p == part), "{verdict:?}");
    }
}

#[test]
fn the_last_lines_are_the_final_stage_s() {
    let output = "Cloud-init v. 22.4.2 running 'modules:config' at x\nkey art\nCloud-init v. 22.4.2 running 'modules:final' at x\nmine\n";
    assert_eq!(judge(&files(OK, &log_of(""), output)).last_lines, ["mine"]);
    assert_eq!(judge(&files(OK, &log_of(""), "early\n")).last_lines, ["early"]);
    // Since version 24.3, what `ssh-keygen` wrote in an earlier stage.
    let late = output.to_owned() + "Cloud-init v. 25.1.4 finished at x. Up 9 seconds\nGenerating key pair.\n|  art |\n";
    assert_eq!(judge(&files(OK, &log_of(""), &late)).last_lines, ["mine"]);
}

#[test]
fn a_signal_is_reported_as_a_shell_would() {
    let log = log_of(&block("['/var/lib/cloud/instance/scripts/part-001']", -9));
    assert_eq!(judge(&files(SCRIPT_FAILED, &log, "")).exit_code(), 137);
}

#[test]
fn a_module_s_own_command_is_no_part() {
    let log = log_of(&block("['locale-gen', 'C.UTF-8']", 127));
    assert_eq!(judge(&files(OK, &log, "")).outcome, Outcome::Success);
    assert_eq!(judge(&files(SCRIPT_FAILED, &log, "")).outcome, Outcome::Errors);
}

#[test]
fn an_earlier_boot_does_not_count() {
    let log = block("['/var/lib/cloud/instance/scripts/part-001']", 7) + &log_of("");
    assert_eq!(judge(&files(OK, &log, "")).outcome, Outcome::Success);
}

#[test]
fn another_data_source_means_not_run() {
    let none = r#"{"v1": {"datasource": "DataSourceNone", "errors": []}}"#;
    let verdict = judge(&files(none, &log_of(""), ""));
    assert_eq!((verdict.outcome.clone(), verdict.exit_code()), (Outcome::NotRun, 1));
}

#[test]
fn without_a_result_nothing_is_claimed() {
    for result in [None, Some(&b"{}"[..]), Some(b"not json"), Some(b"{\"v1\": {\"errors\": 3}}")] {
        let verdict = judge(&Files { result: result.map(<[u8]>::to_vec), ..Files::default() });
        assert_eq!((verdict.outcome.clone(), verdict.exit_code()), (Outcome::Unknown, 1));
    }
}

proptest! {
    #[test]
    fn hostile_files_never_panic(result in any::<Vec<u8>>(), log in any::<Vec<u8>>(), text in "(Command: .{0,40}\n|Exit code: .{0,9}\n|.*\n){0,20}") {
        judge(&Files { result: Some(result.clone()), log: Some(log), output: Some(result) });
        judge(&files(OK, &text, &text));
    }
}

#[test]
fn a_result_that_is_not_written_yet_is_waited_for() {
    assert!(is_result(OK.as_bytes()) && is_result(SCRIPT_FAILED.as_bytes()));
    // The file's name reaches the disk before what it holds, and pages come one by one.
    for size in 0..OK.len() {
        let mut some = OK.as_bytes()[..size].to_vec();
        assert!(!is_result(&some));
        some.resize(OK.len(), 0);
        assert!(!is_result(&some));
    }
}
