//! The local region: every EC2 action, its transactions and its store.

#![forbid(unsafe_code)]

mod attachments;
pub mod capacity;
pub mod error;
mod filters;
mod folding;
mod images;
mod images_made;
mod instances;
pub mod keys;
mod launch;
pub mod leftovers;
mod lifecycle;
pub mod lock;
pub mod model;
pub mod paths;
pub mod process;
mod prune;
mod security_groups;
mod snapshots;
mod specification;
mod step;
pub mod store;
mod store_open;
mod tagging;
mod volumes;

pub use images::ImportRequest;
pub use launch::{LaunchParameters, LaunchRequest, MOST_INSTANCES, Pending, VolumeRequest};
pub use lifecycle::{Modification, user_initiated};
pub use tagging::{Resource, TagChange};

use self::error::RegionError;
use self::paths::Paths;
use self::store::Store;

/// A local region: its files and its store.
#[derive(Debug)]
pub struct Region {
    paths: Paths,
    store: Store,
    /// The records could not be brought up to date: see [`Region::reconcile`].
    behind: bool,
}

impl Region {
    /// Open the region whose files are under `paths`, made if it is not there.
    pub fn open(paths: Paths) -> Result<Self, RegionError> {
        let store = Store::open(&paths.store())?;
        Ok(Region { paths, store, behind: false })
    }

    /// Where the region's files are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }
}

/// The time in EC2's form: `2026-11-20T22:25:12Z`.
fn now() -> String {
    time_text(jiff::Timestamp::now())
}

fn time_text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
