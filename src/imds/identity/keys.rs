//! The keys of an installation: RSA-2048 and DSA-1024, each with a self-signed certificate.

use dsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use rsa::pkcs1v15;
use rsa::pkcs8::LineEnding;
use rsa::rand_core::{CryptoRng, Error as RandomError, RngCore};
use rsa::signature::hazmat::PrehashSigner as _;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::{DecodePem as _, EncodePem as _};

use super::x509::{self, Signer};

/// Bits of the RSA key, as the name of `rsa2048` says.
const RSA_BITS: usize = 2048;

// DSA domain parameters of 1024 and 160 bits, as AWS's certificates for `pkcs7` have (FIPS 186-4 §4.3: they are public
// and may be shared). They were made with `openssl genpkey -genparam -algorithm DSA`; making new ones takes seconds.
const P: &str = "82c12a4e2720bb3b47c82561368f0d79a1ba2b169d12ac3c814ce8d96e7492e4159228a1ffa435551d1ee824b0b0e409\
    2aa0e7529263ad437f0bdbd4ee29cf566a11398529f532f04790bf54be4def682d2e473e1e611251de04d2554b62e4d1\
    511612cd0631299f15ece36de1327484b7d017c4dc580c87e36bd8e494b86d5f";
const Q: &str = "b378485d89cab748a649e034240cf037e7b09b95";
const G: &str = "03ad795d7731e99473ea1875b91cbc098403d2f6586b61ee3b3e3a24e1e772786988237d3204e6d5af5d1b28a723bfac\
    72e1a8018f1e943d44ba42f8139486ea3fd4205b27ac7192bc3c83d6aa6fe1a0c40d2a837157eae9df8d80df168ca3e5\
    0e2dd0be21affd0c51d492f239dd946d4061bd8e049ab058eb1a705bc0876c55";

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The RSA key can't be made, read or used.
    #[error("RSA key: {0}")]
    Rsa(#[from] rsa::Error),
    /// A key is not in PKCS #8 form.
    #[error("private key: {0}")]
    Pkcs8(#[from] rsa::pkcs8::Error),
    /// A public key does not encode.
    #[error("public key: {0}")]
    Spki(#[from] x509_cert::spki::Error),
    /// Signing failed.
    #[error("signature: {0}")]
    Signature(#[from] rsa::signature::Error),
    /// A certificate or PKCS #7 structure does not encode or decode.
    #[error("certificate: {0}")]
    Der(#[from] x509_cert::der::Error),
    /// The text does not hold two keys and two certificates.
    #[error("identity keys: expected two private keys and two certificates in PEM, in the order of to_pem")]
    Incomplete,
}

/// The keys that sign instance identity documents.
pub struct IdentityKeys {
    rsa: pkcs1v15::SigningKey<Sha256>,
    rsa_key: rsa::RsaPrivateKey,
    rsa_certificate: Certificate,
    dsa: dsa::SigningKey,
    dsa_certificate: Certificate,
}

impl std::fmt::Debug for IdentityKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityKeys").finish_non_exhaustive()
    }
}

impl IdentityKeys {
    /// New keys. It takes up to a few seconds: do it once, and keep [`to_pem`](Self::to_pem).
    ///
    /// # Errors
    /// None that is known; the libraries may have some.
    pub fn generate() -> Result<Self, KeyError> {
        let rsa_key = rsa::RsaPrivateKey::new(&mut SystemRandom, RSA_BITS)?;
        let number = |digits: &str| dsa::BigUint::parse_bytes(digits.as_bytes(), 16).unwrap_or_default();
        let components = dsa::Components::from_components(number(P), number(Q), number(G))?;
        let dsa = dsa::SigningKey::generate(&mut SystemRandom, components);
        let rsa = pkcs1v15::SigningKey::<Sha256>::new(rsa_key.clone());
        let rsa_public = rsa_key.to_public_key().to_public_key_der()?;
        let dsa_public = dsa.verifying_key().to_public_key_der()?;
        let (mut serial, mut serial2) = ([0u8; 16], [0u8; 16]);
        SystemRandom.fill_bytes(&mut serial);
        SystemRandom.fill_bytes(&mut serial2);
        let rsa_certificate =
            x509::self_signed(&serial, rsa_public.as_bytes(), x509::SHA256_WITH_RSA, &|bytes| rsa_sign(&rsa, bytes))?;
        let dsa_certificate =
            x509::self_signed(&serial2, dsa_public.as_bytes(), x509::DSA_WITH_SHA1, &|bytes| dsa_sign(&dsa, bytes))?;
        Ok(Self { rsa, rsa_key, rsa_certificate, dsa, dsa_certificate })
    }

    /// Keys and certificates as PEM: a secret, to be kept in a file that only its owner reads.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        Ok([
            self.rsa_key.to_pkcs8_pem(LineEnding::LF)?.as_str(),
            &self.rsa_certificate()?,
            self.dsa.to_pkcs8_pem(LineEnding::LF)?.as_str(),
            &self.dsa_certificate()?,
        ]
        .concat())
    }

    /// The keys that [`to_pem`](Self::to_pem) gave.
    ///
    /// # Errors
    /// If the text is not that.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        const BEGIN: &str = "-----BEGIN ";
        let blocks: Vec<String> = text.split(BEGIN).skip(1).map(|block| format!("{BEGIN}{block}")).collect();
        let [rsa_key, rsa_certificate, dsa_key, dsa_certificate] = blocks.as_slice() else {
            return Err(KeyError::Incomplete);
        };
        let rsa_key = rsa::RsaPrivateKey::from_pkcs8_pem(rsa_key)?;
        Ok(Self {
            rsa: pkcs1v15::SigningKey::new(rsa_key.clone()),
            rsa_key,
            rsa_certificate: Certificate::from_pem(rsa_certificate)?,
            dsa: dsa::SigningKey::from_pkcs8_pem(dsa_key)?,
            dsa_certificate: Certificate::from_pem(dsa_certificate)?,
        })
    }

    /// The certificate that verifies `signature` and `rsa2048`, as PEM.
    ///
    /// # Errors
    /// None that is known.
    pub fn rsa_certificate(&self) -> Result<String, KeyError> {
        Ok(self.rsa_certificate.to_pem(LineEnding::LF)?)
    }

    /// The certificate that verifies `pkcs7`, as PEM.
    ///
    /// # Errors
    /// None that is known.
    pub fn dsa_certificate(&self) -> Result<String, KeyError> {
        Ok(self.dsa_certificate.to_pem(LineEnding::LF)?)
    }

    /// An RSA signature (PKCS #1 v1.5) over the SHA-256 digest.
    pub(super) fn rsa_sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        rsa_sign(&self.rsa, message)
    }

    pub(super) fn rsa_signer(&self) -> Signer<'_> {
        Signer {
            certificate: &self.rsa_certificate,
            digest: x509::SHA256,
            digest_of: |message| Sha256::digest(message).to_vec(),
            algorithm: x509::RSA_ENCRYPTION,
            sign: Box::new(|message| rsa_sign(&self.rsa, message)),
        }
    }

    pub(super) fn dsa_signer(&self) -> Signer<'_> {
        Signer {
            certificate: &self.dsa_certificate,
            digest: x509::SHA1,
            digest_of: |message| Sha1::digest(message).to_vec(),
            algorithm: x509::DSA_WITH_SHA1,
            sign: Box::new(|message| dsa_sign(&self.dsa, message)),
        }
    }

    #[cfg(test)]
    pub(super) fn public_keys(&self) -> (pkcs1v15::VerifyingKey<Sha256>, dsa::VerifyingKey) {
        (pkcs1v15::VerifyingKey::new(self.rsa_key.to_public_key()), self.dsa.verifying_key().clone())
    }
}

fn rsa_sign(key: &pkcs1v15::SigningKey<Sha256>, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    Ok(key.try_sign(message)?.to_vec())
}

fn dsa_sign(key: &dsa::SigningKey, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    Ok(key.sign_prehash(&Sha1::digest(message))?.to_vec())
}

/// The operating system's random numbers, for libraries of the `rand_core` 0.6 generation.
struct SystemRandom;

impl RngCore for SystemRandom {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system's random number generator works");
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for SystemRandom {}
