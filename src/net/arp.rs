//! ARP (RFC 826) as the VPC's router answers it.
//!
//! Answered are requests for the addresses served here, link-local ones among them: EC2 routes those through the
//! gateway, but a guest may take them for on-link. The guest's own address is never answered, so duplicate address
//! detection (RFC 5227) finds it free; nor is any other address of the subnet, which no neighbour has.

use std::net::Ipv4Addr;

use super::config::NetConfig;
use super::wire::{be16, ipv4_at};

/// Hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const LENGTH: usize = 28;

/// The reply to an ARP packet, if one is due. Probes (sender 0.0.0.0) are answered like requests.
pub(crate) fn answer(config: &NetConfig, packet: &[u8]) -> Option<[u8; LENGTH]> {
    let packet = packet.get(..LENGTH)?;
    let sender = ipv4_at(packet, 14)?;
    let target = ipv4_at(packet, 24)?;
    let known_sender = sender == config.guest_ip || sender == Ipv4Addr::UNSPECIFIED;
    if packet.get(..6)? != ETHERNET_IPV4
        || be16(packet, 6)? != 1
        || packet.get(8..14)? != config.guest_mac
        || !known_sender
        || target == config.guest_ip
        || !is_ours(config, target)
    {
        return None;
    }
    let mut reply = [0; LENGTH];
    reply[..6].copy_from_slice(&ETHERNET_IPV4);
    reply[7] = 2;
    reply[8..14].copy_from_slice(&config.gateway_mac);
    reply[14..18].copy_from_slice(&target.octets());
    reply[18..24].copy_from_slice(&config.guest_mac);
    reply[24..28].copy_from_slice(&sender.octets());
    Some(reply)
}

fn is_ours(config: &NetConfig, ip: Ipv4Addr) -> bool {
    config.is_local(ip) || config.host_alias.is_some_and(|(alias, _)| alias == ip)
}

#[cfg(test)]
#[path = "arp_tests.rs"]
mod tests;
