//! An instance's specification from its records: all that its process will know.

use std::net::{IpAddr, Ipv4Addr};

use super::launch::{LaunchParameters, ZONE};
use super::model::{Image, Instance, Volume};
use super::volumes::Places;
use crate::ec2::Ec2Error;
use crate::ec2::ids::{self, IdKind};
use crate::ec2::instance_types::{self, InstanceType};
use crate::ec2::network;
use crate::ec2::volume_types::instance_performance;
use crate::host::spec::{BootSpec, InstanceSpec, LimitsSpec, NetworkSpec, SecurityGroups, StoreDisk, store_slots};
use crate::imds::{KeyPair, Metadata, NetworkInterface, Placement, PublicAddress, SecurityGroup, block_device_mapping};

/// All that the instance's process needs to know. With its image, what that boots counts; else its volume is looked at.
pub(super) fn specification(
    places: Places<'_>,
    instance: &Instance,
    parameters: &LaunchParameters,
    image: Option<&Image>,
    volumes: &[Volume],
) -> Result<InstanceSpec, Ec2Error> {
    let paths = places.paths;
    let of = instance_types::find(&instance.instance_type)
        .ok_or_else(|| Ec2Error::invalid_instance_type(&instance.instance_type))?;
    let address = instance.address();
    let spec_of = |volume: &Volume| {
        let device = volume.attachments.first().map_or(&instance.root_device_name, |attachment| &attachment.device);
        places.volume_spec(volume, device, parameters.throw_away)
    };
    let (root, others): (Vec<_>, Vec<_>) = volumes.iter().partition(|v| v.volume_id == instance.root_volume_id);
    let root = root.first().ok_or_else(|| {
        let text = format!(
            "Instance '{}' does not have a volume attached at root ({})",
            instance.instance_id, instance.root_device_name
        );
        Ec2Error::new("IncorrectInstanceState", text)
    })?;
    let names: Vec<&str> = others.iter().flat_map(|v| v.attachments.first()).map(|a| a.device.as_str()).collect();
    Ok(InstanceSpec {
        memory_mib: of.memory_mib,
        cores: of.cores,
        threads_per_core: of.threads_per_core,
        uuid: ids::instance_uuid(&instance.instance_id),
        root: spec_of(root),
        volumes: others.iter().map(|volume| spec_of(volume)).collect(),
        instance_store: instance_store(places, instance, &of),
        boot: BootSpec {
            ready: None,
            plan: image.map(|image| image.amiable.boot.clone()),
            cache: paths.boot_cache(),
            kernel: parameters.kernel.clone(),
            initrd: parameters.initrd.clone(),
            append: parameters.append.clone(),
            keep_initrd: parameters.keep_initrd,
        },
        network: NetworkSpec {
            mac: ids::mac_address(&instance.network_interface_id),
            address,
            prefix: network::DEFAULT_SUBNET_PREFIX,
            dns: network::DEFAULT_VPC.dns(),
            domain: network::Region::of_zone(ZONE)?.0.private_domain(),
            upstreams: super::capacity::resolvers(),
            forwards: parameters.forwards.clone(),
            host_loopback: parameters.host_loopback.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            // Filled in from the store.
            groups: SecurityGroups::default(),
            peers: Vec::new(),
        },
        metadata: metadata(parameters, instance, address, &names)?,
        limits: parameters.limits.then(|| LimitsSpec {
            instance: of.ebs.limits.map(|(baseline, maximum)| instance_performance(baseline, maximum)),
        }),
        identity_keys: paths.identity_keys(),
    })
}

/// The disks that come with the type: new ones at each start.
fn instance_store(places: Places<'_>, instance: &Instance, of: &InstanceType) -> Vec<StoreDisk> {
    let Some(store) = &of.instance_store else { return Vec::new() };
    let disk = |(index, slot): (usize, u8)| {
        let id = IdKind::Volume.derive(&format!("{} {} {index}", instance.instance_id, instance.launch_time));
        let serial = format!("AWS{}", id.trim_start_matches("vol-").to_uppercase());
        let path = places.paths.volumes().join(format!("{}-store{index}.data", instance.instance_id));
        // GB, not GiB.
        StoreDisk { serial, slot, path, size: store.size_gb.saturating_mul(1_000_000_000) }
    };
    store_slots(store.count).enumerate().map(disk).collect()
}

fn public(instance: &Instance) -> Option<PublicAddress> {
    let ipv4 = instance.public_ip_address.as_deref()?.parse().ok()?;
    Some(PublicAddress { ipv4, dns_name: instance.public_dns_name.clone()? })
}

/// What the metadata service tells of the instance.
fn metadata(
    parameters: &LaunchParameters,
    instance: &Instance,
    address: Ipv4Addr,
    volumes: &[&str],
) -> Result<Metadata, Ec2Error> {
    let default = "default".to_owned();
    let mut groups: Vec<SecurityGroup> = instance
        .security_groups
        .iter()
        .map(|group| SecurityGroup { id: group.group_id.clone(), name: group.group_name.clone() })
        .collect();
    if groups.is_empty() {
        groups.push(SecurityGroup { id: IdKind::SecurityGroup.derive(&default), name: default.clone() });
    }
    let interface = NetworkInterface {
        id: instance.network_interface_id.clone(),
        mac: ids::mac_address(&instance.network_interface_id),
        device_number: 0,
        private_ipv4s: vec![address],
        private_dns_name: instance.private_dns_name.clone(),
        public: public(instance),
        security_groups: groups,
        subnet_id: IdKind::Subnet.derive(&default),
        subnet_cidr: network::default_subnet(0),
        vpc_id: IdKind::Vpc.derive(&default),
        vpc_cidr: network::DEFAULT_VPC,
    };
    let key_pair = parameters.public_key.as_ref().map(|key| KeyPair {
        name: parameters.key_name.clone().unwrap_or_else(|| "key".to_owned()),
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
        tags: instance.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
        block_device_mapping: block_device_mapping(&instance.root_device_name, volumes),
        user_data: parameters.user_data.clone(),
        options: instance.metadata_options,
    })
}
