//! What some GRUB commands mean: `test`, `search`, `grubenv` blocks, and how `linux` joins its arguments.

use std::cmp::Ordering;

use super::{Host, SearchBy};

/// The variables in a `grubenv` file: lines of `name=value` after a comment, padded with `#` (GRUB manual §15).
pub fn grubenv(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(16 << 10)).unwrap_or_default());
    // A backslash keeps the character behind it, a line end as well.
    let mut lines = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, lines.last_mut()) {
            ('\n', _) => lines.push(String::new()),
            ('\\', Some(line)) => line.extend(chars.next()),
            (c, Some(line)) => line.push(c),
            (_, None) => {}
        }
    }
    let pair = |line: &String| {
        let (name, value) = line.split_once('=')?;
        (!line.starts_with('#')).then(|| (name.to_string(), value.to_string()))
    };
    lines.iter().filter_map(pair).collect()
}

/// The kernel command line of a `linux` command's arguments, as GRUB's loader builds it: spaces make an argument
/// quoted, quotes and backslashes are escaped.
pub(super) fn command_line(kernel: &str, arguments: &[String]) -> String {
    let mut line = format!("BOOT_IMAGE={kernel}");
    for argument in arguments {
        line.push(' ');
        let quoted = argument.contains(' ');
        if quoted {
            line.push('"');
        }
        for c in argument.chars() {
            if matches!(c, '\\' | '\'' | '"') {
                line.push('\\');
            }
            line.push(c);
        }
        if quoted {
            line.push('"');
        }
    }
    line
}

/// A parsed `search` command.
pub(super) struct Search<'a> {
    pub variable: &'a str,
    pub by: SearchBy,
    pub what: &'a str,
}

/// Options of `search` (GRUB manual §16.3.79) and of `search.fs_uuid` and its kin. Hints only speed GRUB up.
pub(super) fn parse_search<'a>(command: &str, arguments: &'a [String]) -> Option<Search<'a>> {
    if let Some(kind) = command.strip_prefix("search.") {
        let by = match kind {
            "fs_uuid" => SearchBy::Uuid,
            "fs_label" => SearchBy::Label,
            "file" => SearchBy::File,
            _ => return None,
        };
        let what = arguments.first()?;
        return Some(Search { variable: arguments.get(1).map_or("root", String::as_str), by, what });
    }
    let (mut variable, mut by, mut what) = ("root", SearchBy::File, None);
    let mut rest = arguments.iter().map(String::as_str).peekable();
    while let Some(argument) = rest.next() {
        match argument {
            "--fs-uuid" | "-u" => by = SearchBy::Uuid,
            "--label" | "--fs-label" | "-l" => by = SearchBy::Label,
            "--file" | "-f" => by = SearchBy::File,
            "--set" | "-s" => {
                // The name is optional, and an option or the last word is none.
                if rest.peek().is_some_and(|n| !n.starts_with('-')) && rest.clone().count() > 1 {
                    variable = rest.next()?;
                }
            }
            "--hint" | "-h" => {
                rest.next();
            }
            other => match other.strip_prefix("--set=") {
                Some(name) => variable = name,
                None if other.starts_with('-') => {}
                None => what = Some(other),
            },
        }
    }
    Some(Search { variable, by, what: what? })
}

/// `test` and `[` (GRUB manual §16.3.90), left to right; `-o` binds weaker than `-a`.
pub(super) fn test(arguments: &[String], mut file: impl FnMut(&str) -> FileFact) -> bool {
    arguments
        .split(|a| a == "-o")
        .any(|any| !any.is_empty() && any.split(|a| a == "-a").all(|one| test_one(one, &mut file)))
}

/// What a file test may ask.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileFact {
    pub exists: bool,
    pub dir: bool,
    pub size: u64,
}

fn test_one(words: &[String], file: &mut dyn FnMut(&str) -> FileFact) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => false,
        ["!", rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|w| w.to_string()).collect();
            !test_one(&rest, file)
        }
        [one] => !one.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-e", path] => file(path).exists,
        ["-f", path] => Some(file(path)).is_some_and(|f| f.exists && !f.dir),
        ["-d", path] => file(path).dir,
        ["-s", path] => file(path).size > 0,
        [left, operator, right] => compare(left, operator, right),
        ["(", inner @ .., ")"] => {
            let inner: Vec<String> = inner.iter().map(|w| w.to_string()).collect();
            test_one(&inner, file)
        }
        _ => false,
    }
}

fn compare(left: &str, operator: &str, right: &str) -> bool {
    let number = |text: &str| text.trim().parse::<i64>().unwrap_or(0);
    let numbers = || number(left).cmp(&number(right));
    match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        "-eq" => numbers() == Ordering::Equal,
        "-ne" => numbers() != Ordering::Equal,
        "-lt" => numbers() == Ordering::Less,
        "-le" => numbers() != Ordering::Greater,
        "-gt" => numbers() == Ordering::Greater,
        "-ge" => numbers() != Ordering::Less,
        _ => false,
    }
}

/// Split `(device)/path`; without a device, `root` is taken.
pub(super) fn place<'a>(path: &'a str, root: &'a str) -> (&'a str, &'a str) {
    match path.strip_prefix('(').and_then(|p| p.split_once(')')) {
        Some((device, rest)) => (device, rest),
        None => (root, path),
    }
}

/// Ask the host about a file.
pub(super) fn fact(host: &mut dyn Host, path: &str, root: &str) -> FileFact {
    let (device, path) = place(path, root);
    host.stat(device, path).map_or(FileFact::default(), |s| FileFact {
        exists: true,
        dir: s.kind == crate::boot::fs::FileKind::Dir,
        size: s.size,
    })
}
