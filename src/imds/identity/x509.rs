//! Self-signed certificates (RFC 5280) and what signs.

use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{Any, BitString, GeneralizedTime, Null, ObjectIdentifier, UtcTime};
use x509_cert::der::{DateTime, Decode as _, Encode as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use super::KeyError;

/// id-sha1 (RFC 3279)
pub(super) const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// id-sha256 (RFC 5754)
pub(super) const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// rsaEncryption (RFC 8017)
pub(super) const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// sha256WithRSAEncryption (RFC 8017)
pub(super) const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
/// id-dsa-with-sha1 (RFC 3279)
pub(super) const DSA_WITH_SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10040.4.3");

/// A function that signs a message.
pub(super) type Sign<'a> = dyn Fn(&[u8]) -> Result<Vec<u8>, KeyError> + 'a;

/// A key with its certificate and the names of its algorithms.
pub(super) struct Signer<'a> {
    pub(super) certificate: &'a Certificate,
    pub(super) digest: ObjectIdentifier,
    pub(super) digest_of: fn(&[u8]) -> Vec<u8>,
    pub(super) algorithm: ObjectIdentifier,
    pub(super) sign: Box<Sign<'a>>,
}

/// The algorithm of this id. RSA's and the digests' want a NULL parameter, DSA's signatures none.
pub(super) fn algorithm(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    let parameters = (oid != DSA_WITH_SHA1).then(|| Any::from(Null));
    AlgorithmIdentifierOwned { oid, parameters }
}

/// A certificate for a public key (as SubjectPublicKeyInfo), signed by its own private key.
pub(super) fn self_signed(
    serial: &[u8; 16],
    public_key: &[u8],
    oid: ObjectIdentifier,
    sign: &Sign<'_>,
) -> Result<Certificate, KeyError> {
    let mut serial = *serial;
    // Positive and without leading zeros, whatever the random bytes are.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let name: Name = "CN=amiable instance identity,O=amiable".parse()?;
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&serial)?,
        signature: algorithm(oid),
        issuer: name.clone(),
        // From 2020 on, so that no host's clock is too early, and without an end that would break old set-ups.
        validity: Validity {
            not_before: Time::UtcTime(UtcTime::from_date_time(DateTime::new(2020, 1, 1, 0, 0, 0)?)?),
            not_after: Time::GeneralTime(GeneralizedTime::from_date_time(DateTime::new(2199, 12, 31, 23, 59, 59)?)),
        },
        subject: name,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(public_key)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: None,
    };
    let signature = BitString::from_bytes(&sign(&tbs_certificate.to_der()?)?)?;
    Ok(Certificate { tbs_certificate, signature_algorithm: algorithm(oid), signature })
}
