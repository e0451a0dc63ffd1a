//! The stages that every launch goes through, and how they are recognised from outside of the guest.
//!
//! The machine knows when it first ran, the network when it gave a lease, the metadata service when it was first
//! asked. The rest is read off the console: the kernel's and systemd's first lines and cloud-init's own announcement of
//! each of its stages, whose wording has been stable from cloud-init 22.4 to today.

use serde::{Deserialize, Serialize};

/// A point that a launch reaches once in each boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Volume, kernel and machine are ready; the guest has not run yet.
    Prepared,
    /// The first vCPU enters the guest (the first `KVM_RUN`).
    Machine,
    /// The guest's first byte on the console.
    Kernel,
    /// systemd announces itself.
    Init,
    /// The guest holds a DHCP lease.
    Dhcp,
    /// The first request to the metadata service.
    Imds,
    /// cloud-init's local stage: finds the data source.
    CloudInitLocal,
    /// cloud-init's network stage: users, keys, boothooks, disks.
    CloudInitNetwork,
    /// cloud-init's config stage.
    CloudInitConfig,
    /// cloud-init's final stage: packages and user scripts.
    CloudInitFinal,
    /// The user-data ran to its end, well or badly.
    UserData,
    /// The SSH server accepts connections.
    Ssh,
    /// The guest restarted.
    Reboot,
    /// The guest is off.
    PowerOff,
}

impl Stage {
    /// The stage's name on the terminal and in `--timings json`.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Prepared => "prepared",
            Stage::Machine => "machine",
            Stage::Kernel => "kernel",
            Stage::Init => "init",
            Stage::Dhcp => "dhcp",
            Stage::Imds => "imds",
            Stage::CloudInitLocal => "cloud-init-local",
            Stage::CloudInitNetwork => "cloud-init-network",
            Stage::CloudInitConfig => "cloud-init-config",
            Stage::CloudInitFinal => "cloud-init-final",
            Stage::UserData => "user-data",
            Stage::Ssh => "ssh",
            Stage::Reboot => "reboot",
            Stage::PowerOff => "power-off",
        }
    }

    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Stage::Prepared => "volume, kernel and metadata ready",
            Stage::Machine => "first vCPU runs",
            Stage::Kernel => "first console output",
            Stage::Init => "systemd started",
            Stage::Dhcp => "address leased",
            Stage::Imds => "first metadata request",
            Stage::CloudInitLocal => "cloud-init looks for its data source",
            Stage::CloudInitNetwork => "cloud-init: users, keys, boothooks",
            Stage::CloudInitConfig => "cloud-init: configuration modules",
            Stage::CloudInitFinal => "cloud-init: packages and scripts",
            Stage::UserData => "user-data finished",
            Stage::Ssh => "SSH server started",
            Stage::Reboot => "guest restarts",
            Stage::PowerOff => "guest is off",
        }
    }
}

/// What cloud-init said when it finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Its version: `22.4.2`.
    pub version: String,
    /// The data source that it used: `DataSourceEc2Local`.
    pub datasource: String,
    /// Seconds since the guest's kernel started, by the guest's clock.
    pub uptime: f64,
}

/// What a console line tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Sign {
    /// A stage is reached.
    Stage(Stage),
    /// cloud-init is through.
    Finished(Finished),
    /// The kernel wrote all dirty pages to its disks, asked by the magic SysRq key.
    Synced,
    /// The kernel panicked; the text of its message.
    Panic(String),
}

/// Read one line of the console.
pub fn read_line(line: &str) -> Option<Sign> {
    if let Some(at) = line.find("Cloud-init v. ") {
        return cloud_init(&line[at + "Cloud-init v. ".len()..]);
    }
    if let Some(at) = line.find("Kernel panic - not syncing: ") {
        return Some(Sign::Panic(line[at..].to_owned()));
    }
    if line.contains("Emergency Sync complete") {
        return Some(Sign::Synced);
    }
    if line.contains("systemd[1]: systemd ") || line.starts_with("Welcome to ") {
        return Some(Sign::Stage(Stage::Init));
    }
    if line.contains("Started ssh") && line.contains("Secure Shell server")
        || line.contains("Started sshd.service") && line.contains("OpenSSH")
    {
        return Some(Sign::Stage(Stage::Ssh));
    }
    None
}

/// `22.4.2 running 'init-local' at …` and `22.4.2 finished at … Datasource DataSourceEc2Local.  Up 47.45 seconds`.
fn cloud_init(text: &str) -> Option<Sign> {
    let (version, rest) = text.split_once(' ')?;
    if let Some(stage) = rest.strip_prefix("running '") {
        return Some(Sign::Stage(match stage.split_once('\'')?.0 {
            "init-local" => Stage::CloudInitLocal,
            "init" => Stage::CloudInitNetwork,
            "modules:config" => Stage::CloudInitConfig,
            "modules:final" => Stage::CloudInitFinal,
            _ => return None,
        }));
    }
    let rest = rest.strip_prefix("finished at ")?;
    let datasource = rest.split_once("Datasource ")?.1;
    let end = datasource.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    let uptime = rest.split_once(" Up ")?.1.split(' ').next()?.parse().ok()?;
    Some(Sign::Finished(Finished { version: version.to_owned(), datasource: datasource[..end].to_owned(), uptime }))
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
