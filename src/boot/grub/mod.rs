//! An interpreter for GRUB configuration files (GRUB manual 2.12): as `grub-mkconfig` writes them on Debian, Ubuntu,
//! Alpine and SUSE, and with `blscfg` on Fedora, RHEL and Amazon Linux.
//!
//! Contract: [`boot`] runs a configuration as GRUB would at the end of its time-out and answers with what it would load.
//! It is a pure function of the file and of the [`Host`]'s answers. Steps, nesting, variables and files read are
//! bounded; commands that only matter to a screen do nothing; a command that is not known fails, as in GRUB.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::bls;
use super::fs::Stat;

mod commands;
mod execute;
mod run;
mod script;

pub use commands::grubenv;
pub(in crate::boot) use execute::expand_options;
use run::Interpreter;

/// Real configurations take a few hundred.
const MAX_STEPS: u32 = 200_000;
/// Bytes of a configuration file.
const MAX_CONFIG: u64 = 1 << 20;

/// How `search` looks for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchBy {
    /// File-system UUID.
    Uuid,
    /// File-system label.
    Label,
    /// A file that exists there.
    File,
}

/// What the interpreter asks of the outside. Devices are named as GRUB does: `hd0,gpt1`, `hd0,msdos1`, `hd0`.
pub trait Host {
    /// What `path` on `device` is, if it exists.
    fn stat(&mut self, device: &str, path: &str) -> Option<Stat>;
    /// A file's contents, if it exists and has no more than `max` bytes.
    fn read(&mut self, device: &str, path: &str, max: u64) -> Option<Vec<u8>>;
    /// The names in a directory; none if there is no such directory.
    fn list(&mut self, device: &str, path: &str) -> Vec<String>;
    /// The device with this UUID, label or file.
    fn search(&mut self, by: SearchBy, what: &str) -> Option<String>;
}

/// A file on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device in GRUB's words.
    pub device: String,
    /// The path on it.
    pub path: String,
}

/// What GRUB would load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The menu entry's title, with those of the submenus above it: `Advanced options>Linux 6.1`.
    pub title: String,
    /// The kernel.
    pub kernel: Place,
    /// Initial RAM disks, in order.
    pub initrds: Vec<Place>,
    /// The command line, with `BOOT_IMAGE=`.
    pub cmdline: String,
}

/// Why no kernel came out of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrubError {
    /// It ran, but nothing was loaded.
    #[error("the configuration loads no kernel{}", notes(.0))]
    NothingLoaded(Vec<String>),
    /// It does not come to an end.
    #[error("the configuration did not end within {MAX_STEPS} steps")]
    TooLong,
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) }
}

/// Run the configuration `text`, found at `at`, and follow its default menu entry.
///
/// `presets` are variables to start with, beside those that GRUB itself sets.
pub fn boot(host: &mut dyn Host, text: &[u8], at: &Place, presets: &[(&str, &str)]) -> Result<Loaded, GrubError> {
    boot_within(host, text, at, presets, MAX_STEPS)
}

fn boot_within(
    host: &mut dyn Host,
    text: &[u8],
    at: &Place,
    presets: &[(&str, &str)],
    steps: u32,
) -> Result<Loaded, GrubError> {
    let mut variables: HashMap<String, String> = HashMap::new();
    let directory = at.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let prefix = format!("({}){directory}", at.device);
    let mut preset = |name: &str, value: &str| variables.insert(name.to_string(), value.to_string());
    for feature in [
        "feature_chainloader_bpb",
        "feature_ntldr",
        "feature_platform_search_hint",
        "feature_default_font_path",
        "feature_all_video_module",
        "feature_menuentry_id",
        "feature_menuentry_options",
        "feature_200_final",
        "feature_nativedisk_cmd",
        "feature_timeout_style",
    ] {
        preset(feature, "y");
    }
    preset("grub_cpu", "x86_64");
    preset("grub_platform", "efi");
    preset("root", &at.device);
    preset("prefix", &prefix);
    preset("config_directory", &prefix);
    preset("config_file", &format!("({}){}", at.device, at.path));
    preset("cmdpath", &prefix);
    for (name, value) in presets {
        preset(name, value);
    }
    let mut interpreter = Interpreter::new(host, variables, steps);
    interpreter.config(&String::from_utf8_lossy(text), 0);
    interpreter.finish()
}

/// Fuzz entry point: any bytes as a configuration file, on a disk on which every file exists and holds the same bytes.
pub fn fuzz(bytes: &[u8]) {
    struct Mirror<'a>(&'a [u8]);
    impl Host for Mirror<'_> {
        fn stat(&mut self, _: &str, _: &str) -> Option<Stat> {
            Some(Stat { kind: super::fs::FileKind::File, size: self.0.len() as u64, stamp: 0 })
        }
        fn read(&mut self, _: &str, _: &str, max: u64) -> Option<Vec<u8>> {
            (self.0.len() as u64 <= max).then(|| self.0.to_vec())
        }
        fn list(&mut self, _: &str, _: &str) -> Vec<String> {
            vec!["one.conf".into(), "two.conf".into()]
        }
        fn search(&mut self, _: SearchBy, what: &str) -> Option<String> {
            Some(what.to_string())
        }
    }
    let at = Place { device: "hd0,gpt1".into(), path: "/boot/grub/grub.cfg".into() };
    // Few steps: endless loops are what a fuzzer finds first and learns nothing from.
    let _ = boot_within(&mut Mirror(bytes), bytes, &at, &[], 5000);
}

/// A menu entry before it is run.
#[derive(Clone, Debug)]
enum Action {
    /// The block of a `menuentry`; `true`: of a `submenu`. With the arguments that become `$1` and so on.
    Block(script::Body, bool, Vec<String>),
    /// An entry that `blscfg` found on a device.
    Bls(Box<bls::Entry>, String),
}

#[cfg(test)]
#[path = "../grub_tests.rs"]
mod tests;
