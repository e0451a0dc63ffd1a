//! Boot Loader Specification entries (UAPI.1): files `*.conf` under `loader/entries`, one for each kernel.
//!
//! Contract: [`parse`] takes any bytes; unknown keys are passed over. Sorting follows the specification, versions
//! compare as in UAPI.10.

#![forbid(unsafe_code)]

use std::cmp::Ordering;

/// Larger entries are cut; the longest real ones have about a kilobyte.
const MAX_BYTES: usize = 64 << 10;

/// One boot entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// File name without `.conf`.
    pub id: String,
    /// What a menu shows.
    pub title: String,
    /// Kernel version.
    pub version: String,
    /// Groups entries of one operating system.
    pub sort_key: String,
    /// Which installation it belongs to.
    pub machine_id: String,
    /// Path of the kernel.
    pub linux: String,
    /// Paths of the initial RAM disks, in order.
    pub initrd: Vec<String>,
    /// Kernel parameters: all `options` lines, joined by spaces.
    pub options: Option<String>,
    /// Whether `architecture`, if given, is x86-64.
    pub bootable: bool,
    /// Tries left, from `+N` or `+N-M` in the file name.
    pub tries_left: Option<u32>,
}

/// Parse the entry in file `name`.
pub fn parse(name: &str, bytes: &[u8]) -> Entry {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(MAX_BYTES)).unwrap_or_default());
    let stem = name.strip_suffix(".conf").unwrap_or(name);
    let (id, tries_left) = match stem.rsplit_once('+') {
        Some((id, tries)) => match tries.split('-').next().unwrap_or_default().parse() {
            Ok(left) => (id, Some(left)),
            Err(_) => (stem, None),
        },
        None => (stem, None),
    };
    let mut entry = Entry { id: id.to_string(), bootable: true, tries_left, ..Entry::default() };
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let value = value.trim();
        let set = |field: &mut String| *field = value.to_string();
        match key {
            "title" => set(&mut entry.title),
            "version" => set(&mut entry.version),
            "sort-key" => set(&mut entry.sort_key),
            "machine-id" => set(&mut entry.machine_id),
            "linux" => set(&mut entry.linux),
            // GRUB's reader takes several paths on one line.
            "initrd" => entry.initrd.extend(value.split_whitespace().map(str::to_string)),
            "options" => {
                let options = entry.options.get_or_insert_default();
                if !options.is_empty() {
                    options.push(' ');
                }
                options.push_str(value);
            }
            "architecture" => entry.bootable = value.eq_ignore_ascii_case("x64"),
            _ => {}
        }
    }
    entry
}

/// The order of the specification, "Sorting": the entry to boot by default comes first.
pub fn by_specification(a: &Entry, b: &Entry) -> Ordering {
    let spent = |e: &Entry| e.tries_left == Some(0);
    let order = spent(a).cmp(&spent(b));
    let keyed = match (a.sort_key.is_empty(), b.sort_key.is_empty()) {
        (false, false) => a
            .sort_key
            .cmp(&b.sort_key)
            .then_with(|| a.machine_id.cmp(&b.machine_id))
            .then_with(|| compare_versions(&b.version, &a.version)),
        // Entries with a key come before those without.
        (without_a, without_b) => without_a.cmp(&without_b),
    };
    order.then(keyed).then_with(|| compare_versions(&b.id, &a.id))
}

/// The order of GRUB's `blscfg`: by file name, the newest version first.
pub fn by_file_name(a: &Entry, b: &Entry) -> Ordering {
    compare_versions(&b.id, &a.id)
}

/// Compare versions (UAPI.10 version format): `~` before everything, then the end, `-`, `^`, `.`, then letters and
/// digits, of which runs of digits compare as numbers.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let skip = |s: &mut &[u8]| {
        while let [c, rest @ ..] = *s
            && !(c.is_ascii_alphanumeric() || b"~-^.".contains(c))
        {
            *s = rest;
        }
    };
    loop {
        skip(&mut a);
        skip(&mut b);
        let (x, y) = (a.first().copied(), b.first().copied());
        if (x == Some(b'~')) != (y == Some(b'~')) {
            return (y == Some(b'~')).cmp(&(x == Some(b'~')));
        }
        match (x, y) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => {
                // Of two versions the one that goes on with a separator is older.
                if let Some(mark) = b"-^.".iter().find(|mark| (x == **mark) != (y == **mark)) {
                    return (y == *mark).cmp(&(x == *mark));
                }
                if x == y && b"~-^.".contains(&x) {
                    a = a.get(1..).unwrap_or_default();
                    b = b.get(1..).unwrap_or_default();
                    continue;
                }
            }
        }
        let digits = x.is_some_and(|c| c.is_ascii_digit()) || y.is_some_and(|c| c.is_ascii_digit());
        let (run_a, rest_a) = split_run(a, digits);
        let (run_b, rest_b) = split_run(b, digits);
        // Capitals before small letters, as in ASCII.
        let order = if digits { compare_numbers(run_a, run_b) } else { run_a.cmp(run_b) };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn split_run(bytes: &[u8], digits: bool) -> (&[u8], &[u8]) {
    let belongs = |c: &u8| if digits { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
    let n = bytes.iter().take_while(|c| belongs(c)).count();
    bytes.split_at_checked(n).unwrap_or((bytes, &[]))
}

/// Any number is newer than none.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let strip = |s: &[u8]| -> Vec<u8> { s.iter().copied().skip_while(|c| *c == b'0').collect() };
    let (x, y) = (strip(a), strip(b));
    a.is_empty().cmp(&b.is_empty()).reverse().then(x.len().cmp(&y.len())).then(x.cmp(&y))
}

/// Fuzz entry point: any bytes as two entries, the first line being their name.
pub fn fuzz(bytes: &[u8]) {
    let cut = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (name, text) = bytes.split_at_checked(cut).unwrap_or_default();
    let (a, b) = (parse(&String::from_utf8_lossy(name), text), parse("other.conf", name));
    let _ = (by_specification(&a, &b), by_file_name(&a, &b));
}

#[cfg(test)]
#[path = "bls_tests.rs"]
mod tests;
