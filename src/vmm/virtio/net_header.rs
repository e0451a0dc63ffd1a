//! `virtio_net_hdr`: what goes before each frame (VIRTIO 1.2 §5.1.6), and what it means for [`Offload`].
#![forbid(unsafe_code)]

use super::net::{F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_HOST_TSO4};
use crate::vmm::backend::{Frame, Offload, PartialChecksum};

/// Bytes of the header, with the number of buffers that modern devices always have.
pub const HEADER_SIZE: usize = 12;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
/// The segments carry ECN marks: no matter here.
const GSO_ECN: u8 = 0x80;

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// Read the header before a `frame` from the driver. `None`: it asks for what was not negotiated, or for what the frame
/// can't have.
pub fn parse(header: &[u8; HEADER_SIZE], frame: &[u8], features: u64) -> Option<Offload> {
    let [flags, gso_type, _, _, gso_low, gso_high, start_low, start_high, offset_low, offset_high, _, _] = *header;
    let mut offload = Offload::default();
    if flags & NEEDS_CSUM != 0 {
        let sum = PartialChecksum {
            start: u16::from_le_bytes([start_low, start_high]),
            offset: u16::from_le_bytes([offset_low, offset_high]),
        };
        if features & F_CSUM == 0 || !fits(sum, frame.len()) {
            return None;
        }
        offload.checksum = Some(sum);
    }
    match gso_type & !GSO_ECN {
        GSO_NONE => {}
        GSO_TCPV4 if features & F_HOST_TSO4 != 0 && offload.checksum.is_some() => {
            let size = u16::from_le_bytes([gso_low, gso_high]);
            offload.tcp_segment = Some(size).filter(|size| *size > 0);
            offload.tcp_segment?;
        }
        _ => return None,
    }
    Some(offload)
}

/// Write the header for a `frame` to the driver, and finish the checksum where the driver would not. `None`: the driver
/// did not agree to such a frame.
pub fn build(frame: &mut Frame, features: u64) -> Option<[u8; HEADER_SIZE]> {
    let Frame { bytes, offload } = frame;
    let mut header = [0; HEADER_SIZE];
    let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_le_bytes());
    let mut flags = 0;
    if let Some(size) = offload.tcp_segment {
        let sum = offload.checksum.filter(|sum| fits(*sum, bytes.len()))?;
        if features & F_GUEST_TSO4 == 0 || bytes.get(12..ETHERNET_HEADER) != Some(&ETHERTYPE_IPV4) {
            return None;
        }
        // The TCP header's length is in the upper half of its 13th byte, in words.
        let tcp_header = bytes.get(usize::from(sum.start) + 12).map_or(0, |byte| u16::from(byte >> 4) * 4);
        put(2, sum.start.saturating_add(tcp_header));
        put(4, size);
    }
    match offload.checksum {
        Some(sum) if features & F_GUEST_CSUM != 0 => {
            flags = NEEDS_CSUM;
            put(6, sum.start);
            put(8, sum.offset);
        }
        Some(sum) => {
            finish_checksum(bytes, sum)?;
            offload.checksum = None;
        }
        None if offload.checksum_valid && features & F_GUEST_CSUM != 0 => flags = DATA_VALID,
        None => {}
    }
    header[0] = flags;
    header[1] = if offload.tcp_segment.is_some() { GSO_TCPV4 } else { GSO_NONE };
    Some(header)
}

/// Say how many buffers the frame is spread over.
pub fn set_buffers(header: &mut [u8; HEADER_SIZE], count: u16) {
    header[10..].copy_from_slice(&count.to_le_bytes());
}

fn fits(sum: PartialChecksum, length: usize) -> bool {
    usize::from(sum.start) + usize::from(sum.offset) + 2 <= length
}

/// Sum the frame from `start` on, over the pseudo header's sum that is there, and store it.
fn finish_checksum(frame: &mut [u8], sum: PartialChecksum) -> Option<()> {
    if !fits(sum, frame.len()) {
        return None;
    }
    let covered = &mut frame[usize::from(sum.start)..];
    let (words, odd) = covered.as_chunks::<2>();
    let total: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>()
        + odd.first().map_or(0, |byte| u64::from(*byte) << 8);
    let mut folded = total;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    // UDP has no sum of 0: it means that there is none.
    let value = match !(folded as u16) {
        0 => 0xffff,
        value => value,
    };
    covered[usize::from(sum.offset)..][..2].copy_from_slice(&value.to_be_bytes());
    Some(())
}

#[cfg(test)]
#[path = "net_header_tests.rs"]
mod tests;
