//! Instances: launched, found, ended, terminated.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::error::RegionError;
use super::model::{Image, Instance, InstanceFacts, Process, State, StateName, StateReason, Tag, Volume};
use super::paths::Paths;
use super::store::{InstanceRow, Tables};
use super::{Region, now};
use crate::ec2::ids::{self, IdKind};
use crate::ec2::instance_types::InstanceType;
use crate::ec2::metadata_options::MetadataOptions;
use crate::ec2::{Ec2Error, network, tags, user_data};
use crate::host::spec::{BootSpec, InstanceSpec, NetworkSpec, PortForward, RootVolume};
use crate::host::verdict::Verdict;
use crate::imds::{KeyPair, Metadata, NetworkInterface, Placement, SecurityGroup, block_device_mapping};
use crate::storage::{OpenMode, RawImage, Volume as VolumeFile, VolumePaths};

/// The Availability Zone that everything is in.
const ZONE: &str = "us-east-1a";

/// What an instance is launched with.
#[derive(Clone, Debug)]
pub struct LaunchRequest {
    /// The AMI.
    pub image: Image,
    /// The instance type.
    pub instance_type: InstanceType,
    /// User-data, as it is.
    pub user_data: Option<Vec<u8>>,
    /// How the metadata service answers.
    pub metadata_options: MetadataOptions,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// An OpenSSH public key, a line.
    pub public_key: Option<String>,
    /// Size of the root volume in bytes; the image's if not said.
    pub root_size: Option<u64>,
    /// Whether flushes of the root volume may do nothing.
    pub throw_away: bool,
    /// Published ports.
    pub forwards: Vec<PortForward>,
    /// Whether the guest reaches this machine's loopback.
    pub host_loopback: bool,
    /// A kernel instead of the image's.
    pub kernel: Option<PathBuf>,
    /// An initial RAM disk instead of the image's.
    pub initrd: Option<PathBuf>,
    /// Words for the end of the command line.
    pub append: Option<String>,
    /// Use the image's initial RAM disk even if it is not needed.
    pub keep_initrd: bool,
}

/// A launched instance: its record, and all that its process needs.
#[derive(Debug)]
pub struct Launch {
    /// The record.
    pub instance: Instance,
    /// The specification.
    pub spec: InstanceSpec,
}

/// How an instance's run ended.
#[derive(Clone, Debug)]
pub struct EndOfRun {
    /// Why it is stopped.
    pub reason: StateReason,
    /// What became of its user-data, if that is known.
    pub verdict: Option<Verdict>,
}

impl Region {
    /// Launch one instance: its record is there, its root volume lies over the image, and nothing runs yet.
    ///
    /// # Errors
    /// EC2's codes for user-data above 16,384 bytes, tags, a root volume smaller than the image, no free address.
    pub fn run_instance(&mut self, request: LaunchRequest) -> Result<Launch, RegionError> {
        check(&request)?;
        let (region, _) = network::Region::of_zone(ZONE)?;
        let paths = &self.paths;
        let instance_id = IdKind::Instance.generate();
        let volume_id = IdKind::Volume.generate();
        let size = request.root_size.unwrap_or(request.image.amiable.size_in_bytes);
        let base_path = self.paths.image_disk(&request.image.image_id);
        let volumes = self.paths.volumes();
        std::fs::create_dir_all(&volumes).map_err(|source| RegionError::File {
            action: "make the directory",
            path: volumes.display().to_string(),
            source,
        })?;
        let files = VolumePaths::in_folder(&volumes, &volume_id);
        let launch = self.store.transaction(|tables| -> Result<Launch, RegionError> {
            let address = free_address(tables)?;
            let instance = record(&request, region, &instance_id, &volume_id, address);
            put(tables, &instance)?;
            let volume = Volume {
                volume_id: volume_id.clone(),
                size_in_bytes: size,
                image_id: Some(request.image.image_id.clone()),
                instance_id: Some(instance_id.clone()),
                create_time: now(),
            };
            tables.put_volume(&volume_id, Some(&instance_id), volume.image_id.as_deref(), &volume)?;
            // Inside the transaction: either all of it is there afterwards or only files that nothing names.
            let base = Arc::new(RawImage::open(&base_path)?);
            VolumeFile::create(&files, size, Some(base), OpenMode::ThrowAway)?;
            let root = RootVolume {
                volume_id: volume_id.clone(),
                device_name: instance.root_device_name.clone(),
                data: files.data.clone(),
                map: files.map.clone(),
                base: base_path.clone(),
                throw_away: request.throw_away,
            };
            let spec = specification(paths, &request, &instance, root, address)?;
            Ok(Launch { instance, spec })
        });
        if launch.is_err() {
            let _ = files.remove();
        }
        launch
    }

