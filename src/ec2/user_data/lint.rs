//! The order of the checks: size, encoding, kind, then what the kind asks for.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Finding, Kind, MAX_SIZE, check_size, cloud_config, mime, script, text};

/// What is looked at of unpacked data, in bytes. cloud-init has no limit; a guest has better uses for its memory.
const MAX_UNPACKED: usize = 8 << 20;
/// Messages in archives in gzip in messages: nobody needs more levels.
const MAX_DEPTH: u32 = 4;
/// Findings that are kept: a broken file should not fill the screen.
const MAX_FINDINGS: usize = 50;

/// Find what EC2 would refuse and cloud-init would ignore or fail on. Worst first, then by line.
pub fn lint(data: &[u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = check_size(data) {
        let by = data.len() - MAX_SIZE;
        let message = format!("{}: it has {} bytes, {by} too many", error.message, data.len());
        let fix = if Kind::of(data) == Kind::Gzip {
            "Fetch the larger part from a server, with #include or from a script"
        } else {
            "Compress it with gzip (cloud-init unpacks it), or fetch the larger part from a script"
        };
        findings.push(Finding::error("too-large", message).fix(fix));
    }
    inspect(data, 0, &mut findings);
    findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.part.clone(), finding.line));
    findings.truncate(MAX_FINDINGS);
    findings
}

/// Check one piece of user data: the whole, or what was inside of gzip.
fn inspect(data: &[u8], depth: u32, findings: &mut Vec<Finding>) {
    if text::trim_start(data).is_empty() {
        let message = if data.is_empty() { "it is empty" } else { "it is blank" };
        findings.push(Finding::warning("empty", format!("{message}: nothing will run")));
        return;
    }
    if depth > MAX_DEPTH {
        findings.push(Finding::warning("too-deep", "too many levels of packing to look at"));
        return;
    }
    if unreadable(data, findings) {
        return;
    }
    match Kind::of(data) {
        Kind::Gzip if depth == 0 => {
            if let Some(unpacked) = gunzip(data, findings) {
                let from = findings.len();
                inspect(&unpacked, depth + 1, findings);
                name_part(findings, from, "inside gzip");
            }
        }
        Kind::Gzip => findings.push(
            Finding::error("gzip-twice", "it is compressed twice: cloud-init unpacks once and ignores the rest")
                .fix("Compress it once"),
        ),
        Kind::Mime => mime::check(data, depth, findings),
        kind => check_kind(kind, data, depth, findings),
    }
}

/// Check a part of a message or archive whose kind is known.
pub(super) fn check_part(kind: Kind, data: &[u8], depth: u32, name: &str, findings: &mut Vec<Finding>) {
    let from = findings.len();
    if depth > MAX_DEPTH {
        findings.push(Finding::warning("too-deep", "too many levels of packing to look at"));
    } else if text::trim_start(data).is_empty() {
        findings.push(Finding::warning("empty", "the part is empty"));
    } else if !unreadable(data, findings) {
        check_kind(kind, data, depth, findings);
    }
    name_part(findings, from, name);
}

/// Say of the findings from index `from` on which part they are about.
pub(super) fn name_part(findings: &mut [Finding], from: usize, name: &str) {
    for finding in findings.iter_mut().skip(from) {
        finding.part = Some(match finding.part.take() {
            Some(inner) => format!("{name}, {inner}"),
            None => name.to_owned(),
        });
    }
}

fn check_kind(kind: Kind, data: &[u8], depth: u32, findings: &mut Vec<Finding>) {
    match kind {
        Kind::ShellScript => script::check(data, findings),
        Kind::BootHook => script::check_boothook(data, findings),
        Kind::CloudConfig => cloud_config::check(data, findings),
        Kind::CloudConfigArchive => cloud_config::check_archive(data, depth, findings),
        Kind::CloudConfigJsonPatch => cloud_config::check_json_patch(data, findings),
        Kind::JinjaTemplate => check_jinja(data, findings),
        Kind::Include => check_include(data, findings),
        Kind::PartHandler => check_part_handler(data, findings),
        Kind::Unknown | Kind::None | Kind::Mime | Kind::Gzip => check_unknown(data, findings),
    }
    if matches!(kind, Kind::CloudConfig | Kind::CloudConfigArchive | Kind::Include) && starts_blank(data) {
        findings.push(
            Finding::warning("blank-before-header", "blank space stands before the first line's header").line(1).fix(
                "Begin the file with the header: cloud-init accepts this, its schema check and other readers do not",
            ),
        );
    }
    line_ends(data, findings);
}

