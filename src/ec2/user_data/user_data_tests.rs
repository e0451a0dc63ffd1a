use std::io::Write;

use base64::Engine as _;
use proptest::prelude::*;

use super::*;

fn codes(data: impl AsRef<[u8]>) -> Vec<&'static str> {
    lint(data.as_ref()).iter().map(|finding| finding.code).collect()
}

fn only(data: impl AsRef<[u8]>) -> Finding {
    let findings = lint(data.as_ref());
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.into_iter().next().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

const MIME: &str = "Content-Type: multipart/mixed; boundary=\"==B==\"\nMIME-Version: 1.0\n\n--==B==\n\
    Content-Type: text/cloud-config; charset=\"us-ascii\"\n\n#cloud-config\npackages: [jq]\n\n--==B==\n\
    Content-Type: text/x-shellscript\nContent-Disposition: attachment; filename=\"a.sh\"\n\n#!/bin/bash\necho hi\n\n\
    --==B==--\n";

#[test]
fn kinds() {
    for (data, kind) in [
        (&b""[..], Kind::None),
        (b"#!/bin/sh\n", Kind::ShellScript),
        (b"\n  #!/bin/sh\n", Kind::ShellScript),
        (b"#cloud-config\n", Kind::CloudConfig),
        (b"#Cloud-Config\n", Kind::CloudConfig),
        (b"#cloud-config-archive\n", Kind::CloudConfigArchive),
        (b"#cloud-config-jsonp\n", Kind::CloudConfigJsonPatch),
        (b"#cloud-boothook\n", Kind::BootHook),
        (b"#include\n", Kind::Include),
        (b"#include-once\n", Kind::Include),
        (b"## template: jinja\n", Kind::JinjaTemplate),
        (b"#part-handler\n", Kind::PartHandler),
        (MIME.as_bytes(), Kind::Mime),
        (b"\x1f\x8b\x08", Kind::Gzip),
        (b"echo hi\n", Kind::Unknown),
        (b"\xef\xbb\xbf#!/bin/sh\n", Kind::Unknown),
    ] {
        assert_eq!(Kind::of(data), kind, "{}", String::from_utf8_lossy(data));
    }
}

#[test]
fn good_data_has_no_findings() {
    let archive =
        "#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    packages: [jq]\n- |\n  #!/bin/sh\n  ls\n";
    for good in [
        "#!/bin/bash\necho hi\n",
        "#!/usr/bin/env python3\nprint(1)\n",
        "#!/usr/bin/python3.11\nprint(1)\n",
        "#cloud-config\nruncmd:\n- echo hi\n- [ls, -l]\nusers:\n- default\npackage_update: yes\n",
        "#cloud-config\nwrite_files:\n- path: /a\n  content: !!binary aGk=\n  permissions: '0644'\n",
        "#cloud-boothook\n#!/bin/sh\nls\n",
        "#include\nhttps://example.com/a\n# comment\n",
        "#include https://example.com/a\n",
        "## template: jinja\n#cloud-config\nhostname: {{ v1.instance_id }}\n",
        "#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/runcmd\", \"value\": []}]\n",
        "#part-handler\ndef list_types():\n  pass\ndef handle_part(a, b, c, d):\n  pass\n",
        archive,
        MIME,
    ] {
        assert_eq!(lint(good.as_bytes()), vec![], "{good}");
    }
    assert_eq!(lint(&gzip(MIME.as_bytes())), vec![]);
    assert_eq!(lint(format!("From nobody Fri Jun 26 15:38:43 2026\n{MIME}").as_bytes()), vec![], "an mbox line");
    let packed = base64::engine::general_purpose::STANDARD.encode(gzip(b"#!/bin/sh\nls\n"));
    let part = format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: application/gzip\n\
         Content-Transfer-Encoding: base64\n\n{packed}\n--B--\n"
    );
    assert_eq!(lint(part.as_bytes()), vec![]);
    assert_eq!(lint(b"#!/bin/sh\ncat <<X\nMIME-Version: 1.0\nX\n"), vec![], "the words alone make no message");
}

