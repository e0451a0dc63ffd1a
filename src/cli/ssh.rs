//! `ssh`, `cp` and `exec`: OpenSSH's own programs, told beforehand all that they would otherwise ask: the port, the key, the user, and
//! the guest's host keys, which cloud-init prints on the console.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{CliError, exit};
use super::instances::not_found;
use super::{open_region, region_error, security_groups};
use crate::ec2::Ec2Error;
use crate::host::console::plain_text;
use crate::host::record::CONSOLE_LOG;
use crate::region::Region;
use crate::region::model::{Instance, StateName};

/// What the guest told of its SSH server on its console.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Key types and keys.
    host_keys: Vec<String>,
    /// The user whom the key pair is for.
    user: Option<String>,
}

const BEGIN: &str = "-----BEGIN SSH HOST KEY KEYS-----";
const END: &str = "-----END SSH HOST KEY KEYS-----";

/// Read the console from its start: what was said last counts, for keys are made anew under a new instance id.
fn read_console(text: &[u8]) -> Told {
    let mut told = Told::default();
    let mut keys = None;
    for line in text.split(|byte| *byte == b'\n') {
        let line = plain_text(line);
        let line = line.trim();
        if line.ends_with(BEGIN) {
            keys = Some(Vec::new());
        } else if line.ends_with(END) {
            told.host_keys = keys.take().unwrap_or(told.host_keys);
        } else if let Some(keys) = &mut keys {
            let mut words = line.split_whitespace();
            if let (Some(kind), Some(key)) = (words.next(), words.next())
                && (kind.starts_with("ssh-") || kind.starts_with("ecdsa-"))
                && key.starts_with("AAAA")
                && keys.len() < 16
            {
                keys.push(format!("{kind} {key}"));
            }
        } else if let Some(at) = line.find("Authorized keys from ") {
            let user = line[at..].rsplit_once(" for user ").and_then(|(_, rest)| rest.split('+').next());
            told.user = user.filter(|user| is_user(user)).map(str::to_owned).or(told.user);
        }
    }
    told
}

