//! Headers, as far as this room reads and writes them itself: Ethernet II, IPv4 (RFC 791), UDP (RFC 768), and the
//! Internet checksum (RFC 1071). TCP is smoltcp's.
//!
//! Parsers take what the guest sent: they check every length and answer `None` for what is not whole.

use std::net::Ipv4Addr;

pub(crate) const ETHERNET_HEADER: usize = 14;
pub(crate) const IPV4_HEADER: usize = 20;
pub(crate) const UDP_HEADER: usize = 8;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// The usual time to live.
pub(crate) const TTL: u8 = 64;

/// The big-endian number at `at`.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The address at `at`.
pub(crate) fn ipv4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

/// An Ethernet II frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ethernet<'a> {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    pub ethertype: u16,
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        Some(Ethernet {
            destination: frame.get(..6)?.try_into().ok()?,
            source: frame.get(6..12)?.try_into().ok()?,
            ethertype: be16(frame, 12)?,
            payload: frame.get(ETHERNET_HEADER..)?,
        })
    }
}

/// An IPv4 packet whose header is sound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv4<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub ident: u16,
    /// Offset of this fragment in bytes.
    pub offset: usize,
    pub more_fragments: bool,
    pub payload: &'a [u8],
    /// The whole packet without link padding.
    pub packet: &'a [u8],
}

impl<'a> Ipv4<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let header = usize::from(first & 15) * 4;
        let total = usize::from(be16(bytes, 2)?);
        if first >> 4 != 4 || header < IPV4_HEADER || total < header {
            return None;
        }
        let packet = bytes.get(..total)?;
        if sum(packet.get(..header)?) != u16::MAX {
            return None;
        }
        let fragment = be16(packet, 6)?;
        Some(Ipv4 {
            source: ipv4_at(packet, 12)?,
            destination: ipv4_at(packet, 16)?,
            protocol: *packet.get(9)?,
            ident: be16(packet, 4)?,
            offset: usize::from(fragment & 0x1fff) * 8,
            more_fragments: fragment & 0x2000 != 0,
            payload: packet.get(header..)?,
            packet,
        })
    }

    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.offset != 0
    }

    /// Whether the TCP or UDP checksum over pseudo header and payload fits.
    pub fn transport_checksum_fits(&self) -> bool {
        transport_checksum(self.source, self.destination, self.protocol, self.payload, &[]) == 0
    }
}

/// A UDP datagram (its checksum is the caller's).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Udp<'a> {
    pub source: u16,
    pub destination: u16,
    pub checksum: u16,
    pub payload: &'a [u8],
}

impl<'a> Udp<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::from(be16(bytes, 4)?);
        Some(Udp {
            source: be16(bytes, 0)?,
            destination: be16(bytes, 2)?,
            checksum: be16(bytes, 6)?,
            payload: bytes.get(UDP_HEADER..length)?,
        })
    }
}

/// The header of a UDP datagram, with its checksum.
pub(crate) fn udp_header(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), payload: &[u8]) -> Option<[u8; 8]> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let mut header = [0; 8];
    header[0..2].copy_from_slice(&source.1.to_be_bytes());
    header[2..4].copy_from_slice(&destination.1.to_be_bytes());
    header[4..6].copy_from_slice(&length.to_be_bytes());
    let sum = transport_checksum(source.0, destination.0, UDP, &header, payload);
    // 0 would mean "none".
    header[6..8].copy_from_slice(&if sum == 0 { u16::MAX } else { sum }.to_be_bytes());
    Some(header)
}

/// What to store in a zeroed checksum field, or 0 if the stored one fits. `head` has an even length unless `body` is
/// empty.
pub(crate) fn transport_checksum(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    head: &[u8],
    body: &[u8],
) -> u16 {
    let length = (head.len() + body.len()) as u32;
    !add(pseudo_header(source, destination, protocol, length), add(sum(head), sum(body)))
}

/// The sum over the pseudo header.
pub(crate) fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u32) -> u16 {
    let addresses = add(sum(&source.octets()), sum(&destination.octets()));
    add(addresses, add(u16::from(protocol), sum(&length.to_be_bytes())))
}

/// The Internet checksum of `bytes`, ready to be stored.
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The one's complement sum of `bytes` as big-endian 16-bit words. It is the same in either byte order (RFC 1071 §2(B)),
/// so it is taken in the host's, four bytes at a time.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u64;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    u16::from_be(total as u16)
}

/// Add two one's complement sums.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The fields of an IPv4 header that vary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv4Header {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub ttl: u8,
    pub ident: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
}

/// "Don't fragment" in [`Ipv4Header::fragment`].
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments" in [`Ipv4Header::fragment`].
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

impl Ipv4Header {
    /// The header of a packet with `payload` bytes behind it.
    pub fn bytes(&self, payload: usize) -> [u8; IPV4_HEADER] {
        let mut header = [0; IPV4_HEADER];
        header[0] = 0x45;
        let total = u16::try_from(IPV4_HEADER + payload).unwrap_or(u16::MAX);
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..6].copy_from_slice(&self.ident.to_be_bytes());
        header[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.destination.octets());
        let sum = internet_checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }
}