#[test]
fn size_and_emptiness() {
    let mut script = b"#!/bin/sh\n".to_vec();
    script.resize(MAX_SIZE, b'#');
    check_size(&script).unwrap();
    assert_eq!(codes(&script), Vec::<&str>::new());
    script.push(b'#');
    assert_eq!(check_size(&script).unwrap_err().message, "User data is limited to 16384 bytes");
    let finding = only(&script);
    assert_eq!((finding.code, finding.severity), ("too-large", Severity::Error));
    assert_eq!(only(b"").code, "empty");
    assert_eq!(only(b" \n").code, "empty");
}

#[test]
fn headers_that_are_none() {
    for (data, code, line) in [
        ("echo hi\n", "no-header", 1),
        ("#/bin/bash\n", "no-header", 1),
        ("\n# cloud-config\n", "no-header", 2),
        ("#cloud_config\n", "no-header", 1),
        ("##template:jinja\n#cloud-config\n", "no-header", 1),
        ("<powershell>\nls\n</powershell>", "windows", 1),
        ("Content-Type: multipart/mixed; boundary=B\n\n--B\n", "mime-no-version", 1),
        ("\u{feff}#!/bin/sh\n", "bom", 1),
        ("\n#!/bin/sh\nls\n", "blank-before-header", 1),
        (" #cloud-boothook\n#!/bin/sh\nls\n", "blank-before-header", 1),
        ("\n## template: jinja\n#cloud-config\n", "blank-before-header", 1),
        ("## template: jinja\nhello\n", "jinja-no-header", 2),
        ("#cloud-boothook\nls\n", "no-shebang", 2),
    ] {
        let finding = only(data);
        assert_eq!((finding.code, finding.severity, finding.line), (code, Severity::Error, Some(line)), "{data}");
    }
    let finding = only("\n#cloud-config\nhostname: a\n");
    assert_eq!((finding.code, finding.severity), ("blank-before-header", Severity::Warning));
    assert_eq!(only(b"\xff\xfe#\0!\0").code, "utf-16");
    assert_eq!(only(b"BZh91AY").code, "compression");
    let twice = base64::engine::general_purpose::STANDARD.encode("#!/bin/sh\nls\n");
    assert_eq!(only(format!("{twice}\n")).code, "base64");
}

#[test]
fn line_ends() {
    assert_eq!(only("#!/bin/sh\r\nls\r\n").severity, Severity::Warning);
    let finding = only("#!/bin/sh\nls\r\n");
    assert_eq!((finding.code, finding.severity, finding.line), ("crlf", Severity::Error, Some(2)));
}

#[test]
fn interpreters() {
    for (line, severity) in [
        ("#!", Severity::Error),
        ("#!bin/bash", Severity::Error),
        ("#!/usr/bin/env", Severity::Error),
        ("#!/usr/bin/env bash -e", Severity::Error),
        ("#!/bin/bahs", Severity::Warning),
        ("#!/bim/bash", Severity::Warning),
        ("#!/bin/bash -e -x", Severity::Hint),
    ] {
        let finding = only(format!("{line}\nls\n"));
        assert_eq!((finding.code, finding.severity), ("interpreter", severity), "{line}");
    }
    assert_eq!(codes("#!/usr/bin/env -S bash -e\nls\n"), Vec::<&str>::new());
    assert!(only("#!/bin/bas\nls\n").fix.unwrap().contains("/bin/bash"));
}