fn is_user(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// How an instance is reached.
struct Way {
    options: Vec<String>,
    user: String,
}

/// `user@instance` or `instance`.
fn split(target: &str) -> (Option<&str>, &str) {
    target.split_once('@').map_or((None, target), |(user, instance)| (Some(user), instance))
}

fn way(target: &str, identity: Option<&Path>) -> Result<Way, CliError> {
    let (user, key) = split(target);
    let region = open_region()?;
    let instance = region.instance(key).map_err(|e| not_found(&e))?;
    let id = &instance.instance_id;
    if instance.state.name != StateName::Running {
        let error = Ec2Error::new("IncorrectInstanceState", format!("{id} is {}", instance.state.name.as_str()));
        return Err(region_error(&error.into()).next(format!("amiable start {id}")));
    }
    let port = instance.amiable.published.iter().find(|port| port.guest_port == 22 && !port.udp).ok_or_else(|| {
        CliError::new(exit::REGION, format!("{id} does not publish its port 22")).next("amiable run … -p 0:22")
    })?;
    security_groups::check_reachable(&region, &instance, port)?;
    let directory = region.paths().instance(id);
    let told = read_console(&fs::read(directory.join(CONSOLE_LOG)).unwrap_or_default());
    if told.host_keys.is_empty() {
        let what = format!("{id} has not told its SSH host keys yet: cloud-init prints them when it is nearly through");
        return Err(CliError::new(exit::OTHER, what).next(format!("amiable wait user-data {id}")));
    }
    let known_hosts = directory.join("known_hosts");
    let lines: String = told.host_keys.iter().map(|key| format!("{id} {key}\n")).collect();
    fs::write(&known_hosts, lines).map_err(|e| CliError::from_error(exit::OTHER, &e))?;
    let mut options = vec![
        format!("-oPort={}", port.host.port()),
        format!("-oHostName={}", port.host.ip()),
        format!("-oHostKeyAlias={id}"),
        format!("-oUserKnownHostsFile={}", quoted(&known_hosts)),
        "-oGlobalKnownHostsFile=/dev/null".to_owned(),
        "-oStrictHostKeyChecking=yes".to_owned(),
        "-oUpdateHostKeys=no".to_owned(),
        "-oLogLevel=ERROR".to_owned(),
    ];
    if let Some(identity) = identity.map(Path::to_owned).or_else(|| private_key(&region, &instance)) {
        options.push(format!("-oIdentityFile={}", quoted(&identity)));
        options.push("-oIdentitiesOnly=yes".to_owned());
    }
    let user = user.map(str::to_owned).or(told.user).ok_or_else(|| {
        let what = format!("{id} has not told which user its key is for");
        CliError::new(exit::USAGE, what).next(format!("amiable ssh USER@{id}"))
    })?;
    Ok(Way { options, user })
}

fn private_key(region: &Region, instance: &Instance) -> Option<PathBuf> {
    region.private_key(instance.key_name.as_deref()?)
}

/// A path as ssh_config(5) reads it: spaces separate, percent signs and tildes mean something.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

/// Become another program. It returns only if that could not be.
fn become_program(mut command: Command, name: &str) -> CliError {
    let error = command.exec();
    let mut what = CliError::from_error(exit::ENVIRONMENT, &error);
    what.what = format!("can't run {name}: {}", what.what);
    what.next("sudo apt-get install openssh-client")
}

/// `amiable ssh` and `amiable exec`.
pub fn ssh(target: &str, identity: Option<&Path>, words: &[String], quiet: bool) -> Result<(), CliError> {
    let way = way(target, identity)?;
    let mut command = Command::new("ssh");
    command.args(&way.options);
    if quiet {
        // No terminal, nothing of its own on standard error: the guest's command alone.
        command.args(["-T", "-oBatchMode=yes"]);
    }
    command.arg(format!("-oUser={}", way.user)).arg("--").arg("instance").args(words);
    Err(become_program(command, "ssh"))
}

/// `amiable cp`: exactly one of the two is `[USER@]INSTANCE:PATH`.
pub fn cp(from: &str, to: &str, identity: Option<&Path>, recursive: bool) -> Result<(), CliError> {
    let remote = |text: &str| -> Option<(String, String)> {
        let (target, path) = text.split_once(':')?;
        // As scp has it: a slash before the colon makes it a path of this machine.
        (!target.is_empty() && !target.contains('/')).then(|| (target.to_owned(), path.to_owned()))
    };
    let (target, sources) = match (remote(from), remote(to)) {
        (Some((target, path)), None) => (target, [format!("instance:{path}"), local(to)]),
        (None, Some((target, path))) => (target, [local(from), format!("instance:{path}")]),
        _ => {
            let what = "one of the two must be INSTANCE:PATH, and the other a path of this machine";
            return Err(CliError::new(exit::USAGE, what).next("amiable cp FILE web:/tmp/"));
        }
    };
    let way = way(&target, identity)?;
    let mut command = Command::new("scp");
    command.args(&way.options).arg(format!("-oUser={}", way.user)).arg("-q");
    if recursive {
        command.arg("-r");
    }
    command.arg("--").args(sources);
    Err(become_program(command, "scp"))
}

/// A path that scp does not take for another machine's.
fn local(path: &str) -> String {
    if path.contains(':') && !path.starts_with('/') { format!("./{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_tells_user_and_host_keys() {
        let console = "\x1b[32mci-info\x1b[0m: +++Authorized keys from /home/debian/.ssh/authorized_keys for user debian+++\r\n\
            -----BEGIN SSH HOST KEY KEYS-----\r\nssh-rsa AAAAold root@x\r\n-----END SSH HOST KEY KEYS-----\r\n\
            <14>Nov 20 22:26:18 cloud-init: -----BEGIN SSH HOST KEY KEYS-----\r\n\
            ecdsa-sha2-nistp256 AAAAE2 root@ip-172-31-0-10\r\nssh-ed25519 AAAAC3 root@x\r\n -oProxyCommand=x AAAA\r\n\
            -----END SSH HOST KEY KEYS-----\r\nlogin: ";
        let told = read_console(console.as_bytes());
        assert_eq!(told.user.as_deref(), Some("debian"));
        assert_eq!(told.host_keys, ["ecdsa-sha2-nistp256 AAAAE2", "ssh-ed25519 AAAAC3"]);
        assert_eq!(read_console(b"nothing"), Told::default());
        assert_eq!(read_console(b"x: Authorized keys from /x for user -oProxyCommand=x+").user, None);
    }

    #[test]
    fn targets_and_paths_are_told_apart() {
        assert_eq!(split("admin@web"), (Some("admin"), "web"));
        assert_eq!(split("web"), (None, "web"));
        assert_eq!(local("a:b"), "./a:b");
        assert_eq!(local("/a:b"), "/a:b");
        assert_eq!(quoted(Path::new("/a b/%h")), "\"/a b/%%h\"");
    }
}
