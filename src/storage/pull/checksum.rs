//! Checksums and the files that publish them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256, Sha512};

/// A published checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Checksum::Sha256(bytes) => write!(f, "sha256:{}", hex::encode(bytes)),
            Checksum::Sha512(bytes) => write!(f, "sha512:{}", hex::encode(bytes)),
        }
    }
}

impl FromStr for Checksum {
    type Err = String;

    /// Hexadecimal digits, with or without `sha256:` or `sha512:` before them.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").or(text.strip_prefix("sha512:")).unwrap_or(text);
        let bytes = hex::decode(digits).map_err(|_| format!("\"{text}\" is not a checksum in hexadecimal digits"))?;
        let checksum = match bytes.len() {
            32 => bytes.try_into().ok().map(Checksum::Sha256),
            64 => bytes.try_into().ok().map(Checksum::Sha512),
            _ => None,
        };
        checksum
            .filter(|checksum| !text.contains(':') || checksum.to_string().starts_with(&text[..7]))
            .ok_or_else(|| format!("\"{text}\" is no SHA-256 or SHA-512 checksum"))
    }
}

impl Checksum {
    /// The checksum of a file, of the same kind as `self`.
    pub fn of_file(&self, path: &Path) -> io::Result<Checksum> {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::like(Some(self));
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
    }
}

/// Computes a checksum of either kind.
#[derive(Clone)]
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// For comparing with `checksum`; SHA-256 without one.
    pub fn like(checksum: Option<&Checksum>) -> Self {
        match checksum {
            Some(Checksum::Sha512(_)) => Hasher::Sha512(Sha512::new()),
            _ => Hasher::Sha256(Sha256::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Checksum {
        match self {
            Hasher::Sha256(hasher) => Checksum::Sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Checksum::Sha512(hasher.finalize().into()),
        }
    }
}

/// Read a file of checksums: `HEX  name`, `HEX *name` (coreutils), `SHA256 (name) = HEX` (BSD), or one bare `HEX` (the
/// name is then empty). Other lines, such as comments and signatures, are passed over.
pub fn parse_manifest(text: &str) -> Vec<(String, Checksum)> {
    text.lines().filter_map(|line| parse_line(line.trim())).collect()
}

fn parse_line(line: &str) -> Option<(String, Checksum)> {
    let (name, digits) = if let Some(rest) = line.strip_prefix("SHA256 (").or(line.strip_prefix("SHA512 (")) {
        let (name, digits) = rest.rsplit_once(") = ")?;
        (name, digits)
    } else {
        match line.split_once(char::is_whitespace) {
            Some((digits, name)) => (name.trim_start().trim_start_matches('*'), digits),
            None => ("", line),
        }
    };
    let name = name.strip_prefix("./").unwrap_or(name);
    // The name becomes part of an address and of a path.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    if !name.chars().all(plain) || name.starts_with('.') {
        return None;
    }
    Some((name.into(), digits.parse().ok()?))
}
