//! DNS messages (RFC 1035) and the names that are answered without asking anybody.
//!
//! A query's question is parsed strictly: one question, no compression, names of at most 255 bytes. Everything else of
//! the message stays opaque.

use std::net::Ipv4Addr;

use super::config::NetConfig;
use super::wire::be16;

pub(crate) const HEADER: usize = 12;
const TTL: u32 = 60;
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;
const IN: u16 = 1;
const ANY: u16 = 255;
const QR: u16 = 0x8000;
const AA: u16 = 0x0400;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const FORMERR: u16 = 1;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;

/// The one question of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Lower case, without the final dot. Bytes that are not printable ASCII became `?`, so match nothing.
    pub name: String,
    pub kind: u16,
    pub class: u16,
    pub flags: u16,
    /// Where the question ends.
    pub end: usize,
    /// The number of records behind the question.
    pub other_records: u32,
}

impl Question {
    /// The question of a query or a reply.
    pub fn parse(message: &[u8]) -> Option<Question> {
        if be16(message, 4)? != 1 {
            return None;
        }
        let other_records = [6, 8, 10].iter().try_fold(0, |sum, &at| Some(sum + u32::from(be16(message, at)?)))?;
        let mut name = String::new();
        let mut at = HEADER;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            if length > 63 || at + length - HEADER > 254 {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            for &byte in message.get(at..at + length)? {
                // A dot inside a label is not a separator.
                let plain = byte.is_ascii_graphic() && byte != b'.';
                name.push(if plain { char::from(byte.to_ascii_lowercase()) } else { '?' });
            }
            at += length;
        }
        let (kind, class) = (be16(message, at)?, be16(message, at + 2)?);
        Some(Question { name, kind, class, flags: be16(message, 2)?, end: at + 4, other_records })
    }
}

/// What is to be done with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Ask an upstream resolver.
    Forward,
    /// Not a query at all.
    Drop,
}

/// Decide about a message of the guest's.
pub(crate) fn resolve(config: &NetConfig, query: &[u8]) -> Verdict {
    let Some(flags) = be16(query, 2) else { return Verdict::Drop };
    if query.len() < HEADER || flags & QR != 0 {
        return Verdict::Drop;
    }
    let Some(question) = Question::parse(query) else { return reply(query, HEADER, FORMERR, None) };
    if flags & 0x7800 != 0 {
        return reply(query, question.end, NOTIMP, None);
    }
    if !matches!(question.class, IN | ANY) {
        return Verdict::Forward;
    }
    match own(config, &question.name) {
        Own::Address(ip) => {
            let wanted = matches!(question.kind, A | ANY);
            reply(query, question.end, 0, wanted.then(|| (A, ip.octets().to_vec())))
        }
        Own::Pointer(name) => {
            let wanted = matches!(question.kind, PTR | ANY);
            reply(query, question.end, 0, wanted.then(|| (PTR, encode(&name))))
        }
        Own::Absent => reply(query, question.end, NXDOMAIN, None),
        // A name without a dot is no host on the Internet; but DNSSEC asks for keys of top-level domains.
        Own::No if matches!(question.kind, A | AAAA | HTTPS) && !question.name.contains('.') => {
            if question.name.is_empty() { Verdict::Forward } else { reply(query, question.end, NXDOMAIN, None) }
        }
        Own::No => Verdict::Forward,
    }
}

/// The answer if no resolver gives one.
pub(crate) fn server_failure(query: &[u8]) -> Vec<u8> {
    let end = Question::parse(query).map_or(HEADER, |question| question.end);
    match reply(query, end, SERVFAIL, None) {
        Verdict::Answer(message) => message,
        _ => Vec::new(),
    }
}

enum Own {
    Address(Ipv4Addr),
    Pointer(String),
    /// Certainly no such name.
    Absent,
    /// Not ours to say.
    No,
}

fn own(config: &NetConfig, name: &str) -> Own {
    if let Some((_, ip)) = config.names.iter().find(|(own, _)| own.trim_end_matches('.').eq_ignore_ascii_case(name)) {
        return Own::Address(*ip);
    }
    let domain = config.domain.trim_end_matches('.').to_ascii_lowercase();
    if let Some(host) = name.strip_suffix(&domain).and_then(|rest| rest.strip_suffix('.')) {
        return match private_name(host) {
            Some(ip) if config.in_subnet(ip) => Own::Address(ip),
            // EC2's own zones exist nowhere else; a person's domain may.
            _ if domain.ends_with(".internal") => Own::Absent,
            _ => Own::No,
        };
    }
    if name == "invalid" || name.ends_with(".invalid") || name == "instance-data" {
        return Own::Absent;
    }
    let Some(ip) = name.strip_suffix(".in-addr.arpa").and_then(reverse_address) else { return Own::No };
    if let Some((own, _)) = config.names.iter().find(|(_, address)| *address == ip) {
        return Own::Pointer(own.trim_end_matches('.').to_string());
    }
    if config.in_subnet(ip) {
        let [a, b, c, d] = ip.octets();
        return Own::Pointer(format!("ip-{a}-{b}-{c}-{d}.{domain}"));
    }
    if ip.is_link_local() { Own::Absent } else { Own::No }
}

/// `ip-10-0-0-5`.
fn private_name(host: &str) -> Option<Ipv4Addr> {
    numbers(host.strip_prefix("ip-")?, '-')
}

/// `5.0.0.10`, as in `5.0.0.10.in-addr.arpa`.
fn reverse_address(text: &str) -> Option<Ipv4Addr> {
    let [a, b, c, d] = numbers(text, '.')?.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

fn numbers(text: &str, separator: char) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split(separator);
    for octet in &mut octets {
        let part = parts.next()?;
        let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
        *octet = if plain { part.parse().ok()? } else { return None };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// A name in wire form. Labels that are too long are left out: names come from our own configuration.
fn encode(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| (1..=63).contains(&label.len())) {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// A reply that repeats the question (up to `end`) and carries at most one record for its name.
fn reply(query: &[u8], end: usize, code: u16, record: Option<(u16, Vec<u8>)>) -> Verdict {
    let (Some(head), Some(flags)) = (query.get(..end), be16(query, 2)) else { return Verdict::Drop };
    let mut message = head.to_vec();
    let has_question = end > HEADER;
    let authoritative = if code == 0 || code == NXDOMAIN { AA } else { 0 };
    // EDNS (RFC 6891) is answered where it is used, or clients take us for an old server.
    let edns = has_question && be16(query, 10) == Some(1) && query.get(end..end + 3) == Some(&[0, 0, 41]);
    let counts = [u16::from(has_question), u16::from(record.is_some()), 0, u16::from(edns)];
    message[2..4].copy_from_slice(&(QR | RA | authoritative | flags & (0x7800 | RD) | code).to_be_bytes());
    for (at, count) in [4, 6, 8, 10].into_iter().zip(counts) {
        message[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    if let Some((kind, data)) = record {
        message.extend_from_slice(&(0xc000u16 | HEADER as u16).to_be_bytes());
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&IN.to_be_bytes());
        message.extend_from_slice(&TTL.to_be_bytes());
        message.extend_from_slice(&(data.len() as u16).to_be_bytes());
        message.extend_from_slice(&data);
    }
    if edns {
        // The root, OPT, 4096 bytes, no flags, no data.
        message.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    }
    Verdict::Answer(message)
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
