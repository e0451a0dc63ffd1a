//! The bounded queue of frames towards the guest, and the pool that their buffers come from.
//!
//! Flows stop at the *soft* limit and go on when the guest has taken frames; short answers (ARP, DHCP, ICMP, resets) may
//! use what lies between soft and hard limit; beyond it they are dropped, as on a real link.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;

use super::wire::{
    DONT_FRAGMENT, ETHERNET_HEADER, ETHERTYPE_IPV4, IPV4_HEADER, Ipv4Header, MORE_FRAGMENTS, TCP, UDP, be16, ipv4_at,
    pseudo_header, udp_header,
};
use crate::vmm::backend::{Frame, Offload, PartialChecksum};

const SOFT_FRAMES: usize = 64;
const SOFT_BYTES: usize = 1 << 20;
const HARD_FRAMES: usize = 256;
const HARD_BYTES: usize = 4 << 20;
/// Buffers kept of each size.
const POOLED: usize = 24;
/// Where small buffers end.
const SMALL: usize = 2048;
/// Where smoltcp's TCP checksum lies in its segments.
const TCP_CHECKSUM: u16 = 16;

/// The queue.
pub(crate) struct Outbox {
    queue: VecDeque<Frame>,
    bytes: usize,
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    pub guest_mac: [u8; 6],
    pub gateway_mac: [u8; 6],
    pub mtu: usize,
    ident: u16,
    /// The guest completes checksums.
    pub partial_checksum: bool,
    /// The guest takes large TCP frames.
    pub tcp_segment: bool,
    /// Frames dropped at the hard limit.
    pub dropped: u64,
}

impl Outbox {
    pub fn new(guest_mac: [u8; 6], gateway_mac: [u8; 6], mtu: u16) -> Outbox {
        Outbox {
            queue: VecDeque::with_capacity(HARD_FRAMES),
            bytes: 0,
            small: Vec::with_capacity(POOLED),
            large: Vec::with_capacity(POOLED),
            guest_mac,
            gateway_mac,
            mtu: usize::from(mtu),
            ident: 0,
            partial_checksum: false,
            tcp_segment: false,
            dropped: 0,
        }
    }

    /// Whether flows may add frames.
    pub fn has_room(&self) -> bool {
        self.queue.len() < SOFT_FRAMES && self.bytes < SOFT_BYTES
    }

    pub fn pop(&mut self) -> Option<Frame> {
        let frame = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(frame.bytes.len());
        Some(frame)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn recycle(&mut self, frame: Frame) {
        self.keep(frame.bytes);
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        let pool = if buffer.capacity() <= SMALL { &mut self.small } else { &mut self.large };
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    }

    /// A buffer of `length` bytes with an Ethernet header; the rest is whatever it was.
    fn begin(&mut self, length: usize, ethertype: u16) -> Vec<u8> {
        let length = length.max(ETHERNET_HEADER);
        let (pool, capacity) = if length <= SMALL {
            (&mut self.small, SMALL)
        } else {
            (&mut self.large, length.next_multiple_of(16 << 10))
        };
        let mut buffer = pool.pop().unwrap_or_else(|| Vec::with_capacity(capacity));
        // Only the part that the buffer did not have before is filled.
        buffer.resize(length, 0);
        buffer[0..6].copy_from_slice(&self.guest_mac);
        buffer[6..12].copy_from_slice(&self.gateway_mac);
        buffer[12..14].copy_from_slice(&ethertype.to_be_bytes());
        buffer
    }

    fn push(&mut self, bytes: Vec<u8>, offload: Offload) {
        if self.queue.len() >= HARD_FRAMES || self.bytes >= HARD_BYTES {
            self.dropped += 1;
            return self.keep(bytes);
        }
        self.bytes += bytes.len();
        self.queue.push_back(Frame { bytes, offload });
    }

    /// A frame with this payload, to the guest or to `destination`.
    pub fn push_frame(&mut self, destination: Option<[u8; 6]>, ethertype: u16, payload: &[u8]) {
        let mut frame = self.begin(ETHERNET_HEADER + payload.len(), ethertype);
        if let Some(destination) = destination {
            frame[0..6].copy_from_slice(&destination);
        }
        frame[ETHERNET_HEADER..].copy_from_slice(payload);
        self.push(frame, Offload::default());
    }

    /// A UDP datagram to the guest, in fragments if it is larger than the MTU.
    pub fn push_udp(&mut self, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), ttl: u8, payload: &[u8]) {
        let Some(header) = udp_header(source, destination, payload) else { return };
        self.push_ipv4(source.0, destination.0, UDP, ttl, &header, payload);
    }

