//! On which machine an instance runs: this one, or an emulated host.

use std::path::{Path, PathBuf};

use super::args::LaunchArgs;
use super::error::{CliError, exit};
use super::parse::Publish;
use crate::emulate::{NotUsable, kvm_usable};
use crate::host::emulated;
use crate::host::process::Way;
use crate::host::spec::PortForward;
use crate::region::Region;
use crate::region::paths::Paths;

/// This machine's KVM, or with `emulate` an emulated host; never the one for the other in silence.
pub fn choose(emulate: bool, paths: &Paths) -> Result<Way, CliError> {
    if emulate {
        let tools = emulated::Tools::find(paths.data(), paths.emulate_state())
            .map_err(|e| CliError::from_error(exit::ENVIRONMENT, &e))?;
        return Ok(Way::Emulated(Box::new(tools)));
    }
    kvm_usable().map_err(|e| no_kvm(&e))?;
    Ok(Way::Native)
}

fn no_kvm(why: &NotUsable) -> CliError {
    let error = CliError::from_error(exit::ENVIRONMENT, why);
    let error = CliError { what: format!("this machine has no usable KVM: {}", error.what), ..error };
    error.next("the same command with --emulate (slow); amiable doctor tells more")
}

impl From<Publish> for PortForward {
    fn from(publish: Publish) -> Self {
        PortForward { host: publish.host, guest_port: publish.guest_port, udp: publish.udp }
    }
}

/// A file that must be there.
pub fn existing_file(path: &Path) -> Result<PathBuf, CliError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => std::path::absolute(path).map_err(|e| CliError::from_error(exit::OTHER, &e)),
        Ok(_) => Err(CliError::new(exit::USAGE, format!("{} is not a file", path.display()))),
        Err(e) => Err(CliError::new(exit::USAGE, format!("can't read {}: {e}", path.display()))),
    }
}

/// The line of an OpenSSH public key file.
pub fn read_public_key(path: &Path) -> Result<String, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| CliError::new(exit::USAGE, format!("can't read the public key {}: {e}", path.display())))?;
    let line = text.lines().next().unwrap_or_default().trim();
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let known = kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
    if !known || words.next().is_none_or(|blob| !blob.starts_with("AAAA")) {
        let what = format!("{} is not an OpenSSH public key", path.display());
        return Err(CliError::new(exit::USAGE, what).next("give the .pub file: --ssh-key ~/.ssh/id_ed25519.pub"));
    }
    Ok(line.to_owned())
}

/// What a key is known by: the comment at the end of its line.
fn key_name(line: &str) -> String {
    line.splitn(3, ' ').nth(2).filter(|comment| !comment.is_empty()).unwrap_or("key").replace('=', "-")
}

/// The name and the line of the public key that a launch asks for.
pub fn key(region: &mut Region, args: &LaunchArgs, default: bool) -> Result<Option<(String, String)>, CliError> {
    if let Some(file) = &args.ssh_key {
        let line = read_public_key(file)?;
        return Ok(Some((key_name(&line), line)));
    }
    let pair = match &args.key_name {
        Some(name) => region.key_pair(name),
        None if default && !args.no_key => region.default_key_pair(),
        None => return Ok(None),
    };
    let pair = pair.map_err(|e| super::region_error(&e))?;
    Ok(Some((pair.key_name, pair.public_key)))
}
