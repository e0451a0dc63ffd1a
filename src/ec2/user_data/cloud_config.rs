//! `#cloud-config`, its archive and its JSON patch.

use super::yaml::{self, Node};
use super::{Finding, Kind, lint, text};
use crate::ec2::spelling::distance;

/// Keys at the top of a cloud-config (cloud-init's schema-cloud-config-v1).
const KEYS: &str = "allow_public_ssh_keys ansible apk_repos apt apt_pipelining apt_reboot_if_required apt_update \
    apt_upgrade authkey_hash autoinstall bootcmd byobu_by_default ca-certs ca_certs chef chpasswd cloud_config_modules \
    cloud_final_modules cloud_init_modules create_hostname_file datasource datasource_list debug def_log_file \
    device_aliases disable_ec2_metadata disable_root disable_root_opts disk_setup drivers fan final_message fqdn \
    fs_setup groups growpart grub-dpkg grub_dpkg hostname keyboard landscape launch-index locale locale_configfile \
    log_cfgs lxd manage_etc_hosts manage_resolv_conf mcollective merge_how merge_type migrate mount_default_fields \
    mounts network no_ssh_fingerprints ntp output package_reboot_if_required package_update package_upgrade packages \
    password phone_home power_state prefer_fqdn_over_hostname preserve_hostname puppet random_seed reporting \
    resize_rootfs resolv_conf rh_subscription rpi rsyslog runcmd salt_minion snap spacewalk ssh ssh_authorized_keys \
    ssh_deletekeys ssh_fp_console_blacklist ssh_genkeytypes ssh_import_id ssh_key_console_blacklist ssh_keys \
    ssh_publish_hostkeys ssh_pwauth ssh_quiet_keygen swap syslog_fix_perms system_info timezone ubuntu_advantage \
    ubuntu_pro updates user users vendor_data version warnings wireguard write_files yum_repo_dir yum_repos zypper";

/// Names that people write for keys of another name.
const OTHER_NAMES: [(&str, &str); 12] = [
    ("run_cmd", "runcmd"),
    ("run_commands", "runcmd"),
    ("commands", "runcmd"),
    ("boot_cmd", "bootcmd"),
    ("files", "write_files"),
    ("package", "packages"),
    ("install", "packages"),
    ("ssh_keys_authorized", "ssh_authorized_keys"),
    ("authorized_keys", "ssh_authorized_keys"),
    ("ssh-authorized-keys", "ssh_authorized_keys"),
    ("host_name", "hostname"),
    ("time_zone", "timezone"),
];

/// Check a cloud-config.
pub(super) fn check(data: &[u8], findings: &mut Vec<Finding>) {
    header(data, findings);
    let Some(root) = parse(data, findings) else { return };
    match &root {
        Node::Map(pairs) => {
            keys(data, pairs, findings);
            values(data, &root, findings);
        }
        Node::Null => findings.push(Finding::warning("yaml-empty", "the cloud-config says nothing")),
        other => {
            let message = format!("the YAML is {}, not a mapping: cloud-init ignores it", other.name());
            findings.push(Finding::error("yaml-not-mapping", message).fix("Write `key: value` lines at the top level"));
        }
    }
}

fn header(data: &[u8], findings: &mut Vec<Finding>) {
    let start = text::trim_start(data);
    let line = text::first_line(start);
    let number = text::line_of(data, data.len() - start.len());
    let head = line.get(.."#cloud-config".len());
    if head.is_some_and(|head| head != "#cloud-config" && head.eq_ignore_ascii_case("#cloud-config")) {
        let message = "the header is not in lower case: cloud-init's schema check does not know it";
        findings.push(Finding::hint("header-case", message).line(number).fix("Write #cloud-config"));
    }
    let rest = line.get("#cloud-config".len()..).unwrap_or_default();
    if !rest.trim().is_empty() && line.to_ascii_lowercase().starts_with("#cloud-config") {
        let message = format!("`{}` stands behind the header, which makes it another word", text::excerpt(rest.trim()));
        findings.push(
            Finding::warning("header-trailing", message).line(number).fix("Leave #cloud-config alone on its line"),
        );
    }
}

