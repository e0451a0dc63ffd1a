//! Values of flags.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::args::PUBLISH_ADDRESS;
use crate::ec2::filters::Filter;
use crate::region::VolumeRequest;

/// A port of the guest on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where this machine listens; port 0 takes a free one.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// `[ADDR:]HOST:GUEST[/tcp|/udp]`; an IPv6 ADDR stands in brackets.
pub fn port_forward(text: &str) -> Result<Publish, String> {
    let (ports, udp) = match text.rsplit_once('/') {
        None => (text, false),
        Some((ports, "tcp")) => (ports, false),
        Some((ports, "udp")) => (ports, true),
        Some((_, other)) => return Err(format!("'{other}' is not a protocol: tcp or udp")),
    };
    let shape = "expected [ADDR:]HOST:GUEST, for example 8080:80 or 0.0.0.0:8080:80";
    let (rest, guest) = ports.rsplit_once(':').ok_or(shape)?;
    let guest_port =
        guest.parse().ok().filter(|p| *p != 0).ok_or_else(|| format!("'{guest}' is not a port; {shape}"))?;
    let (address, host) = match rest.rsplit_once(':') {
        None => (PUBLISH_ADDRESS, rest),
        Some((address, host)) => {
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            let address: IpAddr = bare.parse().map_err(|_| format!("'{address}' is not an IP address; {shape}"))?;
            (address, host)
        }
    };
    let host_port = host.parse().map_err(|_| format!("'{host}' is not a port; {shape}"))?;
    Ok(Publish { host: SocketAddr::new(address, host_port), guest_port, udp })
}

/// `20G`, `20GiB`, `512M`, or as at AWS a number of GiB.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| "expected a size such as 20G or 512M".to_owned())?;
    let unit: u64 = match text[digits..].to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" if digits == text.len() => 1 << 30,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        other => return Err(format!("'{other}' is not a unit: M, G or T")),
    };
    let bytes = number.checked_mul(unit).ok_or("too large")?;
    Some(bytes).filter(|b| (1 << 20..=16 << 40).contains(b)).ok_or_else(|| "a volume has 1 MiB to 16 TiB".to_owned())
}

/// `90s`, `10m`, `1h`, or seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| "expected a time such as 90s, 10m or 1h".to_owned())?;
    let unit = match &text[digits..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => return Err(format!("'{other}' is not a unit: s, m or h")),
    };
    match number.checked_mul(unit) {
        Some(seconds @ 1..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err("a time has 1 second to 7 days".to_owned()),
    }
}

/// `22`, `8000-8010`, `8-0`, `8--1`, `-1`: two numbers as the AWS CLI's `--port` has them. The region checks what they mean.
pub fn ports(text: &str) -> Result<(i32, i32), String> {
    let shape = || "expected a port, a range such as 8000-8010, or for ICMP type-code; -1 is all".to_owned();
    let number = |text: &str| text.parse::<i32>().ok().filter(|_| !text.starts_with('+')).ok_or_else(shape);
    match text.char_indices().skip(1).find(|(_, c)| *c == '-') {
        Some((at, _)) => Ok((number(&text[..at])?, number(&text[at + 1..])?)),
        None => number(text).map(|port| (port, port)),
    }
}

/// `KEY=VALUE`; the value may be empty.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `10G` or `10G:/dev/sdf`.
pub fn volume(text: &str) -> Result<VolumeRequest, String> {
    let (bytes, device) = text.split_once(':').map_or((text, None), |(bytes, device)| (bytes, Some(device)));
    Ok(VolumeRequest { size: size(bytes)?, device: device.map(str::to_owned) })
}

/// `Name=instance-type,Values=t3.*` or `instance-type=t3.*`.
pub fn filter(text: &str) -> Result<Filter, String> {
    text.parse().map_err(|e: crate::ec2::Ec2Error| e.message)
}

/// A path; `file://` and `fileb://` before it are AWS habits and mean the same.
pub fn file_argument(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("file://").or_else(|| text.strip_prefix("fileb://")).unwrap_or(text);
    if path.is_empty() { Err("expected a file".to_owned()) } else { Ok(PathBuf::from(path)) }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
