//! Security groups: made, changed, deleted, and brought to the processes of the instances that are in them.
//!
//! The default group is always there: until it is changed it is not in the store. A change is recorded together with the instances
//! whose processes have to hear of it; they are told at once, or if that is cut short, by the next command.

use std::time::{Duration, Instant};

use super::Region;
use super::error::RegionError;
use super::model::Instance;
use super::store::Tables;
use crate::ec2::Ec2Error;
use crate::ec2::security_group::{
    Direction, MOST_GROUPS, MOST_GROUPS_OF_AN_INTERFACE, Peer, Permission, Rule, SecurityGroup,
};
use crate::host::control::Request;
use crate::host::observer::{AskError, Observer};
use crate::host::spec::SecurityGroups;

/// How long a process may take to take rules up: it begins to listen a moment after its launch, and in the emulated host everything
/// takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// ... where nobody waits for that one.
const LITTLE_PATIENCE: Duration = Duration::from_secs(2);

impl Region {
    /// Make a group.
    ///
    /// # Errors
    /// `InvalidGroup.Duplicate`, `InvalidParameterValue`, `SecurityGroupLimitExceeded`.
    pub fn create_security_group(&mut self, name: &str, description: &str) -> Result<SecurityGroup, RegionError> {
        let group = SecurityGroup::new(name, description)?;
        self.store.transaction(|tables| -> Result<(), RegionError> {
            let groups = all(tables)?;
            if groups.iter().any(|there| there.group_name == name) {
                let text = format!("The security group '{name}' already exists for VPC '{}'", group.vpc_id);
                return Err(Ec2Error::new("InvalidGroup.Duplicate", text).into());
            }
            if groups.len() >= MOST_GROUPS {
                let text = "The maximum number of security groups has been reached.";
                return Err(Ec2Error::new("SecurityGroupLimitExceeded", text).into());
            }
            Ok(tables.put_security_group(&group.group_id, name, &group)?)
        })?;
        Ok(group)
    }

    /// All groups, the default one first.
    pub fn security_groups(&self) -> Result<Vec<SecurityGroup>, RegionError> {
        all(&self.store.tables())
    }

    /// The group of this id or name, or whose id starts so.
    ///
    /// # Errors
    /// `InvalidGroup.NotFound`; a key that fits several.
    pub fn security_group(&self, key: &str) -> Result<SecurityGroup, RegionError> {
        find(&self.store.tables(), key)
    }

    /// The instances of a group that are not terminated.
    pub fn instances_in_group(&self, group: &SecurityGroup) -> Result<Vec<Instance>, RegionError> {
        Ok(self.store.tables().instances_in_group(&group.group_id, group.is_default())?)
    }

    /// The groups that an instance is in.
    pub fn groups_of(&self, instance: &Instance) -> Result<Vec<SecurityGroup>, RegionError> {
        Ok(groups_of(&self.store.tables(), instance)?.groups)
    }

    /// Delete a group.
    ///
    /// # Errors
    /// `CannotDelete` for the default group, `DependencyViolation` while instances are in it or other groups' rules name it.
    pub fn delete_security_group(&mut self, group_id: &str) -> Result<(), RegionError> {
        self.store.transaction(|tables| {
            let group = find(tables, group_id)?;
            if group.is_default() {
                let text = format!(
                    "the specified group: \"{group_id}\" name: \"{}\" cannot be deleted by a user",
                    group.group_name
                );
                return Err(Ec2Error::new("CannotDelete", text).into());
            }
            let instances: Vec<Instance> = tables.instances_in_group(group_id, false)?;
            let named = |rule: &Rule| matches!(&rule.permission.peer, Peer::ReferencedGroupId(id) if id == group_id);
            let groups = all(tables)?.into_iter().filter(|g| g.group_id != group_id && g.rules.iter().any(named));
            let users: Vec<String> =
                instances.into_iter().map(|i| i.instance_id).chain(groups.map(|g| g.group_id)).collect();
            if !users.is_empty() {
                let text = format!("resource {group_id} has a dependent object: {}", users.join(", "));
                return Err(Ec2Error::new("DependencyViolation", text).into());
            }
            Ok(tables.remove_security_group(group_id)?)
        })
    }