    /// The instance of this id or name, or whose id starts so.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`; a key that fits several.
    pub fn instance(&self, key: &str) -> Result<Instance, RegionError> {
        let mut found = self.store.tables().find_instances::<Instance>(key)?;
        if found.len() > 1 && found[0].instance_id != key {
            let ids: Vec<_> = found.iter().map(|i| i.instance_id.as_str()).collect();
            let message = format!("'{key}' may mean {}", ids.join(" or "));
            return Err(Ec2Error::new("InvalidInstanceID.Malformed", message).into());
        }
        if key.is_empty() || found.is_empty() {
            return Err(Ec2Error::instance_not_found(&[key]).into());
        }
        Ok(as_it_is(found.swap_remove(0)))
    }

    /// All instances, the newest last.
    pub fn instances(&self) -> Result<Vec<Instance>, RegionError> {
        Ok(self.store.tables().instances()?.into_iter().map(as_it_is).collect())
    }

    /// The instance's run has ended: it is stopped.
    pub fn end_run(&mut self, instance: &mut Instance, end: EndOfRun) -> Result<(), RegionError> {
        instance.state = StateName::Stopped.into();
        instance.state_reason = Some(end.reason);
        instance.amiable.process = None;
        instance.amiable.verdict = end.verdict.or(instance.amiable.verdict.take());
        put(&self.store.tables(), instance)
    }

    /// Delete an instance with its volume and its records. One that is gone already is no error.
    ///
    /// # Errors
    /// `IncorrectInstanceState` while its process runs.
    pub fn terminate(&mut self, instance: &Instance) -> Result<(), RegionError> {
        if instance.amiable.process.is_some_and(|p| p.is_alive() && p != Process::this()) {
            return Err(Ec2Error::incorrect_instance_state(&instance.instance_id, "terminated").into());
        }
        let volumes: Vec<Volume> = self.store.tables().volumes_of(&instance.instance_id)?;
        let mut gone = instance.clone();
        gone.state = StateName::Terminated.into();
        gone.state_reason = Some(StateReason::new("Client.UserInitiatedShutdown", "User initiated shutdown"));
        gone.amiable.process = None;
        self.store.transaction(|tables| {
            for volume in &volumes {
                tables.remove_volume(&volume.volume_id)?;
            }
            put(tables, &gone)
        })?;
        for volume in &volumes {
            VolumePaths::in_folder(&self.paths.volumes(), &volume.volume_id).remove()?;
        }
        let records = self.paths.instance(&instance.instance_id);
        match std::fs::remove_dir_all(&records) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RegionError::File { action: "remove", path: records.display().to_string(), source })
            }
            _ => Ok(()),
        }
    }
}

/// All that the instance's process needs to know.
fn specification(
    paths: &Paths,
    request: &LaunchRequest,
    instance: &Instance,
    root: RootVolume,
    address: Ipv4Addr,
) -> Result<InstanceSpec, Ec2Error> {
    let of = &request.instance_type;
    Ok(InstanceSpec {
        memory_mib: of.memory_mib,
        cores: of.cores,
        threads_per_core: of.threads_per_core,
        uuid: ids::instance_uuid(&instance.instance_id),
        root,
        boot: BootSpec {
            ready: None,
            plan: Some(request.image.amiable.boot.clone()),
            cache: paths.boot_cache(),
            kernel: request.kernel.clone(),
            initrd: request.initrd.clone(),
            append: request.append.clone(),
            keep_initrd: request.keep_initrd,
        },
        network: NetworkSpec {
            mac: ids::mac_address(&instance.network_interface_id),
            address,
            prefix: network::DEFAULT_SUBNET_PREFIX,
            dns: network::DEFAULT_VPC.dns(),
            domain: network::Region::of_zone(ZONE)?.0.private_domain(),
            upstreams: super::capacity::resolvers(),
            forwards: request.forwards.clone(),
            host_loopback: request.host_loopback.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        },
        metadata: metadata(request, instance, address)?,
        identity_keys: paths.identity_keys(),
    })
}

/// What EC2 checks before it accepts a launch.
fn check(request: &LaunchRequest) -> Result<(), Ec2Error> {
    if let Some(data) = &request.user_data {
        user_data::check_size(data)?;
    }
    if request.tags.len() > tags::MAX_TAGS {
        return Err(Ec2Error::tag_limit_exceeded());
    }
    for (key, value) in &request.tags {
        tags::validate(key, value)?;
        if request.metadata_options.instance_metadata_tags.is_enabled() {
            tags::validate_metadata_key(key)?;
        }
    }
    if !request.instance_type.supports(&request.image.architecture) {
        return Err(Ec2Error::architecture_mismatch(
            request.instance_type.architectures.first().copied().unwrap_or("unknown"),
            &request.image.architecture,
        ));
    }
    let least = request.image.amiable.size_in_bytes;
    match request.root_size {
        Some(size) if size < least => Err(Ec2Error::invalid_block_device_mapping(format!(
            "Volume of size {}MiB is smaller than snapshot of the image, expect size >= {}MiB",
            size >> 20,
            least.div_ceil(1 << 20)
        ))),
        _ => Ok(()),
    }
}

