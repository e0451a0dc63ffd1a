//! The types of EBS volumes: what may be asked of them, and how fast they are.
//!
//! The figures are those of the EBS user guide, "Amazon EBS volume types" (gp3 as of September 2025).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Ec2Error;
use super::instance_types::EbsLimits;

const MIB: f64 = 1024.0 * 1024.0;
const GIB: u64 = 1 << 30;
const TIB: f64 = (1u64 << 40) as f64;
/// The largest access that counts as one of an SSD volume, in bytes.
const SSD_UNIT: u64 = 256 << 10;
/// The same of an HDD volume.
const HDD_UNIT: u64 = 1 << 20;
/// What gp2 volumes have saved up at most: half an hour at 3,000 IOPS.
const GP2_CREDITS: f64 = 5_400_000.0;
/// For how long an instance that has saved up can do its most, in seconds.
const INSTANCE_BURST: f64 = 1800.0;

/// A type of volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeType {
    /// General Purpose SSD, by its size.
    Gp2,
    /// General Purpose SSD, as provisioned. Records of the first versions do not name a type.
    #[default]
    #[serde(alias = "")]
    Gp3,
    /// Provisioned IOPS SSD.
    Io1,
    /// Provisioned IOPS SSD, Block Express.
    Io2,
    /// Throughput Optimized HDD.
    St1,
    /// Cold HDD.
    Sc1,
    /// Magnetic.
    Standard,
}

const NAMES: [(VolumeType, &str); 7] = [
    (VolumeType::Gp2, "gp2"),
    (VolumeType::Gp3, "gp3"),
    (VolumeType::Io1, "io1"),
    (VolumeType::Io2, "io2"),
    (VolumeType::St1, "st1"),
    (VolumeType::Sc1, "sc1"),
    (VolumeType::Standard, "standard"),
];

impl fmt::Display for VolumeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(of, _)| of == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for VolumeType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(_, name)| *name == text).map(|(of, _)| *of);
        found.ok_or_else(|| "expected gp2, gp3, io1, io2, st1, sc1 or standard".to_owned())
    }
}

/// What is asked of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Provisioned {
    /// Its type.
    pub volume_type: VolumeType,
    /// I/O operations per second, for the types where they are provisioned; gp3's default is 3,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// MiB/s, for gp3; the default is 125.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u32>,
}

/// How fast something is: a rate that it never exceeds, and where it does so for a while only, what it can save up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// At the most, per second.
    pub peak: f64,
    /// What is left when nothing is saved up.
    pub credits: Option<Credits>,
}

/// Credits: one is spent for each unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credits {
    /// How many come in, per second.
    pub rate: f64,
    /// How many there are at the most, and at the beginning.
    pub most: f64,
}

impl Rate {
    const fn flat(peak: f64) -> Self {
        Rate { peak, credits: None }
    }

    fn bursting(rate: f64, peak: f64, most: f64) -> Self {
        if rate >= peak { Rate::flat(peak) } else { Rate { peak, credits: Some(Credits { rate, most }) } }
    }
}

/// How fast a volume, or an instance's way to its volumes, is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// I/O operations.
    pub operations: Option<Rate>,
    /// Bytes.
    pub bytes: Rate,
    /// The largest access that counts as one operation, in bytes. Ones that follow one another directly are merged up to that.
    pub unit: u64,
    /// Whether a smaller access costs as much throughput as one of `unit` bytes: a disk's head has to get there.
    pub whole_units: bool,
}

