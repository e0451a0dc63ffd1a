//! Choosing instance types by what they have.

use serde::{Deserialize, Serialize};

use super::{InstanceType, all};

/// A processor architecture that guests run on, in EC2's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Architecture {
    type Err = crate::ec2::Ec2Error;

    /// EC2's words, and those of `uname -m`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "x86_64" | "amd64" => Ok(Self::X86_64),
            "arm64" | "aarch64" => Ok(Self::Arm64),
            _ => Err(crate::ec2::Ec2Error::invalid_value_for(text, "architecture", "Valid values: x86_64, arm64.")),
        }
    }
}

/// What an instance type must have. Empty fields ask for nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Exactly this many vCPUs.
    pub vcpus: Option<u32>,
    /// Exactly this much memory, in GiB.
    pub memory_gib: Option<f64>,
    /// At most this much memory, in MiB.
    pub max_memory_mib: Option<u64>,
    /// Runs this architecture.
    pub architecture: Option<Architecture>,
    /// The name fits this pattern: `*` and `?` as in the API's filters, `t3.*`.
    pub name: Option<String>,
    /// What stands before the dot: `t3`.
    pub family: Option<String>,
    /// Burstable or not.
    pub burstable: Option<bool>,
    /// With instance-store disks or without.
    pub instance_store: Option<bool>,
    /// Current generation or not.
    pub current_generation: Option<bool>,
    /// Bare metal or not.
    pub bare_metal: Option<bool>,
    /// With accelerators or without.
    pub accelerators: Option<bool>,
}

impl Filter {
    /// Whether the type has all that is asked for.
    pub fn matches(&self, of: &InstanceType) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, actual: T) -> bool {
            wanted.as_ref().is_none_or(|wanted| *wanted == actual)
        }
        is(&self.vcpus, of.vcpus)
            && self.memory_gib.is_none_or(|gib| (gib * 1024.0 - of.memory_mib as f64).abs() < 0.5)
            && self.max_memory_mib.is_none_or(|mib| of.memory_mib <= mib)
            && self.architecture.is_none_or(|architecture| of.supports(architecture.as_str()))
            && self.name.as_ref().is_none_or(|pattern| glob(pattern.as_bytes(), of.name.as_bytes()))
            && self.family.as_ref().is_none_or(|family| family == of.family())
            && is(&self.burstable, of.is_burstable())
            && is(&self.instance_store, of.instance_store.is_some())
            && is(&self.current_generation, of.is_current_generation())
            && is(&self.bare_metal, of.is_bare_metal())
            && is(&self.accelerators, !of.accelerators.is_empty())
    }

    /// The types that match, by family and then by size.
    pub fn select(&self) -> Vec<InstanceType> {
        let mut found: Vec<_> = all().filter(|of| self.matches(of)).collect();
        found.sort_by(|a, b| {
            (a.family(), a.vcpus, a.memory_mib, a.name).cmp(&(b.family(), b.vcpus, b.memory_mib, b.name))
        });
        found
    }
}

/// Whether `text` fits `pattern` with `*` (anything) and `?` (one byte). Time is at most the product of the lengths.
pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if the text after the last star does not fit: the star takes one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, taken)) => {
                    (p, t) = (after_star, taken + 1);
                    retry = Some((after_star, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&byte| byte == b'*'))
}