    /// Add rules to a group: all or none. They hold at once, also for running instances.
    ///
    /// # Errors
    /// `InvalidPermission.Duplicate`, `RulesPerSecurityGroupLimitExceeded`, `InvalidGroup.NotFound` for a group that a rule names.
    pub fn authorize_security_group(
        &mut self,
        group_id: &str,
        direction: Direction,
        permissions: Vec<Permission>,
        description: Option<&str>,
    ) -> Result<Vec<Rule>, RegionError> {
        self.change_group(group_id, |tables, group| {
            for permission in &permissions {
                if let Peer::ReferencedGroupId(id) = &permission.peer {
                    find(tables, id)?;
                }
            }
            Ok(group.authorize(direction, permissions, description)?)
        })
    }

    /// Take rules from a group: all or none. Flows that they let through go on.
    ///
    /// # Errors
    /// `InvalidPermission.NotFound`, `InvalidSecurityGroupRuleId.NotFound`.
    pub fn revoke_security_group(
        &mut self,
        group_id: &str,
        direction: Direction,
        permissions: &[Permission],
        rule_ids: &[String],
    ) -> Result<(), RegionError> {
        self.change_group(group_id, |_, group| {
            if !permissions.is_empty() {
                group.revoke(direction, permissions)?;
            }
            Ok(group.revoke_rules(direction, rule_ids)?)
        })
    }