pub(super) fn starts_blank(data: &[u8]) -> bool {
    data.first().is_some_and(u8::is_ascii_whitespace)
}

/// Encodings that hide the header. True if there is no sense in looking further.
fn unreadable(data: &[u8], findings: &mut Vec<Finding>) -> bool {
    if data.starts_with(&[0xef, 0xbb, 0xbf]) {
        findings.push(
            Finding::error("bom", "it starts with a UTF-8 byte order mark: cloud-init does not see the header")
                .line(1)
                .fix("Save it as UTF-8 without BOM"),
        );
        return true;
    }
    if data.starts_with(&[0xff, 0xfe]) || data.starts_with(&[0xfe, 0xff]) {
        findings.push(Finding::error("utf-16", "it is UTF-16: cloud-init reads UTF-8").line(1).fix("Save it as UTF-8"));
        return true;
    }
    false
}

/// Data that no rule matches, and why that may be.
fn check_unknown(data: &[u8], findings: &mut Vec<Finding>) {
    let start = text::trim_start(data);
    let line = text::first_line(start);
    let line_number = text::line_of(data, data.len() - start.len());
    let lower = line.trim_end().to_ascii_lowercase();
    if let Some(inner) = decode_base64(data) {
        findings.push(
            Finding::error(
                "base64",
                format!("it is base64 of a {}: encoded twice, and cloud-init before 23.3 ignores it", inner.name()),
            )
            .fix("Give the file itself; it is encoded on the way to EC2"),
        );
        return;
    }
    for (magic, name) in
        [(&b"BZh"[..], "bzip2"), (b"\xfd7zXZ", "xz"), (b"PK\x03\x04", "zip"), (b"\x28\xb5\x2f\xfd", "zstd")]
    {
        if data.starts_with(magic) {
            let message = format!("it is {name} data: of compressed data, cloud-init unpacks gzip only");
            findings.push(Finding::error("compression", message).fix("Compress it with gzip"));
            return;
        }
    }
    let ignored = "cloud-init ignores it";
    let finding = if lower.starts_with("<script") || lower.starts_with("<powershell") {
        Finding::error("windows", format!("it is for Windows ({line}): {ignored}"))
    } else if lower.starts_with("content-type:") || lower.starts_with("--==") {
        Finding::error("mime-no-version", format!("it looks like a MIME message without MIME-Version: {ignored}"))
            .fix("Put the line `MIME-Version: 1.0` below `Content-Type:`")
    } else if lower.starts_with("#/") || lower.starts_with("# !/") || lower.starts_with("!#") {
        Finding::error("no-header", format!("`{}` is not a shebang: {ignored}", text::excerpt(&line)))
            .fix("Begin with #!, as in #!/bin/bash")
    } else if lower.starts_with("# cloud") || lower.starts_with("#cloud") || lower.starts_with("cloud-config") {
        Finding::error("no-header", format!("`{}` is not a header: {ignored}", text::excerpt(&line)))
            .fix("Write #cloud-config, with no blank, as the first line")
    } else if lower.starts_with("##") && lower.contains("template") {
        Finding::error("no-header", format!("`{}` is not a header: {ignored}", text::excerpt(&line)))
            .fix("Write exactly `## template: jinja` as the first line")
    } else {
        Finding::error(
            "no-header",
            format!("it starts with `{}`, which names no kind of user data: {ignored}", text::excerpt(&line)),
        )
        .fix("Begin a script with #!/bin/bash, YAML with #cloud-config")
    };
    findings.push(finding.line(line_number));
}

