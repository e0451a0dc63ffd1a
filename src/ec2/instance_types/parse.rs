//! One line of the table → one [`InstanceType`]. The columns are those of `row` in `generate.py`.

use super::{Accelerator, Ebs, EbsLimits, Flags, InstanceStore, InstanceType, Network, NetworkCard};

/// Parse a line. `None` for one that is not of the table's form, which a test excludes.
pub(super) fn line(line: &'static str) -> Option<InstanceType> {
    let mut columns = line.split('\t');
    let mut next = || columns.next();
    Some(InstanceType {
        name: next()?,
        flags: Flags(next()?),
        hypervisor: next()?,
        architectures: list(next()?),
        manufacturer: next()?,
        clock_ghz: optional(next()?)?,
        processor_features: list(next()?),
        vcpus: next()?.parse().ok()?,
        cores: next()?.parse().ok()?,
        threads_per_core: next()?.parse().ok()?,
        valid_cores: ranges(next()?)?,
        valid_threads_per_core: ranges(next()?)?,
        memory_mib: next()?.parse().ok()?,
        ebs: ebs(next()?)?,
        instance_store: match next()? {
            "" => None,
            text => Some(instance_store(text)?),
        },
        network: Network {
            performance: next()?,
            max_interfaces: next()?.parse().ok()?,
            ipv4_per_interface: next()?.parse().ok()?,
            ipv6_per_interface: next()?.parse().ok()?,
            ena: next()?,
            max_efa_interfaces: optional(next()?)?.unwrap_or(0),
            cards: cards(next()?)?,
        },
        accelerators: list(next()?).into_iter().map(accelerator).collect::<Option<_>>()?,
    })
}

fn list(text: &'static str) -> Vec<&'static str> {
    text.split(',').filter(|item| !item.is_empty()).collect()
}

/// A number or nothing. The outer `None` is an error.
fn optional<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

/// `1-4`, `2-8/2` or `1,3,7`.
fn ranges(text: &str) -> Option<Vec<u32>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let Some((first, rest)) = text.split_once('-') else {
        return text.split(',').map(|item| item.parse().ok()).collect();
    };
    let (last, step) = rest.split_once('/').unwrap_or((rest, "1"));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    let step: usize = step.parse().ok().filter(|step| *step > 0)?;
    Some((first..=last).step_by(step).collect())
}

fn ebs(text: &'static str) -> Option<Ebs> {
    let mut parts = text.split(':');
    let (optimized, nvme) = (parts.next()?, parts.next()?);
    let max_attachments = parts.next()?.parse().ok()?;
    let numbers: Vec<f64> = parts.map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let limits = match numbers.as_slice() {
        [] => None,
        &[b1, t1, i1, b2, t2, i2] => Some((ebs_limits(b1, t1, i1), ebs_limits(b2, t2, i2))),
        _ => return None,
    };
    Some(Ebs { optimized, nvme, max_attachments, limits })
}

fn ebs_limits(bandwidth: f64, throughput: f64, iops: f64) -> EbsLimits {
    EbsLimits { bandwidth_mbps: bandwidth as u32, throughput_mbytes: throughput, iops: iops as u32 }
}

fn instance_store(text: &'static str) -> Option<InstanceStore> {
    let mut parts = text.split(':');
    Some(InstanceStore {
        count: parts.next()?.parse().ok()?,
        size_gb: parts.next()?.parse().ok()?,
        kind: parts.next()?,
        nvme: parts.next()?,
        encryption: parts.next()?,
    })
}

fn cards(text: &'static str) -> Option<Vec<NetworkCard>> {
    let mut cards = Vec::new();
    for item in text.split(',') {
        let (count, item) = item.split_once('*').unwrap_or(("1", item));
        let mut parts = item.split(':');
        let card = NetworkCard {
            baseline_gbps: parts.next()?.parse().ok()?,
            peak_gbps: parts.next()?.parse().ok()?,
            max_interfaces: parts.next()?.parse().ok()?,
            performance: parts.next()?,
        };
        cards.extend(std::iter::repeat_n(card, count.parse().ok()?));
    }
    Some(cards)
}

fn accelerator(text: &'static str) -> Option<Accelerator> {
    let mut parts = text.split(':');
    Some(Accelerator {
        kind: parts.next()?,
        count: parts.next()?.parse().ok()?,
        name: parts.next()?,
        manufacturer: parts.next()?,
        memory_mib: parts.next()?.parse().ok()?,
    })
}
