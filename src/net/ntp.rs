//! An SNTP server (RFC 5905, client/server mode only) that gives out the host's clock, as EC2's does at
//! 169.254.169.123.

use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Length of an NTP header.
pub(crate) const LENGTH: usize = 48;
/// Seconds from 1900 to 1970.
const ERA: u64 = 2_208_988_800;
/// As Amazon's servers have it.
const STRATUM: u8 = 3;

/// The reply to a client's packet that arrived at `now`.
pub(crate) fn answer(request: &[u8], address: Ipv4Addr, now: SystemTime) -> Option<[u8; LENGTH]> {
    let request = request.get(..LENGTH)?;
    let first = *request.first()?;
    let version = first >> 3 & 7;
    // Client (3); version 1 to 4.
    if first & 7 != 3 || !(1..=4).contains(&version) {
        return None;
    }
    let now = timestamp(now);
    let mut reply = [0; LENGTH];
    // No warning, the client's version, server.
    reply[0] = version << 3 | 4;
    reply[1] = STRATUM;
    reply[2] = *request.get(2)?;
    // Precision 2^-20 s, root delay and dispersion of about 1 ms.
    reply[3] = (-20i8) as u8;
    reply[4..8].copy_from_slice(&66u32.to_be_bytes());
    reply[8..12].copy_from_slice(&66u32.to_be_bytes());
    reply[12..16].copy_from_slice(&u32::from(address).wrapping_sub(1).to_be_bytes());
    reply[16..24].copy_from_slice(&now);
    reply[24..32].copy_from_slice(request.get(40..48)?);
    reply[32..40].copy_from_slice(&now);
    reply[40..48].copy_from_slice(&now);
    Some(reply)
}

/// NTP's 64-bit fixed-point time.
fn timestamp(now: SystemTime) -> [u8; 8] {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().wrapping_add(ERA) as u32;
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (u64::from(seconds) << 32 | fraction).to_be_bytes()
}

#[cfg(test)]
#[path = "ntp_tests.rs"]
mod tests;
