//! IMDSv2 session tokens. Stateless: a token carries its expiry and a keyed hash over it, so that no number of token
//! requests costs memory. The key is made with the service: a token of another instance, or from before a stop, is
//! worth nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use sha2::{Digest, Sha256};

/// The longest life of a token, in seconds.
pub(super) const MAX_TTL: u32 = 21_600;
/// How EC2's tokens start, `AQAE`.
const MARK: [u8; 3] = [1, 0, 4];
/// Mark, one byte that is zero, expiry, nonce.
const BODY: usize = 20;
/// Bytes of the hash that a token carries.
const TAG: usize = 20;

/// Makes and checks the tokens of one instance.
pub(super) struct Tokens {
    key: [u8; 32],
}

impl Tokens {
    /// # Panics
    /// If the operating system has no randomness to give.
    pub(super) fn new() -> Self {
        Self { key: random() }
    }

    /// A token that is valid until `expiry`, in seconds since 1970.
    pub(super) fn mint(&self, expiry: i64) -> String {
        let nonce: [u8; 8] = random();
        let mut token = [0u8; BODY + TAG];
        let (body, tag) = token.split_at_mut(BODY);
        body[..3].copy_from_slice(&MARK);
        body[4..12].copy_from_slice(&expiry.to_be_bytes());
        body[12..20].copy_from_slice(&nonce);
        tag.copy_from_slice(&hmac_sha256(&self.key, body)[..TAG]);
        URL_SAFE.encode(token)
    }

    /// The seconds that a token has left at `now`; `None` if it is none of ours, or expired.
    pub(super) fn remaining(&self, token: &[u8], now: i64) -> Option<u32> {
        // Longer text can't be a token: don't decode what a guest makes up.
        if token.len() != 56 {
            return None;
        }
        let token: [u8; BODY + TAG] = URL_SAFE.decode(token).ok()?.try_into().ok()?;
        let (body, tag) = token.split_at(BODY);
        let expected = hmac_sha256(&self.key, body);
        // No early end: the time must not tell how many bytes were right.
        let difference = expected.iter().zip(tag).fold(0, |sum, (a, b)| sum | (a ^ b));
        if difference != 0 {
            return None;
        }
        let expiry = i64::from_be_bytes(body.get(4..12)?.try_into().ok()?);
        let left = expiry.checked_sub(now).filter(|left| *left > 0)?;
        u32::try_from(left).ok().map(|left| left.min(MAX_TTL))
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("the operating system's random number generator works");
    bytes
}

/// HMAC (RFC 2104) with SHA-256, for keys of up to 64 bytes.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
