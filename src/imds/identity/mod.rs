//! The instance identity document and its signatures.
//!
//! The document is the same bytes for the life of the metadata. It is signed in the three ways of EC2, by keys of this
//! installation instead of Amazon's: who verifies documents here uses [`IdentityKeys::rsa_certificate`] and
//! [`IdentityKeys::dsa_certificate`] in place of AWS's published certificates. See the EC2 User Guide, "Verify the
//! instance identity document".

mod keys;
mod pkcs7;
mod x509;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use keys::{IdentityKeys, KeyError};

use super::metadata::Metadata;

/// Gives the keys when they are needed, so that making them (which takes a second) can be put off or happen in another
/// thread. It may wait for that, as long as a guest's request may wait; or answer `None` for "not now": the metadata
/// then has no signatures.
pub type KeyProvider = Arc<dyn Fn() -> Option<Arc<IdentityKeys>> + Send + Sync>;

/// The ways in which the document is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `pkcs7`: PKCS #7 with SHA-1 and DSA; the document is in it.
    Pkcs7,
    /// `rsa2048`: PKCS #7 with SHA-256 and RSA-2048; the document is in it.
    Rsa2048,
    /// `signature`: RSA (PKCS #1 v1.5) over the SHA-256 digest.
    Signature,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pkcs7, Self::Rsa2048, Self::Signature];

    /// Its name in `dynamic/instance-identity/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pkcs7 => "pkcs7",
            Self::Rsa2048 => "rsa2048",
            Self::Signature => "signature",
        }
    }

    /// The signature of a document in base64, as the service shows it: without BEGIN and END lines. `time` is when it
    /// is said to be signed, in seconds since 1970.
    ///
    /// # Errors
    /// If the keys can't sign, which those of [`IdentityKeys::generate`] can.
    pub fn sign(self, keys: &IdentityKeys, document: &[u8], time: i64) -> Result<String, KeyError> {
        let (bytes, width) = match self {
            Self::Pkcs7 => (pkcs7::signed_data(&keys.dsa_signer(), document, time)?, 64),
            Self::Rsa2048 => (pkcs7::signed_data(&keys.rsa_signer(), document, time)?, 64),
            Self::Signature => (keys.rsa_sign(document)?, 76),
        };
        let text = STANDARD.encode(bytes);
        let lines: Vec<&str> =
            (0..text.len()).step_by(width).filter_map(|at| text.get(at..text.len().min(at + width))).collect();
        Ok(lines.join("\n"))
    }
}

/// The instance identity document.
pub fn document(of: &Metadata) -> String {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let address = of.network_interfaces.first().and_then(|interface| interface.private_ipv4s.first());
    let null = || "null".to_owned();
    let fields = [
        ("accountId", text(&of.account_id)),
        ("architecture", text(&of.architecture)),
        ("availabilityZone", text(&of.placement.availability_zone)),
        ("billingProducts", null()),
        ("devpayProductCodes", null()),
        ("marketplaceProductCodes", null()),
        ("imageId", text(&of.image_id)),
        ("instanceId", text(&of.instance_id)),
        ("instanceType", text(&of.instance_type)),
        ("kernelId", null()),
        ("pendingTime", text(&iso_time(of.launch_time))),
        ("privateIp", address.map_or_else(null, |address| text(&address.to_string()))),
        ("ramdiskId", null()),
        ("region", text(&of.placement.region)),
        ("version", text("2017-09-30")),
    ];
    let lines: Vec<String> = fields.iter().map(|(name, value)| format!("  \"{name}\" : {value}")).collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

/// `2026-11-20T22:25:12Z`
fn iso_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
