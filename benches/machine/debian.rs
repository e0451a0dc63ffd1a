//! A one-line script on debian-12, from exec to the verdict: `amiable test`, and QEMU with a NoCloud seed.
use super::{Failure, figures::Figures, settings::Settings};
use std::path::Path;
pub fn measure(_: &Settings, _: &Path, _: &mut Figures) -> Result<(), Failure> {
    Ok(())
}
