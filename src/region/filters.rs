//! What the region's resources have under the names of EC2's filters (DescribeInstances, DescribeVolumes, DescribeSnapshots, DescribeImages).

use serde_json::Value;

use super::error::RegionError;
use super::model::{Image, Instance, Snapshot, Tag, Volume};
use super::{Region, launch::ZONE};
use crate::ec2::filters::Filters;
use crate::ec2::ids::IdKind;
use crate::ec2::{instance_types, network};

const INSTANCE: &[&str] = &[
    "architecture",
    "availability-zone",
    "block-device-mapping.attach-time",
    "block-device-mapping.delete-on-termination",
    "block-device-mapping.device-name",
    "block-device-mapping.status",
    "block-device-mapping.volume-id",
    "dns-name",
    "hypervisor",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "ip-address",
    "key-name",
    "launch-index",
    "launch-time",
    "metadata-options.http-endpoint",
    "metadata-options.http-put-response-hop-limit",
    "metadata-options.http-tokens",
    "metadata-options.instance-metadata-tags",
    "network-interface.mac-address",
    "network-interface.network-interface-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "reason",
    "reservation-id",
    "root-device-name",
    "root-device-type",
    "state-reason-code",
    "state-reason-message",
    "subnet-id",
    "virtualization-type",
    "vpc-id",
];

const VOLUME: &[&str] = &[
    "attachment.attach-time",
    "attachment.delete-on-termination",
    "attachment.device",
    "attachment.instance-id",
    "attachment.status",
    "availability-zone",
    "create-time",
    "size",
    "snapshot-id",
    "status",
    "volume-id",
    "volume-type",
];

const SNAPSHOT: &[&str] =
    &["description", "owner-id", "snapshot-id", "start-time", "status", "volume-id", "volume-size"];

const IMAGE: &[&str] = &[
    "architecture",
    "creation-date",
    "image-id",
    "name",
    "owner-id",
    "root-device-name",
    "root-device-type",
    "state",
    "virtualization-type",
];

/// What a value is at a path, in the words of filters: EC2's field names in JSON, text, numbers and truths as text.
fn at(value: &Value, path: &str) -> Vec<String> {
    match value.pointer(path) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(other) => vec![other.to_string()],
    }
}

/// `volume-type` is `VolumeType`.
fn field(name: &str) -> String {
    let word = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').filter(|part| !part.is_empty()).map(word).collect()
}

fn pairs(tags: &[Tag]) -> Vec<(&str, &str)> {
    tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect()
}

fn attachment(volume: &Volume, name: &str) -> Vec<String> {
    let name = match name {
        "status" => "State".to_owned(),
        "device-name" => "Device".to_owned(),
        "volume-id" => return vec![volume.volume_id.clone()],
        other => field(other),
    };
    let attachments = serde_json::to_value(&volume.attachments).unwrap_or_default();
    at(&attachments, &format!("/0/{name}"))
}

fn of_instance(instance: &Instance, json: &Value, volumes: &[Volume], name: &str) -> Vec<String> {
    if let Some(name) = name.strip_prefix("block-device-mapping.") {
        let own = volumes.iter().filter(|volume| volume.instance_id() == Some(&instance.instance_id));
        return own.flat_map(|volume| attachment(volume, name)).collect();
    }
    if let Some(name) = name.strip_prefix("metadata-options.") {
        return at(json, &format!("/MetadataOptions/{}", field(name)));
    }
    let one = |text: &str| vec![text.to_owned()];
    let default = "default";
    match name {
        "instance-state-code" => at(json, "/State/Code"),
        "instance-state-name" => at(json, "/State/Name"),
        "dns-name" => at(json, "/PublicDnsName"),
        "ip-address" => at(json, "/PublicIpAddress"),
        "launch-index" => at(json, "/AmiLaunchIndex"),
        "reason" => at(json, "/StateTransitionReason"),
        "state-reason-code" => at(json, "/StateReason/Code"),
        "state-reason-message" => at(json, "/StateReason/Message"),
        "network-interface.mac-address" => at(json, "/MacAddress"),
        "network-interface.network-interface-id" => at(json, "/NetworkInterfaceId"),
        "availability-zone" => one(ZONE),
        "hypervisor" => {
            instance_types::find(&instance.instance_type).map(|of| of.hypervisor.to_owned()).into_iter().collect()
        }
        "owner-id" => one(network::DEFAULT_ACCOUNT),
        "root-device-type" => one("ebs"),
        "virtualization-type" => one("hvm"),
        "subnet-id" => one(&IdKind::Subnet.derive(default)),
        "vpc-id" => one(&IdKind::Vpc.derive(default)),
        name => at(json, &format!("/{}", field(name))),
    }
}