fn parse(data: &[u8], findings: &mut Vec<Finding>) -> Option<Node> {
    let text = match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(error) => {
            let line = text::line_of(data, error.valid_up_to());
            findings.push(Finding::error("not-utf-8", "it is not UTF-8: cloud-init can't read it").line(line));
            return None;
        }
    };
    match yaml::parse(text) {
        Ok(root) => Some(root),
        Err(error) => {
            let location = error.location();
            let line = location.as_ref().map(|location| location.line());
            // libyaml reports the line on which it noticed; a tab is the cause if it indents this or the line above.
            let tab = text.lines().enumerate().position(|(index, content)| {
                let indent = content.len() - content.trim_start().len();
                content.as_bytes().iter().take(indent).any(|byte| *byte == b'\t')
                    && line.is_none_or(|line| index + 1 == line || index + 2 == line)
            });
            let finding = match tab {
                Some(index) => {
                    Finding::error("yaml-tab", format!("a tab indents the line, which YAML does not allow: {error}"))
                        .line(index + 1)
                        .fix("Indent with spaces")
                }
                None => {
                    let mut finding =
                        Finding::error("yaml-syntax", format!("it is not YAML: {error}; cloud-init ignores all of it"));
                    finding.line = line;
                    finding
                }
            };
            findings.push(finding);
            None
        }
    }
}

fn keys(data: &[u8], pairs: &[(Node, Node)], findings: &mut Vec<Finding>) {
    let mut seen: Vec<&str> = Vec::new();
    for (key, _) in pairs {
        let Node::Text(key) = key else {
            findings.push(Finding::warning("unknown-key", format!("{} is used as a key", key.name())));
            continue;
        };
        if seen.contains(&key.as_str()) {
            let message = format!("`{key}` comes twice: the last one counts, the others are dropped");
            let mut finding = Finding::warning("duplicate-key", message).fix("Put them together");
            finding.line = key_line(data, key, true);
            findings.push(finding);
            continue;
        }
        seen.push(key);
        if KEYS.split_ascii_whitespace().any(|known| known == key) {
            continue;
        }
        let mut finding = match meant(key) {
            Some(known) => Finding::warning("unknown-key", format!("cloud-init does not know `{key}` and ignores it"))
                .fix(format!("Did you mean {known}?")),
            None => Finding::hint("unknown-key", format!("cloud-init does not know `{}`", text::excerpt(key))),
        };
        finding.line = key_line(data, key, false);
        findings.push(finding);
    }
}

/// The key that was probably meant.
fn meant(key: &str) -> Option<&'static str> {
    if let Some((_, known)) = OTHER_NAMES.iter().find(|(other, _)| *other == key) {
        return Some(known);
    }
    let plain = |word: &str| word.to_ascii_lowercase().replace(['-', '_'], "");
    let wanted = plain(key.get(..40).unwrap_or(key));
    let limit = if wanted.len() < 5 { 1 } else { 2 };
    KEYS.split_ascii_whitespace()
        .map(|known| (distance(&plain(known), &wanted), known))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, known)| known)
}

/// The line on which a top-level key stands: the first, or the last one.
fn key_line(data: &[u8], key: &str, last: bool) -> Option<usize> {
    let stands = |line: &[u8]| {
        let line = line.strip_prefix(b"\"").or_else(|| line.strip_prefix(b"'")).unwrap_or(line);
        line.strip_prefix(key.as_bytes()).is_some_and(|rest| matches!(rest.first(), Some(b':' | b' ' | b'"' | b'\'')))
    };
    let mut lines = data.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| stands(line));
    let found = if last { lines.last() } else { lines.next() };
    found.map(|(index, _)| index + 1)
}

