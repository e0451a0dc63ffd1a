//! MIME messages (RFC 2045, 2046), as far as cloud-init's reader and its handlers care.

use mail_parser::{Encoding, Message, MessageParser, MessagePart, MimeHeaders, PartType};

use super::{Finding, Kind, lint, text};

/// MIME types of compressed parts.
const GZIP_TYPES: [&str; 8] = [
    "application/gzip",
    "application/gzip-compressed",
    "application/gzipped",
    "application/x-compress",
    "application/x-compressed",
    "application/x-gunzip",
    "application/x-gzip",
    "application/x-gzip-compressed",
];

/// Check a message and each of its parts.
pub(super) fn check(data: &[u8], depth: u32, findings: &mut Vec<Finding>) {
    let start = text::trim_start(data);
    let skipped = data.len() - start.len();
    if !looks_like_header(&text::first_line(start)) {
        // The words stand somewhere in the first 4096 bytes of something else; cloud-init goes by the start then.
        match Kind::by_start(data) {
            Kind::Unknown => findings.push(
                Finding::error("mime-no-header", "it does not start with MIME headers: cloud-init ignores it")
                    .line(text::line_of(data, skipped))
                    .fix("Begin with Content-Type: multipart/mixed; boundary=\"…\" and MIME-Version: 1.0"),
            ),
            kind => {
                lint::check_part(kind, data, depth, "text that mentions MIME-Version", findings);
            }
        }
        return;
    }
    if skipped > 0 {
        findings.push(
            Finding::error(
                "mime-leading-blank",
                "blank space stands before the headers, which ends them: cloud-init ignores the whole message",
            )
            .line(1)
            .fix("Make Content-Type: the very first bytes (mind indented heredocs)"),
        );
        return;
    }
    let mbox = if data.starts_with(b"From ") {
        data.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1)
    } else {
        0
    };
    let Some(message) = MessageParser::default().parse(data.get(mbox..).unwrap_or_default()) else {
        findings.push(Finding::error("mime-syntax", "it does not parse as a MIME message"));
        return;
    };
    if root_is_broken(&message, data, findings) {
        return;
    }
    let mut number = 0;
    for part in &message.parts {
        if matches!(part.body, PartType::Multipart(_)) {
            continue;
        }
        number += 1;
        let line = text::line_of(data, mbox + part.offset_header as usize);
        check_part(part, number, line, depth, findings);
    }
    if number == 0 {
        findings.push(Finding::warning("mime-empty", "the message has no parts: nothing will run"));
    }
}

/// `Name: …`, which a message starts with.
fn looks_like_header(line: &str) -> bool {
    // An mbox line, which cloud-init's own write-mime-multipart puts first.
    if line.starts_with("From ") {
        return true;
    }
    line.split_once(':').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) && !name.starts_with('#')
    })
}

fn root_is_broken(message: &Message<'_>, data: &[u8], findings: &mut Vec<Finding>) -> bool {
    let root = message.root_part();
    if mime_type(root).is_none_or(|name| !name.starts_with("multipart/")) {
        return false;
    }
    let Some(boundary) = root.content_type().and_then(|value| value.attribute("boundary")).filter(|b| !b.is_empty())
    else {
        findings.push(
            Finding::error("mime-no-boundary", "the multipart message names no boundary: its parts can't be found")
                .line(1)
                .fix("Write Content-Type: multipart/mixed; boundary=\"==BOUNDARY==\""),
        );
        return true;
    };
    let delimiter = format!("--{boundary}");
    let mut lines = data.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let is = |line: &[u8], wanted: &str| line.trim_ascii_end() == wanted.as_bytes();
    if !lines.clone().any(|line| is(line, &delimiter)) {
        let message = format!("no line is `{}`: cloud-init finds no parts", text::excerpt(&delimiter));
        findings.push(
            Finding::error("mime-boundary-unused", message)
                .line(1)
                .fix("Put that line before each part, without indentation"),
        );
        return true;
    }
    if !lines.any(|line| is(line, &format!("{delimiter}--"))) {
        findings.push(
            Finding::warning("mime-unclosed", "the last boundary is missing: parts behind a cut-off would be lost")
                .fix(format!("End with the line `{}--`", text::excerpt(&delimiter))),
        );
    }
    false
}

fn mime_type(part: &MessagePart<'_>) -> Option<String> {
    let value = part.content_type()?;
    let subtype = value.subtype().unwrap_or_default();
    Some(format!("{}/{subtype}", value.ctype()).to_ascii_lowercase())
}

fn check_part(part: &MessagePart<'_>, number: usize, line: usize, depth: u32, findings: &mut Vec<Finding>) {
    let label = match part.attachment_name() {
        Some(name) => format!("part {number} ({})", text::excerpt(name)),
        None => format!("part {number}"),
    };
    let from = findings.len();
    let declared = mime_type(part).unwrap_or_else(|| "text/plain".to_owned());
    let body = part.contents();
    let mut unpacked = None;
    if GZIP_TYPES.contains(&declared.as_str()) {
        unpacked = lint::gunzip(body, findings);
        if unpacked.is_none() {
            lint::name_part(findings, from, &label);
            return;
        }
    } else if part.is_encoding_problem && part.encoding != Encoding::None {
        findings.push(
            Finding::error("mime-encoding", "its content does not decode as its Content-Transfer-Encoding says")
                .line(line),
        );
        lint::name_part(findings, from, &label);
        return;
    }
    let was_packed = unpacked.is_some();
    let body = unpacked.as_deref().unwrap_or(body);
    let by_header = matches!(declared.as_str(), "text/plain" | "text/x-not-multipart") || was_packed;
    let kind = if by_header {
        Some(Kind::by_start(body))
    } else if declared == "text/x-shellscript" {
        // cloud-init believes the start of the text more than this type.
        Some(match Kind::by_start(body) {
            Kind::Unknown => Kind::ShellScript,
            kind => kind,
        })
    } else {
        Kind::by_mime_type(&declared)
    };
    match kind {
        Some(kind) => lint::check_part(kind, body, depth + 1, &label, findings),
        None => {
            let message = format!("nothing handles parts of type {}: cloud-init ignores it", text::excerpt(&declared));
            findings.push(
                Finding::error("part-type", message)
                    .line(line)
                    .fix("Use text/x-shellscript, text/cloud-config, text/cloud-boothook or another type it knows"),
            );
            lint::name_part(findings, from, &label);
        }
    }
}
