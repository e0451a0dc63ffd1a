//! LLMNR (RFC 4795), for the two names that cloud-init asks for before it looks for the metadata service.
//!
//! Nobody on EC2 answers them, so every Debian boot waits 5 to 7 seconds. An empty answer ends the wait. It must never
//! carry an address: cloud-init would take the sender for a name server that invents names.

use std::net::Ipv4Addr;

use super::names::Question;

/// The port.
pub(crate) const PORT: u16 = 5355;
/// The IPv4 group.
pub(crate) const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 252);
/// Replies carry it, so that the receiver knows they did not pass a router.
pub(crate) const HOP_LIMIT: u8 = 255;

const NAMES: [&str; 2] = ["instance-data", "__cloud_init_expected_not_found__"];

/// The empty reply to a query for one of the two names.
pub(crate) fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let question = Question::parse(query)?;
    let flags = question.flags;
    // A query (QR 0), opcode 0, no conflict bit, not truncated; one question and nothing else.
    if flags & 0xfe00 != 0 || question.other_records != 0 || !NAMES.contains(&question.name.as_str()) {
        return None;
    }
    let mut reply = query.get(..question.end)?.to_vec();
    reply.get_mut(2..4)?.copy_from_slice(&0x8000u16.to_be_bytes());
    Some(reply)
}

#[cfg(test)]
#[path = "llmnr_tests.rs"]
mod tests;