    /// An IPv4 packet of `head` and `body`, in fragments if it is larger than the MTU.
    pub fn push_ipv4(
        &mut self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        ttl: u8,
        head: &[u8],
        body: &[u8],
    ) {
        let length = head.len() + body.len();
        if length > usize::from(u16::MAX) - IPV4_HEADER {
            return;
        }
        let mut header = Ipv4Header { source, destination, protocol, ttl, ident: 0, fragment: DONT_FRAGMENT };
        if destination == Ipv4Addr::BROADCAST {
            header.fragment = 0;
        }
        if IPV4_HEADER + length <= self.mtu {
            return self.push_packet(&header, head, body);
        }
        // Rare: a large datagram. It is put together once, then cut.
        let whole = [head, body].concat();
        let step = (self.mtu - IPV4_HEADER) & !7;
        self.ident = self.ident.wrapping_add(1);
        header.ident = self.ident;
        for (i, piece) in whole.chunks(step).enumerate() {
            let at = i * step;
            let more = if at + piece.len() < length { MORE_FRAGMENTS } else { 0 };
            header.fragment = (at / 8) as u16 | more;
            self.push_packet(&header, piece, &[]);
        }
    }

    fn push_packet(&mut self, header: &Ipv4Header, head: &[u8], body: &[u8]) {
        let length = head.len() + body.len();
        let mut frame = self.begin(ETHERNET_HEADER + IPV4_HEADER + length, ETHERTYPE_IPV4);
        if header.destination == Ipv4Addr::BROADCAST {
            frame[0..6].fill(0xff);
        }
        let (start, rest) = frame[ETHERNET_HEADER..].split_at_mut(IPV4_HEADER);
        start.copy_from_slice(&header.bytes(length));
        let (to_head, to_body) = rest.split_at_mut(head.len());
        to_head.copy_from_slice(head);
        to_body.copy_from_slice(body);
        self.push(frame, Offload::default());
    }

    /// Queue a segment that smoltcp wrote behind the Ethernet header of `frame`.
    fn push_segment(&mut self, mut frame: Vec<u8>, meta: PacketMeta) {
        let mut offload = Offload::default();
        if self.partial_checksum && frame.get(ETHERNET_HEADER + 9) == Some(&TCP) {
            // smoltcp left the field zero: the pseudo header's sum belongs there, and the guest does the rest.
            let ip = &frame[ETHERNET_HEADER..];
            let (Some(source), Some(destination)) = (ipv4_at(ip, 12), ipv4_at(ip, 16)) else { return };
            let length = frame.len() - ETHERNET_HEADER - IPV4_HEADER;
            let sum = pseudo_header(source, destination, TCP, length as u32);
            let start = ETHERNET_HEADER + IPV4_HEADER;
            let at = start + usize::from(TCP_CHECKSUM);
            if let Some(field) = frame.get_mut(at..at + 2) {
                field.copy_from_slice(&sum.to_be_bytes());
                offload.checksum = Some(PartialChecksum { start: start as u16, offset: TCP_CHECKSUM });
            }
            offload.tcp_segment = meta.segmentation_offload_size.map(Into::into);
        }
        debug_assert!(be16(&frame, 12) == Some(ETHERTYPE_IPV4));
        self.push(frame, offload);
    }
}

/// The two ends that smoltcp sees: one packet from the guest, and the outbox.
pub(crate) struct Port<'a> {
    pub outbox: &'a mut Outbox,
    pub packet: Option<&'a [u8]>,
}

impl Device for Port<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Sending<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        Some((Received(self.packet.take()?), Sending { outbox: self.outbox, meta: PacketMeta::default() }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        if !self.outbox.has_room() {
            return None;
        }
        Some(Sending { outbox: self.outbox, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.outbox.mtu;
        // What comes from the guest was verified before smoltcp sees it.
        caps.checksum.ipv4 = Checksum::Tx;
        caps.checksum.tcp = if self.outbox.partial_checksum { Checksum::None } else { Checksum::Tx };
        if self.outbox.partial_checksum && self.outbox.tcp_segment {
            caps.segmentation.tcpv4 = std::num::NonZeroUsize::new(usize::from(u16::MAX));
        }
        caps
    }
}

/// A packet from the guest.
pub(crate) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A packet to the guest.
pub(crate) struct Sending<'a> {
    outbox: &'a mut Outbox,
    meta: PacketMeta,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = self.outbox.begin(ETHERNET_HEADER + length, ETHERTYPE_IPV4);
        let result = f(&mut frame[ETHERNET_HEADER..]);
        self.outbox.push_segment(frame, self.meta);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}