    fn change_group<T>(
        &mut self,
        group_id: &str,
        change: impl FnOnce(&Tables<'_>, &mut SecurityGroup) -> Result<T, RegionError>,
    ) -> Result<T, RegionError> {
        let changed = self.store.transaction(|tables| -> Result<T, RegionError> {
            let mut group = find(tables, group_id)?;
            let changed = change(tables, &mut group)?;
            tables.put_security_group(&group.group_id, &group.group_name, &group)?;
            let mut instances: Vec<Instance> = tables.instances_alive()?;
            instances.retain(|instance| is_in(instance, &group));
            tables.security_groups_changed(instances.iter().map(|instance| instance.instance_id.as_str()))?;
            Ok(changed)
        })?;
        super::step::reached("security group: recorded");
        self.tell_groups()?;
        Ok(changed)
    }

    /// Tell the processes of instances whose groups have changed.
    ///
    /// # Errors
    /// A process that does not take the rules up; the next command tries again.
    pub(super) fn tell_groups(&mut self) -> Result<(), RegionError> {
        self.tell_groups_within(PATIENCE)
    }

    /// The same for what an earlier command left, as far as it goes.
    pub(super) fn remind_of_groups(&mut self) {
        let _ = self.tell_groups_within(LITTLE_PATIENCE);
    }

    fn tell_groups_within(&mut self, patience: Duration) -> Result<(), RegionError> {
        let mut result = Ok(());
        for instance_id in self.store.tables().untold_groups()? {
            // One state of all of it.
            let set = self.store.transaction(|tables| -> Result<_, RegionError> {
                let version = tables.security_group_version()?;
                let instance: Option<Instance> = tables.instance(&instance_id)?;
                instance.map_or(Ok(SecurityGroups { version, ..Default::default() }), |i| groups_of(tables, &i))
            })?;
            let version = set.version;
            match self.tell_process(&instance_id, set, patience) {
                Ok(()) => self.store.tables().told_groups(&instance_id, version)?,
                Err(error) => result = Err(error),
            }
        }
        result
    }

    fn tell_process(&self, instance_id: &str, groups: SecurityGroups, patience: Duration) -> Result<(), RegionError> {
        let until = Instant::now() + patience;
        let failed = |why: &dyn std::fmt::Display| {
            RegionError::Other(format!("the change is recorded, but {instance_id} does not filter by it yet: {why}"))
        };
        // A process that was started just now listens in a moment; one that ends has no use for rules.
        while self.has_process(instance_id) {
            match Observer::connect(&self.paths.control(instance_id)) {
                Ok((_, mut observer)) => {
                    return match observer.ask(Request::SecurityGroups { groups }, patience) {
                        Ok(()) | Err(AskError::Ended) => Ok(()),
                        Err(error) => Err(failed(&error)),
                    };
                }
                Err(error) if Instant::now() >= until => return Err(failed(&error)),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Ok(())
    }
}

/// All groups, the default one first.
fn all(tables: &Tables<'_>) -> Result<Vec<SecurityGroup>, RegionError> {
    let mut groups: Vec<SecurityGroup> = tables.security_groups()?;
    match groups.iter().position(SecurityGroup::is_default) {
        Some(at) => groups.get_mut(..=at).into_iter().for_each(|some| some.rotate_right(1)),
        None => groups.insert(0, SecurityGroup::default_group()),
    }
    Ok(groups)
}

/// The group of this id or name, or whose id starts so.
fn find(tables: &Tables<'_>, key: &str) -> Result<SecurityGroup, RegionError> {
    let mut found: Vec<SecurityGroup> = tables.find_security_groups(key)?;
    let default = SecurityGroup::default_group();
    if (default.group_name == key || default.group_id.starts_with(key))
        && found.iter().all(|group| group.group_id != default.group_id)
    {
        found.push(default);
    }
    let exact = |group: &SecurityGroup| group.group_name == key || group.group_id == key;
    if let Some(at) = found.iter().position(exact) {
        return Ok(found.swap_remove(at));
    }
    match (found.len(), found.pop()) {
        (1, Some(group)) if !key.is_empty() => Ok(group),
        (2.., Some(_)) if !key.is_empty() => {
            Err(Ec2Error::new("InvalidGroupId.Malformed", format!("'{key}' may mean more than one group")).into())
        }
        _ => Err(Ec2Error::security_group_not_found(key).into()),
    }
}

/// The groups that an instance is to be in: the default one if none is named.
///
/// # Errors
/// `InvalidGroup.NotFound`, `SecurityGroupsPerInterfaceLimitExceeded`, `InvalidParameterValue` for one that is named twice.
pub(super) fn resolve(tables: &Tables<'_>, keys: &[String]) -> Result<Vec<SecurityGroup>, RegionError> {
    if keys.is_empty() {
        return Ok(vec![find(tables, crate::ec2::security_group::DEFAULT)?]);
    }
    let groups = keys.iter().map(|key| find(tables, key)).collect::<Result<Vec<_>, _>>()?;
    if groups.len() > MOST_GROUPS_OF_AN_INTERFACE {
        let text = "The maximum number of security groups per interface has been reached.";
        return Err(Ec2Error::new("SecurityGroupsPerInterfaceLimitExceeded", text).into());
    }
    for (index, group) in groups.iter().enumerate() {
        if groups.iter().take(index).any(|before| before.group_id == group.group_id) {
            let text = format!("The security group '{}' is given twice", group.group_id);
            return Err(Ec2Error::invalid_parameter_value(text).into());
        }
    }
    Ok(groups)
}

/// Put an instance into groups. Its process, if it has one, is to be told afterwards.
pub(super) fn assign(tables: &Tables<'_>, instance: &mut Instance, keys: &[String]) -> Result<(), RegionError> {
    instance.security_groups = resolve(tables, keys)?.iter().map(SecurityGroup::identifier).collect();
    Ok(tables.security_groups_changed([instance.instance_id.as_str()])?)
}

/// What filters an instance, with all that it says.
pub(super) fn groups_of(tables: &Tables<'_>, instance: &Instance) -> Result<SecurityGroups, RegionError> {
    let keys: Vec<String> = instance.security_groups.iter().map(|group| group.group_id.clone()).collect();
    Ok(SecurityGroups { version: tables.security_group_version()?, groups: resolve(tables, &keys)? })
}

fn is_in(instance: &Instance, group: &SecurityGroup) -> bool {
    let mut groups = instance.security_groups.iter();
    groups.any(|of| of.group_id == group.group_id) || (instance.security_groups.is_empty() && group.is_default())
}

#[cfg(test)]
#[path = "security_groups_tests.rs"]
mod tests;
