//! RunInstances and StartInstances up to the moment when a process is to be started: records, volumes, specification.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::attachments::{attach_root, place, set_attachment, settle_slots};
use super::error::RegionError;
use super::images_made::parts_of;
use super::instances::put;
use super::lock::InstanceLock;
use super::model::{AttachmentState, Image, Instance, InstanceFacts, Layers, ShutdownBehavior, State, StateName, Tag};
use super::security_groups::{groups_of, resolve};
use super::specification::specification;
use super::store::Tables;
use super::volumes::{Places, new_volume, put_volume, volumes_of};
use super::{Region, now};
use crate::ec2::ids::{self, IdKind};
use crate::ec2::instance_types::{self, InstanceType};
use crate::ec2::metadata_options::MetadataOptions;
use crate::ec2::security_group::SecurityGroup;
use crate::ec2::volume_types::Provisioned;
use crate::ec2::{Ec2Error, network, tags, user_data};
use crate::host::spec::{InstanceSpec, PortForward};
use crate::storage::{OpenMode, Volume as VolumeFile};

/// The Availability Zone that everything is in.
pub(super) const ZONE: &str = "us-east-1a";
/// The most instances in one launch.
pub const MOST_INSTANCES: u32 = 200;

/// What instances are launched with.
#[derive(Clone, Debug)]
pub struct LaunchRequest {
    /// The AMI.
    pub image: Image,
    /// The instance type.
    pub instance_type: InstanceType,
    /// How the metadata service answers.
    pub metadata_options: MetadataOptions,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Names or ids of security groups; the default one if none is given.
    pub security_groups: Vec<String>,
    /// The private address that is wanted; a free one if not said.
    pub private_ip: Option<Ipv4Addr>,
    /// Size of the root volume in bytes; the image's if not said.
    pub root_size: Option<u64>,
    /// Volumes beside the root volume.
    pub volumes: Vec<VolumeRequest>,
    /// What is asked of all of these volumes.
    pub provisioned: Provisioned,
    /// What a power-off by the guest means.
    pub shutdown_behavior: ShutdownBehavior,
    /// Whether it can't be terminated.
    pub termination_protection: bool,
    /// Whether it runs in the emulated host.
    pub emulated: bool,
    /// Whether it is deleted when the command that launches it goes away.
    pub bound_to_command: bool,
    /// What every start of it needs.
    pub parameters: LaunchParameters,
}

/// An empty volume that an instance is launched with, and which goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Size in bytes.
    pub size: u64,
    /// `/dev/sdf`; the next free name if not said.
    pub device: Option<String>,
}

/// What every start of an instance needs, beside its record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LaunchParameters {
    /// User-data, as it is.
    #[serde(with = "crate::ec2::base64_bytes::option")]
    pub user_data: Option<Vec<u8>>,
    /// An OpenSSH public key, a line.
    pub public_key: Option<String>,
    /// The key pair's name.
    pub key_name: Option<String>,
    /// Whether flushes of the root volume may do nothing.
    pub throw_away: bool,
    /// Published ports, as they were asked for.
    pub forwards: Vec<PortForward>,
    /// Whether the guest reaches this machine's loopback.
    pub host_loopback: bool,
    /// Whether its volumes are no faster than EC2's.
    pub limits: bool,
    /// Whether it has no public address.
    pub no_public_address: bool,
    /// A kernel instead of the image's.
    pub kernel: Option<PathBuf>,
    /// An initial RAM disk instead of the image's.
    pub initrd: Option<PathBuf>,
    /// Words for the end of the command line.
    pub append: Option<String>,
    /// Use the image's initial RAM disk even if it is not needed.
    pub keep_initrd: bool,
}

/// An instance that is `pending`: recorded, its volumes there, and nothing runs yet.
#[derive(Debug)]
pub struct Pending {
    /// The record.
    pub instance: Instance,
    /// All that its process needs.
    pub spec: InstanceSpec,
    /// Held until its process has ended.
    pub lock: InstanceLock,
}

