//! The sliver of IPv6 that the LLMNR answer needs: the query to ff02::1:3, our link-local address as the reply's
//! source, and neighbour discovery (RFC 4861) for it. There are no router advertisements: IPv6 is not served.

use std::net::Ipv6Addr;

use super::llmnr;
use super::wire::{self, UDP, Udp, be16};

const HEADER: usize = 40;
const ICMP: u8 = 58;
const LLMNR_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3);
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// The link-local address that a hardware address gives (RFC 4291, appendix A).
pub(crate) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}

/// The packet that answers one of the guest's, if one does.
pub(crate) fn answer(mac: [u8; 6], packet: &[u8]) -> Option<Vec<u8>> {
    let length = usize::from(be16(packet, 4)?);
    let payload = packet.get(HEADER..HEADER.checked_add(length)?)?;
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let protocol = *packet.get(6)?;
    let hop_limit = *packet.get(7)?;
    let source = address(packet, 8)?;
    let destination = address(packet, 24)?;
    if !source.is_unicast_link_local() || sum(source, destination, protocol, payload) != u16::MAX {
        return None;
    }
    let own = link_local(mac);
    match protocol {
        UDP if destination == LLMNR_GROUP => {
            let query = Udp::parse(payload)?;
            if query.destination != llmnr::PORT {
                return None;
            }
            let reply = llmnr::answer(query.payload)?;
            let mut body = Vec::with_capacity(8 + reply.len());
            body.extend_from_slice(&llmnr::PORT.to_be_bytes());
            body.extend_from_slice(&query.source.to_be_bytes());
            body.extend_from_slice(&u16::try_from(8 + reply.len()).ok()?.to_be_bytes());
            body.extend_from_slice(&[0; 2]);
            body.extend_from_slice(&reply);
            Some(finish(own, source, UDP, 6, body))
        }
        ICMP if hop_limit == 255 && payload.first() == Some(&SOLICITATION) => {
            if payload.get(1) != Some(&0) || address(payload, 8)? != own {
                return None;
            }
            let mut body = vec![0; 32];
            body[0] = ADVERTISEMENT;
            // Solicited, override.
            body[4] = 0x60;
            body[8..24].copy_from_slice(&own.octets());
            // Target link-layer address.
            body[24..26].copy_from_slice(&[2, 1]);
            body[26..32].copy_from_slice(&mac);
            Some(finish(own, source, ICMP, 2, body))
        }
        _ => None,
    }
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at.checked_add(16)?)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets))
}

fn sum(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, payload: &[u8]) -> u16 {
    let addresses = wire::add(wire::sum(&source.octets()), wire::sum(&destination.octets()));
    let rest = wire::add(u16::from(protocol), wire::sum(&(payload.len() as u32).to_be_bytes()));
    wire::add(wire::add(addresses, rest), wire::sum(payload))
}

/// Header and checksum (at offset `at`) around `body`.
fn finish(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, at: usize, mut body: Vec<u8>) -> Vec<u8> {
    let value = match !sum(source, destination, protocol, &body) {
        0 => u16::MAX,
        value => value,
    };
    if let Some(field) = body.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
    let mut packet = vec![0; HEADER];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
    packet[6] = protocol;
    packet[7] = llmnr::HOP_LIMIT;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    packet.extend_from_slice(&body);
    packet
}

#[cfg(test)]
#[path = "ipv6_tests.rs"]
mod tests;
