//! Where a region keeps its files.
//!
//! All under `AMIABLE_HOME` if that is set; else by the XDG Base Directory Specification: images and volumes under the
//! data directory, the store and the instances' logs under the state directory, unpacked kernels under the cache.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

/// The directories of a region. They are made when something is first put into them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    data: PathBuf,
    state: PathBuf,
    cache: PathBuf,
}

impl Paths {
    /// By the environment: `AMIABLE_HOME`, else the XDG variables, else their defaults under the home directory.
    pub fn from_env() -> Result<Self, NoHome> {
        if let Some(home) = std::env::var_os("AMIABLE_HOME").filter(|h| !h.is_empty()) {
            return Ok(Self::under(Path::new(&home)));
        }
        let xdg = etcetera::choose_base_strategy().map_err(|_| NoHome)?;
        Ok(Paths {
            data: xdg.data_dir().join("amiable"),
            state: xdg.state_dir().ok_or(NoHome)?.join("amiable"),
            cache: xdg.cache_dir().join("amiable"),
        })
    }

    /// Everything under one directory.
    pub fn under(home: &Path) -> Self {
        Paths { data: home.join("data"), state: home.join("state"), cache: home.join("cache") }
    }

    /// The SQLite database.
    pub fn store(&self) -> PathBuf {
        self.state.join("region.sqlite3")
    }

    /// A folder for each image, with its `disk.raw`.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The blocks of one image.
    pub fn image_disk(&self, image_id: &str) -> PathBuf {
        self.images().join(image_id).join("disk.raw")
    }

    /// The files of all volumes.
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// A folder for each instance's records.
    pub fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }

    /// The records of one instance: console, metadata requests, events, logs fetched from its volume.
    pub fn instance(&self, instance_id: &str) -> PathBuf {
        self.instances().join(instance_id)
    }

    /// The socket of an instance's process.
    pub fn control(&self, instance_id: &str) -> PathBuf {
        self.instance(instance_id).join("control")
    }

    /// The file that an instance's process holds locked as long as it lives.
    pub fn lock(&self, instance_id: &str) -> PathBuf {
        self.instance(instance_id).join("lock")
    }

    /// What an instance's process has to say that is not the guest's: a panic, for one.
    pub fn process_log(&self, instance_id: &str) -> PathBuf {
        self.instance(instance_id).join("process.log")
    }

    /// The private key of a key pair that was made here.
    pub fn private_key(&self, name: &str) -> PathBuf {
        self.state.join("keys").join(name)
    }

    /// The keys that sign instance identity documents.
    pub fn identity_keys(&self) -> PathBuf {
        self.state.join("identity")
    }

    /// Unpacked kernels and initial RAM disks, by content.
    pub fn boot_cache(&self) -> PathBuf {
        self.cache.join("boot")
    }

    /// The records of an instance that was deleted after its user-data failed.
    pub fn kept_logs(&self, instance_id: &str) -> PathBuf {
        self.state.join("failed").join(instance_id)
    }

    /// Downloads on their way.
    pub fn downloads(&self) -> PathBuf {
        self.cache.join("downloads")
    }

    /// Kernel and modules of the emulated host.
    pub fn emulated_host(&self) -> PathBuf {
        self.cache.join("emulated-host")
    }

    /// The socket, lock and log of the emulated host that stays up.
    pub fn emulate_state(&self) -> PathBuf {
        self.state.join("emulate")
    }

    /// The directory for the store and the instances' records.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory for images and volumes, for a look at its free space.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// There is no home directory to keep anything in.
#[derive(Debug, thiserror::Error)]
#[error("no home directory: neither AMIABLE_HOME nor HOME is set")]
pub struct NoHome;