impl Region {
    /// Launch `count` instances: all of them are recorded, or none.
    ///
    /// # Errors
    /// EC2's codes for user-data above 16,384 bytes, tags, a root volume smaller than the image, an address that is not
    /// free or not in the subnet, security groups that are not there.
    pub fn run_instances(&mut self, request: &LaunchRequest, count: u32) -> Result<Vec<Pending>, RegionError> {
        check(request, count)?;
        self.must_have_room()?;
        let reservation_id = IdKind::Reservation.generate();
        let layers = request.image.layers();
        let base = self.chain(&layers).open()?;
        self.make_folder(&self.paths.volumes())?;
        let mut made = Vec::new();
        let (store, places) = (&mut self.store, Places { paths: &self.paths });
        let paths = &self.paths;
        let launched = store.transaction(|tables| {
            let (layers, image_volumes) = parts_of(tables, &request.image.image_id)?;
            let groups = resolve(tables, &request.security_groups)?;
            (0..count)
                .map(|index| -> Result<Pending, RegionError> {
                    let (instance_id, volume_id) = (IdKind::Instance.generate(), IdKind::Volume.generate());
                    let address = address(tables, request.private_ip)?;
                    let mut instance = record(request, &reservation_id, index, &instance_id, &volume_id, address)?;
                    instance.security_groups = groups.iter().map(SecurityGroup::identifier).collect();
                    // Before the record says that it is pending: nobody may take it for dead.
                    made.push((paths.instance(&instance_id), None));
                    let lock = lock(paths, &instance_id)?;
                    put(tables, &instance)?;
                    tables.put_launch(&instance_id, &request.parameters)?;
                    let size = request.root_size.unwrap_or(request.image.amiable.size_in_bytes);
                    let mut volume = new_volume(&volume_id, size, layers.clone(), "", request.provisioned);
                    attach_root(&mut volume, &instance);
                    put_volume(tables, &volume)?;
                    super::step::reached("run: in the transaction");
                    // Inside the transaction: either all of it is there afterwards or only files that nothing names.
                    let files = places.layer(&volume_id);
                    made.push((paths.instance(&instance_id), Some(files.clone())));
                    VolumeFile::create(&files, size, base.clone(), OpenMode::ThrowAway)?;
                    let mut volumes = vec![volume];
                    // What the request says of a device counts more than what the AMI says.
                    let is_wanted = |device: &str| request.volumes.iter().any(|v| v.device.as_deref() == Some(device));
                    for of_image in image_volumes.iter().filter(|volume| !is_wanted(&volume.device_name)) {
                        let (volume_id, size) = (IdKind::Volume.generate(), of_image.size_in_bytes);
                        let (layers, snapshot) = (of_image.layers.clone(), &of_image.snapshot_id);
                        let mut volume = new_volume(&volume_id, size, layers, snapshot, request.provisioned);
                        // A throw-away instance leaves nothing.
                        let goes = of_image.delete_on_termination || request.bound_to_command;
                        place(tables, &mut volume, &instance, Some(&of_image.device_name), goes)?;
                        set_attachment(&mut volume, AttachmentState::Attached);
                        put_volume(tables, &volume)?;
                        let files = places.layer(&volume_id);
                        made.push((paths.instance(&instance_id), Some(files.clone())));
                        let below = places.chain(&of_image.layers).open()?;
                        VolumeFile::create(&files, size, below, OpenMode::ThrowAway)?;
                        volumes.push(volume);
                    }
                    for wanted in &request.volumes {
                        let volume_id = IdKind::Volume.generate();
                        let mut volume =
                            new_volume(&volume_id, wanted.size, Layers::default(), "", request.provisioned);
                        place(tables, &mut volume, &instance, wanted.device.as_deref(), true)?;
                        set_attachment(&mut volume, AttachmentState::Attached);
                        put_volume(tables, &volume)?;
                        let files = places.layer(&volume_id);
                        made.push((paths.instance(&instance_id), Some(files.clone())));
                        VolumeFile::create(&files, wanted.size, None, OpenMode::ThrowAway)?;
                        volumes.push(volume);
                    }
                    let image = Some(&request.image);
                    let mut spec = specification(places, &instance, &request.parameters, image, &volumes)?;
                    spec.network.groups = groups_of(tables, &instance)?;
                    Ok(Pending { instance, spec, lock })
                })
                .collect::<Result<Vec<_>, _>>()
        });
        super::step::reached("run: recorded");
        if launched.is_err() {
            for (records, files) in made {
                let _ = files.map(|files| files.remove());
                let _ = std::fs::remove_dir_all(records);
            }
        }
        launched.map_err(|error| error.or_no_room("InsufficientInstanceCapacity"))
    }

