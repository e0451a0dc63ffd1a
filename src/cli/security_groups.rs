//! `amiable security-group`, and what other commands say of groups that keep them out.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::args::{OutputForm, RuleArgs, SecurityGroupCommand};
use super::error::{CliError, exit};
use super::output::{print_list, print_value, write_out};
use super::{open_region, region_error};
use crate::ec2::security_group::{Cidr, Direction, Peer, Permission, Protocol, Rule, Traffic, admits};
use crate::ec2::{Ec2Error, security_group};
use crate::host::firewall;
use crate::host::spec::PortForward;
use crate::region::Region;
use crate::region::error::RegionError;
use crate::region::model::Instance;

fn no_group(error: &RegionError) -> CliError {
    match error.code() {
        Some("InvalidGroup.NotFound") => region_error(error).next("amiable security-group ls"),
        _ => region_error(error),
    }
}

/// `amiable security-group`.
pub fn run(command: SecurityGroupCommand) -> Result<(), CliError> {
    let mut region = open_region()?;
    match command {
        SecurityGroupCommand::Create { name, description } => {
            let description = description.as_deref().unwrap_or(&name);
            let group = region.create_security_group(&name, description).map_err(|e| region_error(&e))?;
            write_out(&format!("{}\n", group.group_id))
        }
        SecurityGroupCommand::Ls(output) => {
            let groups = region.security_groups().map_err(|e| region_error(&e))?;
            print_list(
                &output,
                "SecurityGroups",
                &groups,
                &[
                    ("GROUP ID", &|g| g.group_id.clone()),
                    ("NAME", &|g| g.group_name.clone()),
                    ("INGRESS RULES", &|g| g.rules(Direction::Ingress).count().to_string()),
                    ("EGRESS RULES", &|g| g.rules(Direction::Egress).count().to_string()),
                    ("DESCRIPTION", &|g| g.description.clone()),
                ],
                |g| g.describe(),
            )
        }
        SecurityGroupCommand::Describe { group, output } => {
            let group = region.security_group(&group).map_err(|e| no_group(&e))?;
            let instances = region.instances_in_group(&group).map_err(|e| region_error(&e))?;
            let ids: Vec<&str> = instances.iter().map(|instance| instance.instance_id.as_str()).collect();
            if output.output == OutputForm::Table && output.query.is_none() {
                let of = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
                let (id, name, text) = (&group.group_id, &group.group_name, &group.description);
                write_out(&format!("{id}  {name}: {text}\ninstances: {of}\n"))?;
                return print_list(
                    &output,
                    "SecurityGroupRules",
                    &group.rules,
                    &[
                        ("RULE ID", &|r| r.security_group_rule_id.clone()),
                        ("DIRECTION", &|r| if r.is_egress { "egress" } else { "ingress" }.to_owned()),
                        ("PROTOCOL", &|r| protocol(r.permission.ip_protocol)),
                        ("PORTS", &|r| ports(&r.permission)),
                        ("PEER", &|r| r.permission.peer.to_string()),
                        ("DESCRIPTION", &|r| r.description.clone().unwrap_or_default()),
                    ],
                    |r| json!(r),
                );
            }
            let mut value = group.describe();
            value["Amiable"] = json!({ "Instances": ids, "SecurityGroupRules": group.rules });
            print_value(&output, value)
        }
        SecurityGroupCommand::Authorize { rules, description } => {
            let (id, direction, permissions) = permissions(&region, &rules)?;
            if permissions.is_empty() {
                return Err(nothing());
            }
            let added: Vec<Rule> = region
                .authorize_security_group(&id, direction, permissions, description.as_deref())
                .map_err(|e| region_error(&e))?;
            write_out(&added.iter().map(|rule| format!("{}\n", rule.security_group_rule_id)).collect::<String>())
        }
        SecurityGroupCommand::Revoke { rules, rule_ids } => {
            let (id, direction, permissions) = permissions(&region, &rules)?;
            if permissions.is_empty() && rule_ids.is_empty() {
                return Err(nothing());
            }
            region.revoke_security_group(&id, direction, &permissions, &rule_ids).map_err(|e| match e.code() {
                Some(code) if code.ends_with(".NotFound") => {
                    region_error(&e).next(format!("amiable security-group describe {id}"))
                }
                _ => region_error(&e),
            })
        }
        SecurityGroupCommand::Rm { groups } => {
            for key in groups {
                let id = region.security_group(&key).map_err(|e| no_group(&e))?.group_id;
                region.delete_security_group(&id).map_err(|e| region_error(&e))?;
            }
            Ok(())
        }
    }
}

