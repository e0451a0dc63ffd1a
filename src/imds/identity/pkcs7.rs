//! PKCS #7 / CMS SignedData (RFC 5652 §5) with the content in it and without certificates, as EC2's.

use std::time::Duration;

use cms::cert::IssuerAndSerialNumber;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos};
use x509_cert::attr::Attribute;
use x509_cert::der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec, UtcTime};
use x509_cert::der::{Decode as _, Encode as _};

use super::KeyError;
use super::x509::{Signer, algorithm};

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");

/// `content` signed at `time` (seconds since 1970), in DER.
pub(super) fn signed_data(signer: &Signer<'_>, content: &[u8], time: i64) -> Result<Vec<u8>, KeyError> {
    let time = Duration::from_secs(u64::try_from(time).unwrap_or_default());
    let signed_attrs = SetOfVec::try_from(vec![
        attribute(CONTENT_TYPE, &DATA)?,
        attribute(SIGNING_TIME, &UtcTime::from_unix_duration(time)?)?,
        attribute(MESSAGE_DIGEST, &OctetString::new((signer.digest_of)(content))?)?,
    ])?;
    // What is signed is the SET OF the attributes, not their implicitly tagged form in the message (§5.4).
    let signature = (signer.sign)(&signed_attrs.to_der()?)?;
    let certificate = &signer.certificate.tbs_certificate;
    let signer_info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: certificate.issuer.clone(),
            serial_number: certificate.serial_number.clone(),
        }),
        digest_alg: algorithm(signer.digest),
        signed_attrs: Some(signed_attrs),
        signature_algorithm: algorithm(signer.algorithm),
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let signed_data = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: vec![algorithm(signer.digest)].try_into()?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: DATA,
            econtent: Some(any(&OctetString::new(content)?)?),
        },
        certificates: None,
        crls: None,
        signer_infos: SignerInfos::try_from(vec![signer_info])?,
    };
    Ok(ContentInfo { content_type: SIGNED_DATA, content: any(&signed_data)? }.to_der()?)
}

fn any(value: &impl x509_cert::der::Encode) -> Result<Any, KeyError> {
    Ok(Any::from_der(&value.to_der()?)?)
}

fn attribute(oid: ObjectIdentifier, value: &impl x509_cert::der::Encode) -> Result<Attribute, KeyError> {
    Ok(Attribute { oid, values: SetOfVec::try_from(vec![any(value)?])? })
}