    /// Start a stopped instance again: its record says `pending` afterwards.
    ///
    /// # Errors
    /// `IncorrectInstanceState` where it is not stopped.
    pub fn start_instance(&mut self, instance_id: &str, emulated: bool) -> Result<Pending, RegionError> {
        self.must_have_room()?;
        self.finish_snapshots()?;
        let (store, places) = (&mut self.store, Places { paths: &self.paths });
        let paths = &self.paths;
        store.transaction(|tables| {
            let mut instance: Instance =
                tables.instance(instance_id)?.ok_or_else(|| Ec2Error::instance_not_found(&[instance_id]))?;
            if instance.state.name != StateName::Stopped {
                return Err(Ec2Error::incorrect_instance_state(instance_id, "started").into());
            }
            let lock = lock(paths, instance_id)?;
            instance.state = StateName::Pending.into();
            instance.state_reason = None;
            instance.state_transition_reason = String::new();
            instance.launch_time = now();
            instance.amiable.emulated = emulated;
            instance.amiable.bound_to_command = false;
            instance.amiable.starts = instance.amiable.starts.wrapping_add(1);
            let parameters: LaunchParameters = tables.launch(instance_id)?.unwrap_or_default();
            give_public_address(&mut instance, &parameters)?;
            put(tables, &instance)?;
            let mut volumes = volumes_of(tables, instance_id)?;
            // What was begun and not ended is so now: what is attached is there when it starts.
            volumes.retain(|volume| volume.attachments.iter().all(|a| a.state != AttachmentState::Detaching));
            settle_slots(tables, &instance, &mut volumes)?;
            for volume in &volumes {
                places.settle_size(volume)?;
            }
            // What it boots is on its own volume by now.
            let mut spec = specification(places, &instance, &parameters, None, &volumes)?;
            spec.network.groups = groups_of(tables, &instance)?;
            Ok(Pending { instance, spec, lock })
        })
    }

    /// An instance's process writes its record too: where the disk is so full that only one process can, none is started.
    fn must_have_room(&self) -> Result<(), RegionError> {
        if !self.store.is_cramped() {
            return Ok(());
        }
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let path = self.paths.state().display().to_string();
        Err(RegionError::File { action: "start a process on", path, source }.or_no_room("InsufficientInstanceCapacity"))
    }

    /// What an instance was launched with, as a request for one like it. Its address and its other volumes are its own.
    ///
    /// # Errors
    /// `InvalidAMIID.NotFound` if its image was deleted.
    pub fn relaunch(&self, instance: &Instance) -> Result<LaunchRequest, RegionError> {
        let of = instance_types::find(&instance.instance_type)
            .ok_or_else(|| Ec2Error::invalid_instance_type(&instance.instance_type))?;
        let mut parameters = self.launch_parameters(&instance.instance_id)?;
        // A port that was taken is taken still.
        parameters.forwards.iter_mut().filter(|f| f.guest_port == 22).for_each(|f| f.host.set_port(0));
        let root = self.volume(&instance.root_volume_id)?;
        Ok(LaunchRequest {
            image: self.image(&instance.image_id)?,
            instance_type: of,
            metadata_options: instance.metadata_options,
            tags: instance.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
            security_groups: instance.security_groups.iter().map(|group| group.group_id.clone()).collect(),
            private_ip: None,
            root_size: Some(root.amiable.size_in_bytes),
            volumes: Vec::new(),
            provisioned: root.provisioned(),
            shutdown_behavior: instance.amiable.shutdown_behavior,
            termination_protection: false,
            emulated: instance.amiable.emulated,
            bound_to_command: false,
            parameters,
        })
    }

    /// What an instance was launched with.
    pub fn launch_parameters(&self, instance_id: &str) -> Result<LaunchParameters, RegionError> {
        Ok(self.store.tables().launch(instance_id)?.unwrap_or_default())
    }
}