/// The kind inside of base64 text, if it has one.
fn decode_base64(data: &[u8]) -> Option<Kind> {
    let packed: Vec<u8> = data.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = STANDARD.decode(packed).ok()?;
    Some(Kind::of(&decoded)).filter(|kind| !matches!(kind, Kind::Unknown | Kind::None))
}

/// Unpack, up to [`MAX_UNPACKED`].
pub(super) fn gunzip(data: &[u8], findings: &mut Vec<Finding>) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let limit = MAX_UNPACKED as u64 + 1;
    match flate2::read::MultiGzDecoder::new(data).take(limit).read_to_end(&mut unpacked) {
        Ok(_) if unpacked.len() > MAX_UNPACKED => {
            findings.push(Finding::warning("gzip-large", "it unpacks to more than 8 MiB: not looked at"));
            None
        }
        Ok(_) => Some(unpacked),
        Err(error) => {
            let message = format!("it starts as gzip and does not unpack ({error}): cloud-init ignores it");
            findings.push(Finding::error("gzip-corrupt", message));
            None
        }
    }
}

fn line_ends(data: &[u8], findings: &mut Vec<Finding>) {
    let ends = |line: &[u8]| line.ends_with(b"\r");
    let Some(bad) = data.split(|byte| *byte == b'\n').position(ends) else { return };
    // cloud-init's own rule: it converts all line ends of a script if the first line has a Windows one.
    let (severity, message) = if bad == 0 {
        (super::Severity::Warning, "lines end in CR LF: cloud-init converts scripts, other readers of user data do not")
    } else {
        (super::Severity::Error, "some lines end in CR LF: cloud-init does not convert them, as the first one does not")
    };
    findings.push(
        Finding::new(severity, "crlf", message).line(bad + 1).fix("Convert to Unix line ends: sed -i 's/\\r$//' FILE"),
    );
}

fn check_jinja(data: &[u8], findings: &mut Vec<Finding>) {
    if starts_blank(data) {
        let message = "a Jinja header counts only at the very start: cloud-init ignores the template";
        findings.push(Finding::error("blank-before-header", message).line(1).fix("Remove what is above it"));
        return;
    }
    let rest = data.iter().position(|byte| *byte == b'\n').and_then(|end| data.get(end + 1..)).unwrap_or_default();
    match Kind::by_start(rest) {
        Kind::ShellScript | Kind::CloudConfig | Kind::BootHook | Kind::CloudConfigJsonPatch => {}
        // The header may come out of the template itself.
        _ if text::trim_start(rest).starts_with(b"{") => {}
        _ => findings.push(
            Finding::error("jinja-no-header", "no kind is named below the Jinja header: cloud-init ignores the result")
                .line(2)
                .fix("Let #cloud-config or #!/bin/bash follow as the second line"),
        ),
    }
}

fn check_include(data: &[u8], findings: &mut Vec<Finding>) {
    let text = String::from_utf8_lossy(data);
    let mut addresses = 0;
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_ascii_lowercase();
        let rest = ["#include-once", "#include"].iter().find_map(|word| lower.starts_with(word).then_some(word.len()));
        let address = match rest {
            Some(length) => line.get(length..).unwrap_or_default().trim(),
            None if line.starts_with('#') => continue,
            None => line.trim(),
        };
        if address.is_empty() {
            continue;
        }
        addresses += 1;
        if !["http://", "https://", "ftp://", "file://", "/"].iter().any(|scheme| address.starts_with(scheme)) {
            let message = format!("`{}` is not an address that can be included", text::excerpt(address));
            findings.push(Finding::error("include-address", message).line(index + 1).fix("Give a URL on a line"));
        }
    }
    if addresses == 0 {
        findings.push(Finding::error("include-empty", "no address is named: nothing is included"));
    }
}

fn check_part_handler(data: &[u8], findings: &mut Vec<Finding>) {
    for function in ["list_types", "handle_part"] {
        if text::find(data, format!("def {function}").as_bytes()).is_none() {
            findings.push(Finding::error("part-handler", format!("a part handler needs a function {function}")));
        }
    }
}
