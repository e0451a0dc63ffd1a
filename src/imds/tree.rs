//! The tree below a version: paths → leaves and listings.
//!
//! Listings are made from the leaves, so nothing is listed that can't be fetched: cloud-init gives up on all metadata
//! if one listed entry answers 404.

use std::collections::HashMap;

use super::identity;
use super::metadata::{Metadata, NetworkInterface};
use crate::ec2::ids::format_mac;
use crate::ec2::tags::is_metadata_key;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Text.
    Leaf(Vec<u8>),
    /// The user data.
    UserData(Vec<u8>),
    /// Names, one a line; directories end in `/`.
    Listing(Vec<String>),
    /// A signature of the identity document, made when it is first asked for.
    Signature(identity::Form),
}

/// All paths of one instance, without slashes at their ends.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: HashMap<String, Node>,
}

impl Tree {
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The tree of an instance; with signatures if there are keys for them.
    pub(super) fn new(metadata: &Metadata, signatures: bool) -> Self {
        let mut tree = Self::default();
        tree.meta_data(metadata);
        tree.dynamic(metadata, signatures);
        if let Some(user_data) = &metadata.user_data {
            tree.insert("user-data", Node::UserData(user_data.clone()));
        }
        // At the top, directories have no slash.
        if let Some(Node::Listing(names)) = tree.nodes.get_mut("") {
            names.iter_mut().for_each(|name| *name = name.trim_end_matches('/').to_owned());
        }
        tree
    }

    fn leaf(&mut self, path: &str, value: impl Into<String>) {
        self.insert(path, Node::Leaf(value.into().into_bytes()));
    }

    /// Put a node at `path` and its name into the listings above.
    fn insert(&mut self, path: &str, node: Node) {
        self.nodes.insert(path.to_owned(), node);
        let mut child = path;
        let mut slash = "";
        loop {
            let (parent, name) = child.rsplit_once('/').unwrap_or(("", child));
            let known = self.nodes.contains_key(parent);
            let listing = self.nodes.entry(parent.to_owned()).or_insert_with(|| Node::Listing(Vec::new()));
            if let Node::Listing(names) = listing {
                let entry = format!("{name}{slash}");
                if let Err(position) = names.binary_search(&entry) {
                    names.insert(position, entry);
                }
            }
            if known || parent.is_empty() {
                return;
            }
            (child, slash) = (parent, "/");
        }
    }

    fn meta_data(&mut self, of: &Metadata) {
        self.leaf("meta-data/ami-id", &of.image_id);
        self.leaf("meta-data/ami-launch-index", of.launch_index.to_string());
        self.leaf("meta-data/ami-manifest-path", "(unknown)");
        for device in &of.block_device_mapping {
            self.leaf(&format!("meta-data/block-device-mapping/{}", device.virtual_name), &device.device_name);
        }
        self.leaf("meta-data/events/maintenance/history", "[]");
        self.leaf("meta-data/events/maintenance/scheduled", "[]");
        self.leaf("meta-data/hibernation/configured", "false");
        self.leaf("meta-data/instance-action", "none");
        self.leaf("meta-data/instance-id", &of.instance_id);
        self.leaf("meta-data/instance-life-cycle", "on-demand");
        self.leaf("meta-data/instance-type", &of.instance_type);
        self.leaf("meta-data/metrics/vhostmd", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
        self.leaf("meta-data/placement/availability-zone", &of.placement.availability_zone);
        self.leaf("meta-data/placement/availability-zone-id", &of.placement.availability_zone_id);
        self.leaf("meta-data/placement/region", &of.placement.region);
        self.leaf("meta-data/profile", "default-hvm");
        self.leaf("meta-data/reservation-id", &of.reservation_id);
        self.leaf("meta-data/services/domain", &of.placement.services_domain);
        self.leaf("meta-data/services/partition", &of.placement.partition);
        self.leaf("meta-data/system", "nitro");
        self.network(of);
        if let Some(key) = &of.key_pair {
            self.leaf("meta-data/public-keys/0/openssh-key", format!("{}\n", key.public_key.trim_end()));
            // The one listing that does not name its children.
            let name = key.name.replace(['\r', '\n'], " ");
            self.nodes.insert("meta-data/public-keys".into(), Node::Listing(vec![format!("0={name}")]));
        }
        if of.options.instance_metadata_tags.is_enabled() {
            for (key, value) in of.tags.iter().filter(|(key, _)| is_metadata_key(key)) {
                self.leaf(&format!("meta-data/tags/instance/{key}"), value);
            }
        }
    }

    fn network(&mut self, of: &Metadata) {
        if let Some(primary) = of.network_interfaces.first() {
            self.leaf("meta-data/hostname", &primary.private_dns_name);
            self.leaf("meta-data/local-hostname", &primary.private_dns_name);
            if let Some(address) = primary.private_ipv4s.first() {
                self.leaf("meta-data/local-ipv4", address.to_string());
            }
            self.leaf("meta-data/mac", format_mac(primary.mac));
            if let Some(public) = &primary.public {
                self.leaf("meta-data/public-hostname", &public.dns_name);
                self.leaf("meta-data/public-ipv4", public.ipv4.to_string());
            }
            self.leaf("meta-data/security-groups", group_names(primary));
        }
        for interface in &of.network_interfaces {
            self.interface(interface, &of.account_id);
        }
    }

    fn interface(&mut self, of: &NetworkInterface, account: &str) {
        let mac = format_mac(of.mac);
        let addresses: Vec<String> = of.private_ipv4s.iter().map(ToString::to_string).collect();
        let group_ids: Vec<&str> = of.security_groups.iter().map(|group| group.id.as_str()).collect();
        let mut leaf = |name: &str, value: String| {
            self.leaf(&format!("meta-data/network/interfaces/macs/{mac}/{name}"), value);
        };
        leaf("device-number", of.device_number.to_string());
        leaf("interface-id", of.id.clone());
        leaf("local-hostname", of.private_dns_name.clone());
        leaf("local-ipv4s", addresses.join("\n"));
        leaf("mac", mac.clone());
        leaf("network-card", "0".into());
        leaf("owner-id", account.to_owned());
        leaf("security-group-ids", group_ids.join("\n"));
        leaf("security-groups", group_names(of));
        leaf("subnet-id", of.subnet_id.clone());
        leaf("subnet-ipv4-cidr-block", of.subnet_cidr.to_string());
        leaf("vpc-id", of.vpc_id.clone());
        leaf("vpc-ipv4-cidr-block", of.vpc_cidr.to_string());
        leaf("vpc-ipv4-cidr-blocks", of.vpc_cidr.to_string());
        if let Some(public) = &of.public {
            leaf("public-hostname", public.dns_name.clone());
            leaf("public-ipv4s", public.ipv4.to_string());
            if let Some(address) = addresses.first() {
                leaf(&format!("ipv4-associations/{}", public.ipv4), address.clone());
            }
        }
    }

    fn dynamic(&mut self, of: &Metadata, signatures: bool) {
        self.leaf("dynamic/fws/instance-monitoring", "disabled");
        self.leaf("dynamic/instance-identity/document", identity::document(of));
        if signatures {
            for form in identity::Form::ALL {
                self.insert(&format!("dynamic/instance-identity/{}", form.name()), Node::Signature(form));
            }
        }
    }
}

fn group_names(of: &NetworkInterface) -> String {
    of.security_groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
