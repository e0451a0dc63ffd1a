//! The command line.

use amiable::emulate::kvm_usable;
use serde::{Deserialize, Serialize};

use super::Failure;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Monitor {
    Amiable,
    Qemu,
}

impl Monitor {
    pub fn name(self) -> &'static str {
        match self {
            Monitor::Amiable => "amiable",
            Monitor::Qemu => "qemu",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    Start,
    Disk,
    Net,
    Memory,
    Test,
}

const GROUPS: [(&str, Group); 5] = [
    ("start", Group::Start),
    ("disk", Group::Disk),
    ("net", Group::Net),
    ("memory", Group::Memory),
    ("test", Group::Test),
];

/// What the command line asks for.
pub struct Settings {
    pub monitors: Vec<Monitor>,
    pub groups: Vec<Group>,
    pub runs: usize,
    pub emulated: bool,
    pub icount: bool,
}

impl Settings {
    pub fn parse(words: &[&str]) -> Result<Self, Failure> {
        let mut settings = Settings {
            monitors: vec![Monitor::Amiable, Monitor::Qemu],
            groups: Vec::new(),
            runs: 3,
            emulated: kvm_usable().is_err(),
            icount: true,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                // cargo says this to every benchmark.
                "--bench" => {}
                "--native" => settings.emulated = false,
                "--emulated" => settings.emulated = true,
                "--wall" => settings.icount = false,
                "--runs" => settings.runs = words.next().ok_or("--runs needs a number")?.parse::<usize>()?.max(1),
                "--vmm" => {
                    settings.monitors = match words.next().copied() {
                        Some("amiable") => vec![Monitor::Amiable],
                        Some("qemu") => vec![Monitor::Qemu],
                        _ => return Err("--vmm amiable, or --vmm qemu".into()),
                    }
                }
                word => match GROUPS.iter().find(|(name, _)| *name == word) {
                    Some((_, group)) => settings.groups.push(*group),
                    None => return Err(format!("{word} is neither a group nor an option").into()),
                },
            }
        }
        if settings.groups.is_empty() {
            settings.groups = GROUPS.map(|(_, group)| group).to_vec();
        }
        Ok(settings)
    }
}
