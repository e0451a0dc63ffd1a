//! Key pairs. The public halves are in the store; private halves that were made here are files that only this user can read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey};

use super::error::RegionError;
use super::{Region, now};
use crate::ec2::Ec2Error;
use crate::ec2::ids::IdKind;

/// The key pair that instances get when none is named, so that `ssh` works at once.
pub const DEFAULT_KEY: &str = "amiable";

/// A key pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyPair {
    /// `key-…`
    pub key_pair_id: String,
    /// Unique in the region.
    pub key_name: String,
    /// SHA-256 of the public key, as `ssh-keygen -l` shows it.
    pub key_fingerprint: String,
    /// `ed25519`, `rsa`, …
    pub key_type: String,
    /// ISO 8601.
    pub create_time: String,
    /// The public key, a line.
    pub public_key: String,
}

impl Region {
    /// Make a key pair. Its private key is at [`Self::private_key`].
    ///
    /// # Errors
    /// `InvalidKeyPair.Duplicate`; a name that can't be a file's.
    pub fn create_key_pair(&mut self, name: &str) -> Result<KeyPair, RegionError> {
        check_name(name)?;
        let made = |e: ssh_key::Error| RegionError::Other(format!("can't make a key pair: {e}"));
        let mut private = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(made)?;
        private.set_comment(name);
        let text = private.to_openssh(LineEnding::LF).map_err(made)?;
        let pair = key_pair(name, private.public_key())?;
        let path = self.paths.private_key(name);
        let file = |action| {
            let path = path.display().to_string();
            move |source| RegionError::File { action, path, source }
        };
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(file("make the directory of"))?;
        }
        self.store.transaction(|tables| -> Result<(), RegionError> {
            if tables.key_pair::<KeyPair>(name)?.is_some() {
                return Err(Ec2Error::key_pair_duplicate(name).into());
            }
            tables.put_key_pair(name, &pair)?;
            // Inside the transaction: a key pair whose private key could not be written is none. What an interrupted attempt
            // left is nobody's.
            let mut written = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
                .map_err(file("write"))?;
            written.write_all(text.as_bytes()).and_then(|()| written.sync_all()).map_err(file("write"))
        })?;
        Ok(pair)
    }

    /// Take over a public key.
    ///
    /// # Errors
    /// `InvalidKeyPair.Duplicate`, `InvalidKey.Format`.
    pub fn import_key_pair(&mut self, name: &str, line: &str) -> Result<KeyPair, RegionError> {
        check_name(name)?;
        let public = PublicKey::from_openssh(line.trim()).map_err(|_| Ec2Error::key_format())?;
        let pair = key_pair(name, &public)?;
        self.store.transaction(|tables| -> Result<(), RegionError> {
            if tables.key_pair::<KeyPair>(name)?.is_some() {
                return Err(Ec2Error::key_pair_duplicate(name).into());
            }
            Ok(tables.put_key_pair(name, &pair)?)
        })?;
        Ok(pair)
    }

    /// All key pairs by name.
    pub fn key_pairs(&self) -> Result<Vec<KeyPair>, RegionError> {
        Ok(self.store.tables().key_pairs()?)
    }

    /// The key pair of this name.
    ///
    /// # Errors
    /// `InvalidKeyPair.NotFound`.
    pub fn key_pair(&self, name: &str) -> Result<KeyPair, RegionError> {
        Ok(self.store.tables().key_pair(name)?.ok_or_else(|| Ec2Error::key_pair_not_found(name))?)
    }

    /// The key pair that instances get when none is named, made when it is first needed.
    pub fn default_key_pair(&mut self) -> Result<KeyPair, RegionError> {
        if let Some(pair) = self.store.tables().key_pair(DEFAULT_KEY)? {
            return Ok(pair);
        }
        match self.create_key_pair(DEFAULT_KEY) {
            // Another command was quicker.
            Err(error) if error.code() == Some("InvalidKeyPair.Duplicate") => self.key_pair(DEFAULT_KEY),
            other => other,
        }
    }

    /// The private key of a pair that was made here.
    pub fn private_key(&self, name: &str) -> Option<PathBuf> {
        check_name(name).ok()?;
        Some(self.paths.private_key(name)).filter(|path| path.is_file())
    }

    /// Forget a key pair, with its private key. Instances that have it keep it.
    pub fn delete_key_pair(&mut self, name: &str) -> Result<(), RegionError> {
        self.key_pair(name)?;
        let path = self.paths.private_key(name);
        self.store.tables().remove_key_pair(name)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RegionError::File { action: "remove", path: path.display().to_string(), source })
            }
            _ => Ok(()),
        }
    }
}

fn key_pair(name: &str, public: &PublicKey) -> Result<KeyPair, RegionError> {
    let algorithm = public.algorithm();
    let kind = algorithm.as_str().trim_start_matches("ssh-").to_owned();
    Ok(KeyPair {
        key_pair_id: IdKind::KeyPair.generate(),
        key_name: name.to_owned(),
        key_fingerprint: public.fingerprint(HashAlg::Sha256).to_string(),
        key_type: kind,
        create_time: now(),
        public_key: public.to_openssh().map_err(|_| Ec2Error::key_format())?,
    })
}

/// Names are files here, and `=` would end them in the metadata.
fn check_name(name: &str) -> Result<(), Ec2Error> {
    let fits = (1..=100).contains(&name.len())
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-@ ".contains(c));
    if fits {
        return Ok(());
    }
    Err(Ec2Error::invalid_value_for(
        name,
        "keyName",
        "It has 1 to 100 letters, digits, spaces and ._-@, and does not begin with a dot.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::paths::Paths;

    #[test]
    fn key_pairs_are_made_imported_and_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let mut region = Region::open(Paths::under(home.path())).unwrap();
        let pair = region.default_key_pair().unwrap();
        assert_eq!(pair.key_type, "ed25519");
        assert_eq!(region.default_key_pair().unwrap().key_fingerprint, pair.key_fingerprint);
        let private = region.private_key(DEFAULT_KEY).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&private).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let read = PrivateKey::from_openssh(fs::read_to_string(&private).unwrap()).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap(), pair.public_key);

        let imported = region.import_key_pair("mine", &pair.public_key).unwrap();
        assert_eq!(imported.key_fingerprint, pair.key_fingerprint);
        assert!(region.private_key("mine").is_none());
        let code = |result: Result<KeyPair, RegionError>| result.unwrap_err().code();
        assert_eq!(code(region.import_key_pair("mine", &pair.public_key)), Some("InvalidKeyPair.Duplicate"));
        assert_eq!(code(region.import_key_pair("bad", "ssh-rsa nonsense")), Some("InvalidKey.Format"));
        assert_eq!(code(region.create_key_pair("../up")), Some("InvalidParameterValue"));
        region.delete_key_pair(DEFAULT_KEY).unwrap();
        assert!(!private.exists());
        assert_eq!(region.key_pairs().unwrap().len(), 1);
        assert_eq!(code(region.key_pair(DEFAULT_KEY)), Some("InvalidKeyPair.NotFound"));
    }
}