fn nothing() -> CliError {
    let what = "a rule needs --protocol and the other side: --cidr or --source-group";
    CliError::new(exit::USAGE, what)
        .next("amiable security-group authorize GROUP --protocol tcp --port 22 --cidr 0.0.0.0/0")
}

/// The group's id and what the flags say of it: a permission for each other side.
fn permissions(region: &Region, args: &RuleArgs) -> Result<(String, Direction, Vec<Permission>), CliError> {
    let refused = |error: Ec2Error| region_error(&error.into());
    let group = region.security_group(&args.group).map_err(|e| no_group(&e))?;
    let direction = if args.egress { Direction::Egress } else { Direction::Ingress };
    let mut peers = Vec::new();
    for cidr in &args.cidr {
        peers.push(Peer::from(cidr.parse::<Cidr>().map_err(refused)?));
    }
    for key in &args.source_group {
        peers.push(Peer::ReferencedGroupId(region.security_group(key).map_err(|e| no_group(&e))?.group_id));
    }
    let Some(protocol) = &args.protocol else {
        return if peers.is_empty() { Ok((group.group_id, direction, Vec::new())) } else { Err(nothing()) };
    };
    let protocol: Protocol = protocol.parse().map_err(refused)?;
    let made = peers.into_iter().map(|peer| Permission::new(protocol, args.port, peer)).collect::<Result<_, _>>();
    Ok((group.group_id, direction, made.map_err(refused)?))
}

fn protocol(protocol: Protocol) -> String {
    if protocol == Protocol::All { "all".to_owned() } else { protocol.to_string() }
}

fn ports(permission: &Permission) -> String {
    match (permission.ip_protocol, permission.from_port, permission.to_port) {
        (Protocol::Tcp | Protocol::Udp, from, to) if from == to => from.to_string(),
        (Protocol::Tcp | Protocol::Udp, from, to) => format!("{from}-{to}"),
        (Protocol::Icmp, kind @ 0.., code @ 0..) => format!("type {kind} code {code}"),
        (Protocol::Icmp, kind @ 0.., _) => format!("type {kind}"),
        _ => "all".to_owned(),
    }
}

/// The command that would let this machine into an instance through one of its published ports, if the instance's groups do not.
pub fn what_would_allow(
    region: &Region,
    instance: &Instance,
    forward: &PortForward,
) -> Result<Option<String>, RegionError> {
    let groups = region.groups_of(instance)?;
    let traffic = if forward.udp { Traffic::Udp(forward.guest_port) } else { Traffic::Tcp(forward.guest_port) };
    // A client here that connects to an address of this machine has that address itself.
    let peer = match forward.host.ip() {
        _ if instance.amiable.emulated => firewall::stand_in(forward.host),
        address if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address,
    };
    if admits(&groups, Direction::Ingress, traffic, peer) {
        return Ok(None);
    }
    let group = groups.first().map_or(security_group::DEFAULT, |group| &group.group_id);
    Ok(Some(firewall::allow(group, Direction::Ingress, traffic, peer)))
}

/// What to say of published ports that the groups of a new instance close.
pub fn closed_ports(region: &Region, instance: &Instance) -> Result<Vec<String>, CliError> {
    let mut warnings = Vec::new();
    for forward in &instance.amiable.published {
        if let Some(command) = what_would_allow(region, instance, forward).map_err(|e| region_error(&e))? {
            let port = forward.guest_port;
            let names: Vec<&str> = instance.security_groups.iter().map(|group| group.group_name.as_str()).collect();
            let names = names.join(", ");
            warnings.push(format!("port {port} is published, and no rule of {names} lets this machine in: {command}"));
        }
    }
    Ok(warnings)
}

/// Say why `ssh` would wait for nothing, if it would.
pub fn check_reachable(region: &Region, instance: &Instance, forward: &PortForward) -> Result<(), CliError> {
    match what_would_allow(region, instance, forward).map_err(|e| region_error(&e))? {
        None => Ok(()),
        Some(command) => {
            let id = &instance.instance_id;
            let what = format!("{id} can't be reached: no rule of its security groups lets this machine in at port 22");
            Err(CliError::new(exit::REGION, what).next(command))
        }
    }
}
