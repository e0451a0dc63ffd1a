//! Shell scripts and boothooks: will the kernel find the interpreter?

use super::lint::starts_blank;
use super::{Finding, text};
use crate::ec2::spelling::distance;

/// Interpreters that scripts in images commonly have.
const USUAL: [&str; 24] = [
    "sh",
    "bash",
    "dash",
    "ash",
    "zsh",
    "ksh",
    "fish",
    "env",
    "python",
    "python2",
    "python3",
    "perl",
    "ruby",
    "node",
    "php",
    "lua",
    "awk",
    "gawk",
    "sed",
    "make",
    "pwsh",
    "tclsh",
    "expect",
    "ansible-playbook",
];

/// Directories that interpreters are in.
const DIRECTORIES: [&str; 8] =
    ["/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/opt"];

/// Check a script that is written to a file and executed.
pub(super) fn check(data: &[u8], findings: &mut Vec<Finding>) {
    if !text::trim_start(data).starts_with(b"#!") {
        findings.push(
            Finding::error("no-shebang", "a script without #!: it fails with \"Exec format error\"")
                .line(1)
                .fix("Begin with #!/bin/bash"),
        );
        return;
    }
    if starts_blank(data) {
        findings.push(
            Finding::error(
                "blank-before-header",
                "blank space stands before #!: cloud-init takes it for a script, and it fails with \"Exec format error\"",
            )
            .line(1)
            .fix("Make #! the very first bytes (mind indented heredocs)"),
        );
        return;
    }
    shebang(&text::first_line(data), 1, findings);
    if data.iter().filter(|byte| **byte == b'\n').count() == 0 {
        findings.push(Finding::warning("script-empty", "there is nothing below the shebang").line(1));
    }
    if data.contains(&0) {
        findings.push(Finding::warning("nul", "it has NUL bytes, which shells skip or choke on"));
    }
}

/// Check a boothook: its first line is cut off, the rest is executed.
pub(super) fn check_boothook(data: &[u8], findings: &mut Vec<Finding>) {
    if starts_blank(data) {
        findings.push(
            Finding::error(
                "blank-before-header",
                "blank space stands before #cloud-boothook: it is not cut off, and the hook fails to execute",
            )
            .line(1)
            .fix("Make #cloud-boothook the very first bytes"),
        );
        return;
    }
    let rest = data.get("#cloud-boothook".len()..).unwrap_or_default();
    let body = text::trim_start(rest);
    let line = text::line_of(data, data.len() - body.len());
    if body.starts_with(b"#!") {
        shebang(&text::first_line(body), line, findings);
    } else {
        findings.push(
            Finding::error(
                "no-shebang",
                "the boothook has no #! below its header: it fails with \"Exec format error\"",
            )
            .line(line)
            .fix("Let #!/bin/sh follow #cloud-boothook"),
        );
    }
}

fn shebang(line: &str, number: usize, findings: &mut Vec<Finding>) {
    let rest = line.trim_start_matches("#!").trim();
    let (interpreter, argument) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let argument = argument.trim();
    let mut bad = |severity, message: String, fix: &str| {
        findings.push(Finding::new(severity, "interpreter", message).line(number).fix(fix));
    };
    use super::Severity::{Error, Hint, Warning};
    if interpreter.is_empty() {
        bad(Error, "#! names no interpreter".into(), "Write #!/bin/bash");
        return;
    }
    if !interpreter.starts_with('/') {
        bad(Error, format!("the interpreter `{interpreter}` is not an absolute path"), "Write #!/bin/bash");
        return;
    }
    let (directory, name) = interpreter.rsplit_once('/').unwrap_or(("", interpreter));
    if name == "env" {
        env(argument, &mut bad);
        return;
    }
    let versioned = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if !USUAL.contains(&name) && !USUAL.contains(&versioned) {
        let near = USUAL.iter().find(|usual| distance(usual, name) == 1);
        let fix =
            near.map_or("Check the path in the image".to_owned(), |near| format!("Did you mean {directory}/{near}?"));
        bad(Warning, format!("the interpreter `{interpreter}` is not in most images"), &fix);
    } else if !DIRECTORIES.iter().any(|usual| directory == *usual || directory.starts_with("/opt/")) {
        bad(Warning, format!("`{interpreter}` is an unusual place for {name}"), "Check the path in the image");
    }
    if argument.contains([' ', '\t']) {
        bad(
            Hint,
            format!("the kernel passes `{argument}` to {name} as one argument"),
            "Use `set` inside of the script for more options",
        );
    }
}

fn env(argument: &str, bad: &mut impl FnMut(super::Severity, String, &str)) {
    use super::Severity::Error;
    if argument.is_empty() {
        bad(Error, "#!/usr/bin/env names no program".into(), "Write #!/usr/bin/env bash");
    } else if argument.contains([' ', '\t']) && !argument.starts_with("-S") {
        bad(
            Error,
            format!("env looks for a program called `{argument}`: the kernel passes all as one argument"),
            "Write #!/usr/bin/env -S, or name the interpreter's path",
        );
    }
}
