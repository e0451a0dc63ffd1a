//! Security groups: rules that allow flows into and out of an instance, as the VPC user guide and the EC2 API Reference
//! have them ("Security group rules", CreateSecurityGroup, AuthorizeSecurityGroupIngress).
//!
//! Rules are looked at once, when a flow begins; the rest of it, and its other direction, need none (connection tracking).

mod cidr;
mod permission;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::IpAddr;

pub use self::cidr::Cidr;
pub use self::permission::{Peer, Permission, Protocol, Traffic};
use super::Ec2Error;
use super::ids::IdKind;
use super::network::DEFAULT_ACCOUNT;

/// The name of the group that an instance is in if none is named.
pub const DEFAULT: &str = "default";
/// The most rules of a group in one direction.
pub const MOST_RULES: usize = 60;
/// The most groups of one network interface.
pub const MOST_GROUPS_OF_AN_INTERFACE: usize = 5;
/// The most groups of a Region.
pub const MOST_GROUPS: usize = 2500;

/// What names and descriptions are made of, beside letters and digits.
const MARKS: &str = ". _-:/()#,@[]+=&;{}!$*";
const CHARACTERS: &str = "a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*";

/// Which way a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Into the instance.
    Ingress,
    /// Out of it.
    Egress,
}

/// A rule of a group: EC2's `SecurityGroupRule`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rule {
    /// `sgr-…`
    pub security_group_rule_id: String,
    /// Whether it is for flows out of the instance.
    pub is_egress: bool,
    /// What it lets through.
    #[serde(flatten)]
    pub permission: Permission,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A group, as it is kept. [`describe`](Self::describe) gives EC2's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecurityGroup {
    /// `sg-…`
    pub group_id: String,
    /// Unique in its VPC.
    pub group_name: String,
    /// For people.
    pub description: String,
    /// `vpc-…`
    pub vpc_id: String,
    /// All rules, both directions.
    pub rules: Vec<Rule>,
}

/// A group as instances name it: EC2's `GroupIdentifier`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GroupIdentifier {
    /// `sg-…`
    pub group_id: String,
    /// Its name.
    pub group_name: String,
}

impl SecurityGroup {
    /// A new group of the default VPC, with the one rule that EC2 gives it: all may go out.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a name or a description that EC2 does not take.
    pub fn new(name: &str, description: &str) -> Result<Self, Ec2Error> {
        let bad = |text: String| Err(Ec2Error::invalid_parameter_value(text));
        if name.is_empty() || !is_plain(name) {
            return bad(format!(
                "Invalid security group name. Valid names contain 1 to 255 characters from the following set: {CHARACTERS}"
            ));
        }
        if name == DEFAULT {
            return bad(format!("Cannot use reserved security group name: {name}"));
        }
        if name.starts_with(IdKind::SecurityGroup.prefix()) {
            return bad(format!(
                "Value ({name}) for parameter GroupName is invalid. Group names may not be in the format sg-*"
            ));
        }
        if description.is_empty() || !is_plain(description) {
            return bad(format!(
                "Invalid security group description. Valid descriptions are strings less than 256 characters from the \
                 following set: {CHARACTERS}"
            ));
        }
        Ok(SecurityGroup {
            group_id: IdKind::SecurityGroup.generate(),
            group_name: name.to_owned(),
            description: description.to_owned(),
            vpc_id: default_vpc(),
            rules: vec![rule(Direction::Egress, Permission::all(Cidr::ANY_IPV4.into()), None)],
        })
    }

    /// The default VPC's own group, as it is before anybody changes it: EC2's two rules (all from the group itself, all may go
    /// out), and two of this region's, which let everything in that reaches a published port. At EC2 a rule decides who gets at an
    /// instance; here the address that a port is published on does so already, and it is this machine's loopback if none is named.
    pub fn default_group() -> Self {
        let group_id = IdKind::SecurityGroup.derive(DEFAULT);
        let rule = |direction, peer, number: u8, description: Option<&str>| Rule {
            security_group_rule_id: IdKind::SecurityGroupRule.derive(&format!("{DEFAULT} {number}")),
            ..self::rule(direction, Permission::all(peer), description.map(str::to_owned))
        };
        let published = Some("amiable: what is published is reachable");
        SecurityGroup {
            rules: vec![
                rule(Direction::Ingress, Peer::ReferencedGroupId(group_id.clone()), 1, None),
                rule(Direction::Ingress, Cidr::ANY_IPV4.into(), 2, published),
                rule(Direction::Ingress, Cidr::ANY_IPV6.into(), 3, published),
                rule(Direction::Egress, Cidr::ANY_IPV4.into(), 4, None),
            ],
            group_id,
            group_name: DEFAULT.to_owned(),
            description: "default VPC security group".to_owned(),
            vpc_id: default_vpc(),
        }
    }

    /// Whether it is the VPC's own group, which can't be deleted.
    pub fn is_default(&self) -> bool {
        self.group_name == DEFAULT
    }

    /// How instances name it.
    pub fn identifier(&self) -> GroupIdentifier {
        GroupIdentifier { group_id: self.group_id.clone(), group_name: self.group_name.clone() }
    }