impl Region {
    /// The instances that fit, the newest last.
    ///
    /// # Errors
    /// `InvalidParameterValue` for what is no filter.
    pub fn instances_that_fit(&self, filters: &Filters) -> Result<Vec<Instance>, RegionError> {
        filters.check(INSTANCE)?;
        let mut instances = self.instances()?;
        if filters.0.is_empty() {
            return Ok(instances);
        }
        let of_volumes = filters.0.iter().any(|filter| filter.name.starts_with("block-device-mapping."));
        let volumes = if of_volumes { self.volumes()? } else { Vec::new() };
        instances.retain(|instance| {
            let json = serde_json::to_value(instance).unwrap_or_default();
            filters.fit(&pairs(&instance.tags), |name| of_instance(instance, &json, &volumes, name))
        });
        Ok(instances)
    }

    /// The volumes that fit, the newest last.
    ///
    /// # Errors
    /// `InvalidParameterValue` for what is no filter.
    pub fn volumes_that_fit(&self, filters: &Filters) -> Result<Vec<Volume>, RegionError> {
        filters.check(VOLUME)?;
        let mut volumes = self.volumes()?;
        volumes.retain(|volume| {
            let json = serde_json::to_value(volume).unwrap_or_default();
            filters.fit(&pairs(&volume.tags), |name| match name.strip_prefix("attachment.") {
                Some(name) => attachment(volume, name),
                None if name == "status" => at(&json, "/State"),
                None => at(&json, &format!("/{}", field(name))),
            })
        });
        Ok(volumes)
    }

    /// The snapshots that fit, the newest last.
    ///
    /// # Errors
    /// `InvalidParameterValue` for what is no filter.
    pub fn snapshots_that_fit(&self, filters: &Filters) -> Result<Vec<Snapshot>, RegionError> {
        filters.check(SNAPSHOT)?;
        let mut snapshots = self.snapshots()?;
        snapshots.retain(|snapshot| {
            let json = serde_json::to_value(snapshot).unwrap_or_default();
            filters.fit(&pairs(&snapshot.tags), |name| match name {
                "status" => at(&json, "/State"),
                "owner-id" => vec![network::DEFAULT_ACCOUNT.to_owned()],
                name => at(&json, &format!("/{}", field(name))),
            })
        });
        Ok(snapshots)
    }

    /// The AMIs that fit, the newest last.
    ///
    /// # Errors
    /// `InvalidParameterValue` for what is no filter.
    pub fn images_that_fit(&self, filters: &Filters) -> Result<Vec<Image>, RegionError> {
        filters.check(IMAGE)?;
        let mut images = self.images()?;
        images.retain(|image| {
            let json = serde_json::to_value(image).unwrap_or_default();
            filters.fit(&pairs(&image.tags), |name| match name {
                "owner-id" => vec![network::DEFAULT_ACCOUNT.to_owned()],
                name => at(&json, &format!("/{}", field(name))),
            })
        });
        Ok(images)
    }
}

#[cfg(test)]
#[path = "filters_tests.rs"]
mod tests;
