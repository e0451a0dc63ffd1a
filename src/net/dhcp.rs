//! The DHCP server (RFC 2131, options of RFC 2132) as EC2's answers: one address for the NIC's hardware address, at
//! once, from the router's address.
//!
//! A pure function from message to message; there is no lease to remember.

use std::net::Ipv4Addr;

use super::config::NetConfig;
use super::wire::{be16, ipv4_at};

/// Where clients listen.
pub(crate) const CLIENT_PORT: u16 = 68;
/// Where servers listen.
pub(crate) const SERVER_PORT: u16 = 67;

const OPTIONS: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// BOOTP's least length; some clients still insist.
const LEAST: usize = 300;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const BROADCAST: u8 = 28;
const NTP: u8 = 42;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const CLIENT_ID: u8 = 61;
const END: u8 = 255;

/// An answer and the address that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub to: Ipv4Addr,
    pub message: Vec<u8>,
    /// The client may use its address now.
    pub leased: bool,
}

/// What a client said, as far as it matters.
struct Message<'a> {
    kind: u8,
    broadcast: bool,
    ciaddr: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    parameters: &'a [u8],
    client_id: Option<&'a [u8]>,
    head: &'a [u8],
}

impl<'a> Message<'a> {
    fn parse(config: &NetConfig, bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.get(..OPTIONS)?;
        // A request over Ethernet, from the NIC itself and not through a relay.
        if head.get(..3)? != [1, 1, 6]
            || head.get(28..34)? != config.guest_mac
            || ipv4_at(head, 24)? != Ipv4Addr::UNSPECIFIED
            || head.get(236..)? != COOKIE
        {
            return None;
        }
        let mut message = Message {
            kind: 0,
            broadcast: be16(head, 10)? & 0x8000 != 0,
            ciaddr: ipv4_at(head, 12)?,
            requested: None,
            server: None,
            parameters: &[],
            client_id: None,
            head,
        };
        let mut rest = bytes.get(OPTIONS..)?;
        while let Some((&code, after)) = rest.split_first() {
            match code {
                0 => {
                    rest = after;
                    continue;
                }
                END => break,
                _ => {}
            }
            let (&length, after) = after.split_first()?;
            let (data, after) = after.split_at_checked(usize::from(length))?;
            match code {
                MESSAGE_TYPE => message.kind = *data.first()?,
                REQUESTED_ADDRESS => message.requested = Some(ipv4_at(data, 0)?),
                SERVER => message.server = Some(ipv4_at(data, 0)?),
                PARAMETERS => message.parameters = data,
                CLIENT_ID => message.client_id = Some(data),
                _ => {}
            }
            rest = after;
        }
        Some(message)
    }
}

/// The answer to a client's message, if it is due one.
pub(crate) fn answer(config: &NetConfig, bytes: &[u8]) -> Option<Reply> {
    let message = Message::parse(config, bytes)?;
    if message.server.is_some_and(|server| server != config.gateway_ip) {
        return None;
    }
    match message.kind {
        DISCOVER => Some(lease(config, &message, OFFER)),
        REQUEST => {
            let wanted = match message.requested {
                Some(requested) => requested,
                // Renewing and rebinding name the address here.
                None => message.ciaddr,
            };
            if wanted == config.guest_ip { Some(lease(config, &message, ACK)) } else { Some(refuse(config, &message)) }
        }
        INFORM => Some(inform(config, &message)),
        DECLINE => {
            log::warn!("the guest declined its address {}: it believes that another host has it", config.guest_ip);
            None
        }
        // RELEASE needs no answer, and the address stays the NIC's.
        _ => None,
    }
}

fn lease(config: &NetConfig, message: &Message<'_>, kind: u8) -> Reply {
    let mut reply = start(config, message, kind, config.guest_ip);
    option(&mut reply, LEASE_TIME, &config.lease_seconds.to_be_bytes());
    settings(config, message, &mut reply);
    let to = if message.ciaddr != Ipv4Addr::UNSPECIFIED {
        message.ciaddr
    } else if message.broadcast {
        Ipv4Addr::BROADCAST
    } else {
        config.guest_ip
    };
    Reply { leased: kind == ACK, ..finish(reply, message, to) }
}

fn inform(config: &NetConfig, message: &Message<'_>) -> Reply {
    let mut reply = start(config, message, ACK, Ipv4Addr::UNSPECIFIED);
    settings(config, message, &mut reply);
    let to = if message.ciaddr == config.guest_ip { config.guest_ip } else { Ipv4Addr::BROADCAST };
    finish(reply, message, to)
}

fn refuse(config: &NetConfig, message: &Message<'_>) -> Reply {
    let mut reply = start(config, message, NAK, Ipv4Addr::UNSPECIFIED);
    // No address is acknowledged, not even the one that the client claims.
    reply[12..16].fill(0);
    finish(reply, message, Ipv4Addr::BROADCAST)
}

fn start(config: &NetConfig, message: &Message<'_>, kind: u8, yiaddr: Ipv4Addr) -> Vec<u8> {
    let mut reply = vec![0; OPTIONS];
    reply[0] = 2;
    reply[1..3].copy_from_slice(&[1, 6]);
    reply[236..].copy_from_slice(&COOKIE);
    // xid; then flags and ciaddr.
    for range in [4..8, 10..16] {
        if let Some(bytes) = message.head.get(range.clone()) {
            reply[range].copy_from_slice(bytes);
        }
    }
    reply[16..20].copy_from_slice(&yiaddr.octets());
    reply[28..34].copy_from_slice(&config.guest_mac);
    option(&mut reply, MESSAGE_TYPE, &[kind]);
    option(&mut reply, SERVER, &config.gateway_ip.octets());
    reply
}

/// What EC2's default DHCP option set tells an instance.
fn settings(config: &NetConfig, message: &Message<'_>, reply: &mut Vec<u8>) {
    option(reply, SUBNET_MASK, &config.mask().to_be_bytes());
    option(reply, BROADCAST, &config.broadcast().octets());
    option(reply, ROUTER, &config.gateway_ip.octets());
    if let Some(dns) = config.dns.first() {
        option(reply, DNS, &dns.octets());
    }
    option(reply, DOMAIN, config.domain.as_bytes());
    option(reply, HOST_NAME, config.host_name.as_bytes());
    option(reply, MTU, &config.mtu.to_be_bytes());
    if let Some(ntp) = config.ntp
        && message.parameters.contains(&NTP)
    {
        option(reply, NTP, &ntp.octets());
    }
}

fn option(reply: &mut Vec<u8>, code: u8, data: &[u8]) {
    if let (1.., Ok(length)) = (data.len(), u8::try_from(data.len())) {
        reply.extend_from_slice(&[code, length]);
        reply.extend_from_slice(data);
    }
}

fn finish(mut reply: Vec<u8>, message: &Message<'_>, to: Ipv4Addr) -> Reply {
    // RFC 6842: a client that names itself wants to see its name again, whatever form it has.
    if let Some(id) = message.client_id {
        option(&mut reply, CLIENT_ID, id);
    }
    reply.push(END);
    if reply.len() < LEAST {
        reply.resize(LEAST, 0);
    }
    Reply { to, message: reply, leased: false }
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;
