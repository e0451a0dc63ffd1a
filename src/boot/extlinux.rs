//! Configuration files of EXTLINUX and SYSLINUX: what Alpine's BIOS images boot by.
//!
//! Contract: [`parse`] takes any bytes and answers with the default label. Menus, includes and sub-configurations are
//! not followed.

#![forbid(unsafe_code)]

/// Larger files are cut.
const MAX_BYTES: usize = 256 << 10;

/// What the default label boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// Its name, or its menu label.
    pub title: String,
    /// Path of the kernel, relative to the configuration's directory unless absolute.
    pub kernel: String,
    /// Paths of initial RAM disks.
    pub initrds: Vec<String>,
    /// Kernel parameters, without `initrd=`.
    pub append: String,
}

/// The default label of a configuration: `DEFAULT`'s, else the one marked `MENU DEFAULT`, else the first.
pub fn parse(bytes: &[u8]) -> Option<Label> {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(MAX_BYTES)).unwrap_or_default());
    let mut labels: Vec<(String, Label)> = Vec::new();
    let (mut default, mut marked, mut global) = (None, None, String::new());
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = value.trim();
        match (key.to_ascii_uppercase().as_str(), labels.last_mut()) {
            ("DEFAULT", _) => default = Some(value.to_string()),
            ("LABEL", _) => {
                let label = Label { title: value.to_string(), append: global.clone(), ..Label::default() };
                labels.push((value.to_string(), label));
            }
            ("KERNEL" | "LINUX", Some((_, label))) => label.kernel = value.to_string(),
            ("INITRD", Some((_, label))) => label.initrds = files(value),
            ("APPEND", Some((_, label))) => label.append = value.to_string(),
            ("APPEND", None) => global = value.to_string(),
            ("MENU", last) => {
                let (word, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
                match (word.to_ascii_uppercase().as_str(), last) {
                    ("DEFAULT", Some((name, _))) => marked = Some(name.clone()),
                    ("LABEL", Some((_, label))) => label.title = rest.trim().replace('^', ""),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let named = |name: &Option<String>| labels.iter().find(|(n, _)| Some(n) == name.as_ref());
    let (_, label) = named(&default).or_else(|| named(&marked)).or(labels.first())?;
    let mut label = label.clone();
    let (initrds, rest): (Vec<&str>, Vec<&str>) =
        label.append.split_whitespace().partition(|word| word.starts_with("initrd="));
    let from_append: Vec<String> = initrds.iter().flat_map(|w| files(w.trim_start_matches("initrd="))).collect();
    let append = rest.join(" ");
    label.initrds.extend(from_append);
    label.append = append;
    (!label.kernel.is_empty()).then_some(label)
}

fn files(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|f| !f.is_empty()).map(str::to_string).collect()
}

#[cfg(test)]
#[path = "extlinux_tests.rs"]
mod tests;