fn record(
    request: &LaunchRequest,
    region: &network::Region,
    instance_id: &str,
    volume_id: &str,
    address: Ipv4Addr,
) -> Instance {
    let network_interface_id = IdKind::NetworkInterface.generate();
    Instance {
        instance_id: instance_id.to_owned(),
        image_id: request.image.image_id.clone(),
        instance_type: request.instance_type.name.to_owned(),
        state: State::from(StateName::Running),
        state_reason: None,
        launch_time: now(),
        private_ip_address: address.to_string(),
        private_dns_name: region.private_dns_name(address),
        mac_address: ids::format_mac(ids::mac_address(&network_interface_id)),
        network_interface_id,
        reservation_id: IdKind::Reservation.generate(),
        ami_launch_index: 0,
        root_volume_id: volume_id.to_owned(),
        root_device_name: request.image.root_device_name.clone(),
        architecture: request.image.architecture.clone(),
        tags: request.tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect(),
        metadata_options: request.metadata_options,
        amiable: InstanceFacts {
            process: Some(Process::this()),
            published: request.forwards.clone(),
            verdict: None,
            user_data_bytes: request.user_data.as_ref().map(Vec::len),
        },
    }
}

/// The first free address of the default subnet, from .10 on: the low ones look like infrastructure.
fn free_address(tables: &Tables<'_>) -> Result<Ipv4Addr, RegionError> {
    for address in network::default_subnet(0).usable().skip(6) {
        if !tables.is_address_used(&address.to_string())? {
            return Ok(address);
        }
    }
    Err(Ec2Error::new("InsufficientFreeAddressesInSubnet", "The default subnet has no free address left").into())
}

fn put(tables: &Tables<'_>, instance: &Instance) -> Result<(), RegionError> {
    let gone = instance.state.name == StateName::Terminated;
    let row = InstanceRow {
        instance_id: &instance.instance_id,
        image_id: &instance.image_id,
        state: instance.state.name.as_str(),
        private_ip: (!gone).then_some(&instance.private_ip_address),
        launched: &instance.launch_time,
    };
    Ok(tables.put_instance(row, instance)?)
}

/// A record of a running instance whose process is gone: it was killed before it could write anything. The record is
/// shown as what is true.
fn as_it_is(mut instance: Instance) -> Instance {
    if instance.state.name == StateName::Running && !instance.amiable.process.is_some_and(|p| p.is_alive()) {
        instance.state = StateName::Stopped.into();
        instance.state_reason = Some(StateReason::new("Server.InternalError", "The instance's process was killed"));
        instance.amiable.process = None;
    }
    instance
}

/// The resolvers of `/etc/resolv.conf`'s text.
pub(super) fn parse_resolvers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|w| *w == "nameserver").and_then(|_| words.next())?;
            // A link-local IPv6 server has its interface after a percent sign; it can't be reached by address alone.
            address.parse::<IpAddr>().ok()
        })
        .take(3)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

/// What the metadata service tells of the instance.
fn metadata(request: &LaunchRequest, instance: &Instance, address: Ipv4Addr) -> Result<Metadata, Ec2Error> {
    let default = "default".to_owned();
    let interface = NetworkInterface {
        id: instance.network_interface_id.clone(),
        mac: ids::mac_address(&instance.network_interface_id),
        device_number: 0,
        private_ipv4s: vec![address],
        private_dns_name: instance.private_dns_name.clone(),
        public: None,
        security_groups: vec![SecurityGroup { id: IdKind::SecurityGroup.derive(&default), name: default.clone() }],
        subnet_id: IdKind::Subnet.derive(&default),
        subnet_cidr: network::default_subnet(0),
        vpc_id: IdKind::Vpc.derive(&default),
        vpc_cidr: network::DEFAULT_VPC,
    };
    let key_pair = request.public_key.as_ref().map(|key| KeyPair {
        // The comment at the end of the line is what people know their key by.
        name: key.splitn(3, ' ').nth(2).filter(|c| !c.is_empty()).unwrap_or("key").replace('=', "-"),
        public_key: key.clone(),
    });
    Ok(Metadata {
        account_id: network::DEFAULT_ACCOUNT.to_owned(),
        instance_id: instance.instance_id.clone(),
        image_id: instance.image_id.clone(),
        reservation_id: instance.reservation_id.clone(),
        instance_type: instance.instance_type.clone(),
        architecture: instance.architecture.clone(),
        launch_index: instance.ami_launch_index,
        launch_time: jiff::Timestamp::now().as_second(),
        placement: Placement::in_zone(ZONE)?,
        network_interfaces: vec![interface],
        key_pair,
        tags: request.tags.iter().cloned().collect(),
        block_device_mapping: block_device_mapping(&instance.root_device_name, &[]),
        user_data: request.user_data.clone(),
        options: request.metadata_options,
    })
}

#[cfg(test)]
#[path = "instances_tests.rs"]
mod tests;