impl Provisioned {
    /// Check what is asked of a volume of `size` bytes.
    ///
    /// # Errors
    /// EC2's codes for what the type does not have, or not so much of.
    pub fn check(&self, size: u64) -> Result<(), Ec2Error> {
        use VolumeType::*;
        let of = self.volume_type;
        let gib = size.div_ceil(GIB);
        let unsupported = |what: &str| {
            let text = format!("The parameter {what} is not supported for {of} volumes.");
            Err(Ec2Error::new("InvalidParameterCombination", text))
        };
        let range = |what: &str, value: u32, least: u32, most: u32| {
            let text = match value {
                _ if value < least => format!("Volume {what} of {value} is too low; minimum is {least}."),
                _ if value > most => format!("Volume {what} of {value} is too high; maximum is {most}."),
                _ => return Ok(()),
            };
            Err(Ec2Error::invalid_parameter_value(text))
        };
        // From, to, and how many for a GiB.
        let (least, most, ratio) = match of {
            Gp3 => (3000, 80_000, 500),
            Io1 => (100, 64_000, 50),
            Io2 => (100, 256_000, 1000),
            _ if self.iops.is_some() => return unsupported("iops"),
            _ => (0, 0, 0),
        };
        match self.iops {
            Some(iops) => {
                range("iops", iops, least, most)?;
                let included = if of == Gp3 { 3000 } else { 0 };
                if u64::from(iops) > (gib * ratio).max(included) {
                    let text = format!(
                        "Iops to volume size ratio of {:.6} is too high; maximum is {ratio}",
                        f64::from(iops) / gib as f64
                    );
                    return Err(Ec2Error::invalid_parameter_value(text));
                }
            }
            None if matches!(of, Io1 | Io2) => return Err(Ec2Error::missing_parameter("iops")),
            None => {}
        }
        match self.throughput {
            Some(_) if of != Gp3 => return unsupported("throughput"),
            Some(throughput) => {
                range("throughput", throughput, 125, 2000)?;
                let iops = self.iops.unwrap_or(3000);
                if throughput * 4 > iops {
                    let text = format!(
                        "Throughput (MiBps) to iops ratio of {:.6} is too high; maximum is 0.250000 MiBps per iops",
                        f64::from(throughput) / f64::from(iops)
                    );
                    return Err(Ec2Error::invalid_parameter_value(text));
                }
            }
            None => {}
        }
        let (least, most) = match of {
            Gp2 | Gp3 => (1, 16 << 10),
            Io1 | Io2 => (4, 16 << 10),
            St1 | Sc1 => (125, 16 << 10),
            Standard => (1, 1 << 10),
        };
        let text = match gib {
            _ if gib < least => format!("Volume of {gib}GiB is too small; minimum is {least}GiB."),
            _ if gib > most => format!("Volume of {gib}GiB is too large; maximum is {most}GiB."),
            _ => return Ok(()),
        };
        Err(Ec2Error::invalid_parameter_value(text))
    }

    /// How fast a volume of `size` bytes is.
    pub fn performance(&self, size: u64) -> Performance {
        use VolumeType::*;
        let gib = size.div_ceil(GIB) as f64;
        let tib = size as f64 / TIB;
        let ssd = |operations: Rate, bytes: f64| Performance {
            operations: Some(operations),
            bytes: Rate::flat(bytes * MIB),
            unit: SSD_UNIT,
            whole_units: false,
        };
        let hdd = |base: f64, peak: f64| Performance {
            operations: None,
            bytes: Rate::bursting(base * MIB, peak * MIB, size as f64),
            unit: HDD_UNIT,
            whole_units: true,
        };
        let iops = f64::from(self.iops.unwrap_or(3000));
        // Throughput that follows from the operations, in MiB/s.
        let by = |kib: f64| iops * kib / 1024.0;
        match self.volume_type {
            Gp2 => {
                let base = (3.0 * gib).clamp(100.0, 16_000.0);
                let operations = Rate::bursting(base, base.max(3000.0), GP2_CREDITS);
                ssd(operations, if gib <= 170.0 { 128.0 } else { 250.0 })
            }
            Gp3 => ssd(Rate::flat(iops), f64::from(self.throughput.unwrap_or(125))),
            Io1 => ssd(Rate::flat(iops), by(256.0).min(500.0).max(by(16.0)).min(1000.0)),
            Io2 => ssd(Rate::flat(iops), by(256.0).min(4000.0)),
            St1 => hdd((40.0 * tib).min(500.0), (250.0 * tib).min(500.0)),
            Sc1 => hdd((12.0 * tib).min(192.0), (80.0 * tib).min(250.0)),
            // No formula is published: 40 to 200 IOPS, and up to 90 MiB/s.
            Standard => ssd(Rate::flat(200.0), 90.0),
        }
    }
}

/// How fast an instance's way to its volumes is, from what its type does always and what it does for half an hour.
pub fn instance_performance(baseline: EbsLimits, maximum: EbsLimits) -> Performance {
    let rate = |baseline: f64, maximum: f64| Rate::bursting(baseline, maximum, (maximum - baseline) * INSTANCE_BURST);
    Performance {
        operations: Some(rate(baseline.iops.into(), maximum.iops.into())),
        bytes: rate(baseline.throughput_mbytes * 1e6, maximum.throughput_mbytes * 1e6),
        unit: SSD_UNIT,
        whole_units: false,
    }
}

#[cfg(test)]
#[path = "volume_types_tests.rs"]
mod tests;