#[test]
fn cloud_config() {
    for (body, code, severity, line) in [
        ("a: [\n", "yaml-syntax", Severity::Error, None),
        ("runcmd:\n\t- ls\n", "yaml-tab", Severity::Error, Some(3)),
        ("- a\n", "yaml-not-mapping", Severity::Error, None),
        ("", "yaml-empty", Severity::Warning, None),
        ("hostname: a\nrun_cmd:\n- ls\n", "unknown-key", Severity::Warning, Some(3)),
        ("my_own: 1\n", "unknown-key", Severity::Hint, Some(2)),
        ("packages: [a]\npackages: [b]\n", "duplicate-key", Severity::Warning, Some(3)),
        ("runcmd: ls\n", "value-type", Severity::Error, Some(2)),
        ("runcmd:\n- echo hello: world\n", "value-type", Severity::Error, Some(2)),
        ("write_files:\n- content: a\n", "value-type", Severity::Error, Some(2)),
        ("write_files:\n- path: /a\n  permissions: 644\n", "value-type", Severity::Warning, Some(2)),
        ("packages: jq\n", "value-type", Severity::Error, Some(2)),
        ("a: b\n---\nc: d\n", "yaml-syntax", Severity::Error, None),
    ] {
        let finding = only(format!("#cloud-config\n{body}"));
        assert_eq!((finding.code, finding.severity), (code, severity), "{body}\n{finding}");
        if line.is_some() {
            assert_eq!(finding.line, line, "{body}\n{finding}");
        }
    }
    assert_eq!(only("#cloud-config\nrun_cmd: [ls]\n").fix.as_deref(), Some("Did you mean runcmd?"));
    assert_eq!(only("#cloud-config\nwritefiles: []\n").fix.as_deref(), Some("Did you mean write_files?"));
    assert_eq!(only("#cloud-config foo\nhostname: a\n").code, "header-trailing");
    assert_eq!(only(b"#cloud-config\nhostname: \xff\n").code, "not-utf-8");
    let finding = only("#cloud-config\nhostname: a\n  b: c\n");
    assert_eq!((finding.code, finding.line), ("yaml-syntax", Some(3)), "{finding}");
}

#[test]
fn mime() {
    for (from, to, code) in [
        ("boundary=\"==B==\"", "x=y", "mime-no-boundary"),
        ("boundary=\"==B==\"", "boundary=\"other\"", "mime-boundary-unused"),
        ("--==B==--\n", "", "mime-unclosed"),
        ("Content-Type: multipart", "\nContent-Type: multipart", "mime-leading-blank"),
        ("text/x-shellscript", "text/x-upstart", "part-type"),
        ("#!/bin/bash", "echo", "no-shebang"),
        ("packages: [jq]", "packages: [", "yaml-syntax"),
    ] {
        let finding = only(MIME.replace(from, to));
        assert_eq!(finding.code, code, "{finding}");
    }
    let finding = only(MIME.replace("#!/bin/bash", "#!/bin/bahs"));
    assert_eq!(finding.part.as_deref(), Some("part 2 (a.sh)"));
    let inside = lint(&gzip(MIME.replace("#!/bin/bash", "#!/bin/bahs").as_bytes()));
    assert_eq!(inside[0].part.as_deref(), Some("inside gzip, part 2 (a.sh)"));
}

#[test]
fn packed_data() {
    let mut broken = gzip(b"#!/bin/sh\nls\n");
    broken.truncate(broken.len() - 4);
    assert_eq!(only(&broken).code, "gzip-corrupt");
    assert_eq!(only(gzip(&gzip(b"#!/bin/sh\nls\n"))).code, "gzip-twice");
    assert_eq!(only(gzip(&vec![0; 9 << 20])).code, "gzip-large");
    assert_eq!(only("#cloud-config-archive\na: b\n").code, "archive-not-list");
    assert_eq!(only("#cloud-config-archive\n- type: a/b\n").code, "archive-part");
    assert_eq!(only("#include\n").code, "include-empty");
    assert_eq!(only("#include\nexample.com/a\n").code, "include-address");
    assert_eq!(only("#cloud-config-jsonp\n{\n").code, "json-patch");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..512)) {
        lint(&data);
    }

    #[test]
    fn damaged_good_data_never_panics(which in 0usize..4, at in 0usize..400, byte: u8, cut in 0usize..400) {
        let archive = "#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    packages: [jq]\n".to_owned();
        let config = "#cloud-config\nruncmd:\n- [ls]\n- &a x\n- *a\nwrite_files:\n- path: /a\n  content: !!binary aa\n".to_owned();
        let mut data = match which {
            0 => MIME.as_bytes().to_vec(),
            1 => gzip(MIME.as_bytes()),
            2 => archive.into_bytes(),
            _ => config.into_bytes(),
        };
        if let Some(target) = data.get_mut(at) {
            *target = byte;
        }
        data.truncate(data.len().saturating_sub(cut % 64));
        lint(&data);
    }
}
