//! Instances of the region: found, changed, deleted, and shown as what they are.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::attachments::release;
use super::error::RegionError;
use super::lock;
use super::model::{Instance, StateName, StateReason};
use super::store::{InstanceRow, Tables};
use super::volumes::{forget, put_volume, volumes_of};
use super::{Region, now, time_text};
use crate::ec2::Ec2Error;

/// How long a terminated instance is shown.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

impl Instance {
    /// Its private address.
    pub fn address(&self) -> Ipv4Addr {
        // Nothing else is ever written there.
        self.private_ip_address.parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }
}

impl Region {
    /// The instance of this id or name, or whose id starts so.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`; a key that fits several.
    pub fn instance(&self, key: &str) -> Result<Instance, RegionError> {
        let mut found = self.store.tables().find_instances::<Instance>(key)?;
        if found.len() > 1 && found[0].instance_id != key {
            // A name may be used again once its instance is terminated.
            let alive = |i: &Instance| i.state.name != StateName::Terminated;
            if found.iter().filter(|i| alive(i)).count() == 1 {
                found.retain(alive);
            } else {
                let ids: Vec<_> = found.iter().map(|i| i.instance_id.as_str()).collect();
                let message = format!("'{key}' may mean {}", ids.join(" or "));
                return Err(Ec2Error::new("InvalidInstanceID.Malformed", message).into());
            }
        }
        if key.is_empty() || found.is_empty() {
            return Err(Ec2Error::instance_not_found(&[key]).into());
        }
        Ok(self.as_it_is(found.swap_remove(0)))
    }

    /// All instances, the newest last.
    pub fn instances(&self) -> Result<Vec<Instance>, RegionError> {
        let instances = self.store.tables().instances::<Instance>()?;
        Ok(instances.into_iter().map(|instance| self.as_it_is(instance)).collect())
    }

    /// Change an instance's record, if it is there.
    pub(super) fn change(
        &mut self,
        instance_id: &str,
        change: impl FnOnce(&mut Instance) -> Result<(), RegionError>,
    ) -> Result<Instance, RegionError> {
        self.store.transaction(|tables| {
            let mut instance: Instance =
                tables.instance(instance_id)?.ok_or_else(|| Ec2Error::instance_not_found(&[instance_id]))?;
            change(&mut instance)?;
            put(tables, &instance)?;
            Ok(instance)
        })
    }

    /// Make the record say `terminated` and delete the instance's volumes and records. One that is terminated already only
    /// loses what is left of it.
    pub(super) fn delete_instance(&mut self, instance_id: &str, reason: StateReason) -> Result<Instance, RegionError> {
        self.finish_snapshots()?;
        let store = &mut self.store;
        let (instance, files) =
            store.durable_transaction(|tables| -> Result<(Instance, Vec<String>), RegionError> {
                let mut instance: Instance =
                    tables.instance(instance_id)?.ok_or_else(|| Ec2Error::instance_not_found(&[instance_id]))?;
                let mut files = Vec::new();
                for mut volume in volumes_of(tables, instance_id)? {
                    // In stores of version 1 an instance had its root volume only.
                    if volume.attachments.first().is_none_or(|attachment| attachment.delete_on_termination) {
                        tables.remove_volume(&volume.volume_id)?;
                        files.extend(forget(tables, &volume.volume_id)?);
                    } else {
                        release(&mut volume);
                        put_volume(tables, &volume)?;
                    }
                }
                tables.remove_launch(instance_id)?;
                if instance.state.name != StateName::Terminated {
                    instance.state = StateName::Terminated.into();
                    instance.state_reason = Some(reason);
                    instance.amiable.published.clear();
                    instance.amiable.ended = Some(now());
                }
                put(tables, &instance)?;
                Ok((instance, files))
            })?;
        // What is left if this is cut short is found by `prune`.
        super::step::reached("terminate: record changed");
        self.remove_files(&files)?;
        super::step::reached("terminate: volumes removed");
        let records = self.paths.instance(instance_id);
        match std::fs::remove_dir_all(&records) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RegionError::File { action: "remove", path: records.display().to_string(), source })
            }
            _ => Ok(instance),
        }
    }

    /// Forget instances that were terminated an hour ago, as EC2 does, with whatever is left of their records.
    pub(super) fn forget_terminated(&mut self) -> Result<(), RegionError> {
        let before = time_text(jiff::Timestamp::now() - FORGOTTEN_AFTER);
        if self.store.tables().instances_ended_before(&before)?.is_empty() {
            return Ok(());
        }
        let forgotten = self.store.transaction(|tables| -> Result<Vec<String>, RegionError> {
            let ids = tables.instances_ended_before(&before)?;
            ids.iter().try_for_each(|id| tables.remove_instance(id))?;
            Ok(ids)
        })?;
        for id in forgotten {
            // What can't be removed now is found by `prune`.
            let _ = std::fs::remove_dir_all(self.paths.instance(&id));
        }
        Ok(())
    }

    /// The number of the instance's process, if it lives.
    pub fn process_id(&self, instance_id: &str) -> Option<u32> {
        lock::holder(&self.paths.lock(instance_id))
    }

    /// Whether the instance's process lives.
    pub fn has_process(&self, instance_id: &str) -> bool {
        lock::is_held(&self.paths.lock(instance_id))
    }
}

/// Write an instance's record.
pub(super) fn put(tables: &Tables<'_>, instance: &Instance) -> Result<(), RegionError> {
    let gone = instance.state.name == StateName::Terminated;
    let mut instance = Cow::Borrowed(instance);
    if matches!(instance.state.name, StateName::Stopped | StateName::Terminated) && instance.public_ip_address.is_some()
    {
        let instance = instance.to_mut();
        (instance.public_ip_address, instance.public_dns_name) = (None, None);
    }
    let row = InstanceRow {
        instance_id: &instance.instance_id,
        image_id: &instance.image_id,
        state: instance.state.name.as_str(),
        private_ip: (!gone).then_some(&instance.private_ip_address),
        launched: &instance.launch_time,
    };
    Ok(tables.put_instance(row, &*instance)?)
}
