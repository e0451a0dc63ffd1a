//! Reassembly of the guest's fragmented UDP and ICMP datagrams (RFC 791), bounded in number, size and time.
//!
//! Overlapping fragments discard the whole datagram: no honest sender makes them. TCP segments in fragments are dropped:
//! no sender with path MTU discovery makes them either.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::wire::{Ipv4, TCP};

/// Datagrams under way.
const DATAGRAMS: usize = 8;
/// Fragments of one datagram.
const FRAGMENTS: usize = 64;
/// The largest payload.
const LARGEST: usize = 65_515;
const PATIENCE: Duration = Duration::from_secs(15);

/// A datagram that is whole again.
pub(crate) struct Whole {
    /// Header and first bytes of the first fragment, for error messages.
    pub quote: Vec<u8>,
    pub payload: Vec<u8>,
}

struct Partial {
    destination: Ipv4Addr,
    protocol: u8,
    ident: u16,
    since: Instant,
    quote: Vec<u8>,
    bytes: Vec<u8>,
    /// Filled ranges.
    ranges: Vec<(usize, usize)>,
    total: Option<usize>,
}

/// All that is under way.
#[derive(Default)]
pub(crate) struct Fragments {
    partial: Vec<Partial>,
}

impl Fragments {
    /// Take a fragment; the datagram, if it was the last one missing.
    pub fn add(&mut self, packet: &Ipv4<'_>, now: Instant) -> Option<Whole> {
        self.partial.retain(|partial| now.saturating_duration_since(partial.since) < PATIENCE);
        let end = packet.offset + packet.payload.len();
        let ragged = packet.more_fragments && !packet.payload.len().is_multiple_of(8);
        if packet.protocol == TCP || packet.payload.is_empty() || end > LARGEST || ragged {
            return None;
        }
        let same =
            |p: &Partial| (p.destination, p.protocol, p.ident) == (packet.destination, packet.protocol, packet.ident);
        let index = match self.partial.iter().position(same) {
            Some(index) => index,
            None => {
                if self.partial.len() >= DATAGRAMS {
                    self.partial.remove(0);
                }
                self.partial.push(Partial {
                    destination: packet.destination,
                    protocol: packet.protocol,
                    ident: packet.ident,
                    since: now,
                    quote: Vec::new(),
                    bytes: Vec::new(),
                    ranges: Vec::new(),
                    total: None,
                });
                self.partial.len() - 1
            }
        };
        let partial = self.partial.get_mut(index)?;
        if partial.insert(packet, end).is_none() {
            self.partial.remove(index);
            return None;
        }
        let filled: usize = partial.ranges.iter().map(|(from, to)| to - from).sum();
        if partial.total != Some(filled) {
            return None;
        }
        let partial = self.partial.remove(index);
        Some(Whole { quote: partial.quote, payload: partial.bytes })
    }
}

impl Partial {
    fn insert(&mut self, packet: &Ipv4<'_>, end: usize) -> Option<()> {
        let start = packet.offset;
        let overlaps = self.ranges.iter().any(|&(from, to)| start < to && from < end);
        let beyond = self.total.is_some_and(|total| end > total);
        if overlaps || beyond || self.ranges.len() >= FRAGMENTS {
            return None;
        }
        if !packet.more_fragments {
            if self.total.is_some() || self.ranges.iter().any(|&(_, to)| to > end) {
                return None;
            }
            self.total = Some(end);
        }
        if start == 0 {
            self.quote = packet.packet.get(..packet.packet.len().min(68))?.to_vec();
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(start..end)?.copy_from_slice(packet.payload);
        self.ranges.push((start, end));
        Some(())
    }
}

#[cfg(test)]
#[path = "fragments_tests.rs"]
mod tests;