fn lock(paths: &super::paths::Paths, instance_id: &str) -> Result<InstanceLock, RegionError> {
    let path = paths.lock(instance_id);
    let taken = InstanceLock::take(&path).map_err(|source| RegionError::File {
        action: "lock",
        path: path.display().to_string(),
        source,
    })?;
    taken.ok_or_else(|| {
        let text = format!("The instance '{instance_id}' still has a process; its end takes a moment.");
        Ec2Error::new("IncorrectInstanceState", text).into()
    })
}

/// What EC2 checks before it accepts a launch.
fn check(request: &LaunchRequest, count: u32) -> Result<(), Ec2Error> {
    if !(1..=MOST_INSTANCES).contains(&count) {
        return Err(Ec2Error::invalid_value_for(
            count,
            "maxCount",
            format_args!("It must be from 1 to {MOST_INSTANCES}."),
        ));
    }
    if request.private_ip.is_some() && count > 1 {
        return Err(Ec2Error::invalid_parameter_combination("A private IP address can be given for one instance only"));
    }
    if let Some(data) = &request.parameters.user_data {
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
    request.provisioned.check(request.root_size.unwrap_or(least))?;
    request.volumes.iter().try_for_each(|volume| request.provisioned.check(volume.size))?;
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
    reservation_id: &str,
    index: u32,
    instance_id: &str,
    volume_id: &str,
    address: Ipv4Addr,
) -> Result<Instance, Ec2Error> {
    let network_interface_id = IdKind::NetworkInterface.generate();
    let mut instance = Instance {
        instance_id: instance_id.to_owned(),
        image_id: request.image.image_id.clone(),
        instance_type: request.instance_type.name.to_owned(),
        state: State::from(StateName::Pending),
        state_reason: None,
        state_transition_reason: String::new(),
        key_name: request.parameters.key_name.clone(),
        launch_time: now(),
        private_ip_address: address.to_string(),
        private_dns_name: network::Region::of_zone(ZONE)?.0.private_dns_name(address),
        public_ip_address: None,
        public_dns_name: None,
        mac_address: ids::format_mac(ids::mac_address(&network_interface_id)),
        network_interface_id,
        reservation_id: reservation_id.to_owned(),
        ami_launch_index: index,
        root_volume_id: volume_id.to_owned(),
        root_device_name: request.image.root_device_name.clone(),
        architecture: request.image.architecture.clone(),
        tags: request.tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect(),
        metadata_options: request.metadata_options,
        security_groups: Vec::new(),
        amiable: InstanceFacts {
            published: request.parameters.forwards.clone(),
            emulated: request.emulated,
            has_run: false,
            starts: 0,
            shutdown_behavior: request.shutdown_behavior,
            termination_protection: request.termination_protection,
            bound_to_command: request.bound_to_command,
            verdict: None,
            ended: None,
            user_data_bytes: request.parameters.user_data.as_ref().map(Vec::len),
        },
    };
    give_public_address(&mut instance, &request.parameters)?;
    Ok(instance)
}

/// Give an instance that is about to run its public address, unless it shall have none.
fn give_public_address(instance: &mut Instance, parameters: &LaunchParameters) -> Result<(), Ec2Error> {
    if !parameters.no_public_address {
        let address = network::public_address(instance.address(), instance.amiable.starts);
        instance.public_ip_address = Some(address.to_string());
        instance.public_dns_name = Some(network::Region::of_zone(ZONE)?.0.public_dns_name(address));
    }
    Ok(())
}

/// The address that is wanted, or a free one.
fn address(tables: &Tables<'_>, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, RegionError> {
    let Some(wanted) = wanted else { return free_address(tables) };
    if !network::default_subnet(0).usable().any(|address| address == wanted) {
        let text = format!("Address {wanted} does not fall within the subnet's address range");
        return Err(Ec2Error::invalid_parameter_value(text).into());
    }
    if tables.is_address_used(&wanted.to_string())? {
        return Err(Ec2Error::new("InvalidIPAddress.InUse", format!("Address {wanted} is in use.")).into());
    }
    Ok(wanted)
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