    /// The permissions of one direction.
    pub fn permissions(&self, direction: Direction) -> impl Iterator<Item = &Permission> {
        self.rules(direction).map(|rule| &rule.permission)
    }

    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.is_egress == (direction == Direction::Egress))
    }

    /// Add rules: all of them or none. Gives them with their ids.
    ///
    /// # Errors
    /// `InvalidPermission.Duplicate`, `RulesPerSecurityGroupLimitExceeded`, `InvalidParameterValue` for a description that EC2
    /// does not take.
    pub fn authorize(
        &mut self,
        direction: Direction,
        permissions: Vec<Permission>,
        description: Option<&str>,
    ) -> Result<Vec<Rule>, Ec2Error> {
        if description.is_some_and(|text| !is_plain(text)) {
            return Err(Ec2Error::invalid_parameter_value(format!(
                "Invalid rule description. Valid descriptions are strings less than 256 characters from the following \
                 set: {CHARACTERS}"
            )));
        }
        for (index, permission) in permissions.iter().enumerate() {
            if permissions.get(..index).is_some_and(|before| before.contains(permission)) {
                let text = "The same permission must not appear multiple times";
                return Err(Ec2Error::invalid_parameter_value(text));
            }
            if self.permissions(direction).any(|there| there == permission) {
                let text = format!("the specified rule \"{permission}\" already exists");
                return Err(Ec2Error::new("InvalidPermission.Duplicate", text));
            }
        }
        if self.rules(direction).count() + permissions.len() > MOST_RULES {
            let text = "The maximum number of rules per security group has been reached.";
            return Err(Ec2Error::new("RulesPerSecurityGroupLimitExceeded", text));
        }
        let description = description.filter(|text| !text.is_empty()).map(str::to_owned);
        let added: Vec<Rule> =
            permissions.into_iter().map(|permission| rule(direction, permission, description.clone())).collect();
        self.rules.extend(added.iter().cloned());
        Ok(added)
    }

    /// Take rules away: all of them or none.
    ///
    /// # Errors
    /// `InvalidPermission.NotFound`.
    pub fn revoke(&mut self, direction: Direction, permissions: &[Permission]) -> Result<(), Ec2Error> {
        if permissions.iter().any(|gone| self.permissions(direction).all(|there| there != gone)) {
            let text = "The specified rule does not exist in this security group.";
            return Err(Ec2Error::new("InvalidPermission.NotFound", text));
        }
        let egress = direction == Direction::Egress;
        self.rules.retain(|rule| rule.is_egress != egress || !permissions.contains(&rule.permission));
        Ok(())
    }

    /// Take rules away by their ids: all of them or none.
    ///
    /// # Errors
    /// `InvalidSecurityGroupRuleId.NotFound`.
    pub fn revoke_rules(&mut self, direction: Direction, rule_ids: &[String]) -> Result<(), Ec2Error> {
        let lacking = |id: &&String| self.rules(direction).all(|rule| rule.security_group_rule_id != **id);
        if let Some(id) = rule_ids.iter().find(lacking) {
            let text = format!("The security group rule ID '{id}' does not exist");
            return Err(Ec2Error::new("InvalidSecurityGroupRuleId.NotFound", text));
        }
        self.rules.retain(|rule| !rule_ids.contains(&rule.security_group_rule_id));
        Ok(())
    }

    /// The group in the form of EC2's DescribeSecurityGroups, with rules of the same protocol and ports as one permission.
    pub fn describe(&self) -> Value {
        json!({
            "GroupId": self.group_id,
            "GroupName": self.group_name,
            "Description": self.description,
            "OwnerId": DEFAULT_ACCOUNT,
            "VpcId": self.vpc_id,
            "IpPermissions": self.ip_permissions(Direction::Ingress),
            "IpPermissionsEgress": self.ip_permissions(Direction::Egress),
        })
    }

    fn ip_permissions(&self, direction: Direction) -> Vec<Value> {
        let mut made: Vec<((Protocol, i32, i32), Value)> = Vec::new();
        for rule in self.rules(direction) {
            let Permission { ip_protocol, from_port, to_port, peer } = &rule.permission;
            let key = (*ip_protocol, *from_port, *to_port);
            let index = made.iter().position(|(there, _)| *there == key).unwrap_or_else(|| {
                let mut value = json!({
                    "IpProtocol": ip_protocol, "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": [], "UserIdGroupPairs": [],
                });
                if matches!(ip_protocol, Protocol::Tcp | Protocol::Udp | Protocol::Icmp) {
                    value["FromPort"] = (*from_port).into();
                    value["ToPort"] = (*to_port).into();
                }
                made.push((key, value));
                made.len() - 1
            });
            let (list, mut range) = match peer {
                Peer::CidrIpv4(cidr) => ("IpRanges", json!({ "CidrIp": cidr })),
                Peer::CidrIpv6(cidr) => ("Ipv6Ranges", json!({ "CidrIpv6": cidr })),
                Peer::ReferencedGroupId(id) => {
                    ("UserIdGroupPairs", json!({ "GroupId": id, "UserId": DEFAULT_ACCOUNT }))
                }
            };
            if let Some(description) = &rule.description {
                range["Description"] = description.as_str().into();
            }
            if let Some(ranges) = made.get_mut(index).and_then(|(_, value)| value[list].as_array_mut()) {
                ranges.push(range);
            }
        }
        made.into_iter().map(|(_, value)| value).collect()
    }
}

/// Whether one of `groups` lets the first packet of a flow through, which comes from or goes to `peer`.
pub fn admits(groups: &[SecurityGroup], direction: Direction, traffic: Traffic, peer: IpAddr) -> bool {
    groups.iter().any(|group| group.permissions(direction).any(|permission| permission.admits(traffic, peer)))
}

fn rule(direction: Direction, permission: Permission, description: Option<String>) -> Rule {
    Rule {
        security_group_rule_id: IdKind::SecurityGroupRule.generate(),
        is_egress: direction == Direction::Egress,
        permission,
        description,
    }
}

fn default_vpc() -> String {
    IdKind::Vpc.derive(DEFAULT)
}

fn is_plain(text: &str) -> bool {
    text.len() <= 255 && text.chars().all(|c| c.is_ascii_alphanumeric() || MARKS.contains(c))
}

#[cfg(test)]
#[path = "security_group_tests.rs"]
mod tests;
