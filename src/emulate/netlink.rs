//! The three rtnetlink(7) requests that bring an interface up with a static address: enough to need no `ip` command.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, sendto, socket};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// Sets an interface up. The kernel gives `lo` its address by itself.
pub(super) fn up(interface: &str) -> io::Result<()> {
    request(RTM_NEWLINK, 0, &link_up(index(interface)?))
}

/// Gives an interface an address, sets it up, and makes `gateway` the default route.
pub(super) fn configure(interface: &str, address: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> io::Result<()> {
    let index = index(interface)?;
    request(RTM_NEWADDR, NLM_F_CREATE, &new_address(index, address, prefix))?;
    request(RTM_NEWLINK, 0, &link_up(index))?;
    request(RTM_NEWROUTE, NLM_F_CREATE, &default_route(index, gateway))
}

fn index(interface: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// struct ifinfomsg
fn link_up(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for word in [index, IFF_UP, IFF_UP] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    body
}

/// struct ifaddrmsg and its attributes
fn new_address(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend_from_slice(&index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, address.octets());
    attribute(&mut body, IFA_ADDRESS, address.octets());
    body
}

/// struct rtmsg and its attributes
fn default_route(index: u32, gateway: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
    attribute(&mut body, RTA_GATEWAY, gateway.octets());
    attribute(&mut body, RTA_OIF, index.to_ne_bytes());
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend_from_slice(&8u16.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(&value);
}

/// struct nlmsghdr before a body.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

/// The error in the kernel's answer: NLMSG_ERROR with 0 is an acknowledgement.
fn answer(bytes: &[u8]) -> io::Result<()> {
    let kind = bytes.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    match (kind, bytes.get(16..20)) {
        (Some(NLMSG_ERROR), Some(&[a, b, c, d])) => match i32::from_ne_bytes([a, b, c, d]) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        },
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not an acknowledgement")),
    }
}

fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    // NETLINK_ROUTE is protocol 0.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    sendto(&socket, &message(kind, flags, body), SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut bytes = [0; 4096];
    let (_, length) = recv(&socket, &mut bytes[..], RecvFlags::empty())?;
    answer(bytes.get(..length).unwrap_or_default())
}

#[cfg(test)]
#[path = "netlink_tests.rs"]
mod tests;