fn values(data: &[u8], root: &Node, findings: &mut Vec<Finding>) {
    let mut bad = |key: &str, severity, message: String, fix: &str| {
        let mut finding = Finding::new(severity, "value-type", message).fix(fix);
        finding.line = key_line(data, key, true);
        findings.push(finding);
    };
    use super::Severity::{Error, Warning};
    for key in ["runcmd", "bootcmd"] {
        match root.get(key) {
            Some(Node::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    if matches!(item, Node::Map(_) | Node::Number | Node::Bool) {
                        bad(
                            key,
                            Error,
                            format!("item {} of {key} is {}, not a command: {key} fails", index + 1, item.name()),
                            "Quote the whole command: YAML takes `: ` inside of it for a mapping",
                        );
                    }
                }
            }
            Some(other) if *other != Node::Null => {
                bad(
                    key,
                    Error,
                    format!("{key} is {}, and must be a list", other.name()),
                    "Begin each command with `- `",
                );
            }
            _ => {}
        }
    }
    for key in ["packages", "write_files", "ssh_authorized_keys", "mounts"] {
        if let Some(other @ (Node::Text(_) | Node::Map(_) | Node::Number | Node::Bool)) = root.get(key) {
            bad(key, Error, format!("{key} is {}, and must be a list", other.name()), "Begin each item with `- `");
        }
    }
    if let Some(Node::List(files)) = root.get("write_files") {
        for (index, file) in files.iter().enumerate() {
            if file.get("path").is_none() {
                bad("write_files", Error, format!("item {} of write_files has no path", index + 1), "Add `path:`");
            }
            if let Some(Node::Number) = file.get("permissions") {
                bad(
                    "write_files",
                    Warning,
                    format!("permissions of item {} of write_files is a decimal number, not octal", index + 1),
                    "Quote it: '0644'",
                );
            }
        }
    }
    for key in ["package_update", "package_upgrade", "package_reboot_if_required", "disable_root"] {
        if let Some(other @ (Node::Text(_) | Node::List(_) | Node::Map(_))) = root.get(key) {
            // YAML 1.1, which cloud-init reads, has more words for true.
            let word =
                matches!(other, Node::Text(word) if ["yes", "no", "on", "off"].contains(&&*word.to_ascii_lowercase()));
            if !word {
                bad(
                    key,
                    Warning,
                    format!("{key} is {}, and should be true or false", other.name()),
                    "Write true or false",
                );
            }
        }
    }
}

/// Check a `#cloud-config-archive`: a list of parts.
pub(super) fn check_archive(data: &[u8], depth: u32, findings: &mut Vec<Finding>) {
    let Some(root) = parse(data, findings) else { return };
    let Node::List(items) = &root else {
        let message = format!("the archive is {}, and must be a list of parts", root.name());
        findings.push(Finding::error("archive-not-list", message).fix("Begin each part with `- `"));
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let name = format!("part {} of the archive", index + 1);
        let content = match item {
            Node::Text(content) => Some(content),
            Node::Map(_) => match item.get("content") {
                Some(Node::Text(content)) => Some(content),
                _ => None,
            },
            _ => None,
        };
        let Some(content) = content else {
            let message = format!("{name} has no content and is ignored");
            findings.push(Finding::error("archive-part", message).fix("Give it `content: |` and a `type:`"));
            continue;
        };
        let kind = match item.get("type") {
            Some(Node::Text(mime_type)) => Kind::by_mime_type(mime_type),
            // Without a type or a header, parts of an archive are cloud-configs.
            _ => Some(Kind::by_start(content.as_bytes())).map(|kind| match kind {
                Kind::Unknown => Kind::CloudConfig,
                kind => kind,
            }),
        };
        match kind {
            Some(kind) => lint::check_part(kind, content.as_bytes(), depth + 1, &name, findings),
            None => findings.push(Finding::warning("part-type", format!("{name} is of a type that nothing handles"))),
        }
    }
}

/// Check a `#cloud-config-jsonp`: a JSON patch.
pub(super) fn check_json_patch(data: &[u8], findings: &mut Vec<Finding>) {
    let start = text::trim_start(data);
    let body = start.get("#cloud-config-jsonp".len()..).unwrap_or_default();
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(serde_json::Value::Array(_)) => {}
        Ok(_) => findings.push(Finding::error("json-patch", "a JSON patch is a list of operations")),
        Err(error) => {
            let line = text::line_of(data, data.len() - body.len()) + error.line().saturating_sub(1);
            findings.push(Finding::error("json-patch", format!("it is not JSON: {error}")).line(line));
        }
    }
}
