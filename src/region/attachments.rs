//! Volumes attached to instances and detached, and the names and slots that they get.
//!
//! An attachment is recorded before the instance's process is told of it, and taken from the record after the process has let go. So
//! what a running instance holds is always recorded, and whoever is killed in between leaves `attaching` or `detaching`, which the
//! same command brings to its end.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::RegionError;
use super::model::{Attachment, AttachmentState, Instance, StateName, Volume, VolumeState};
use super::store::Tables;
use super::volumes::{Places, put_volume, read, volumes_of};
use super::{Region, now};
use crate::ec2::{Ec2Error, instance_types};
use crate::host::control::Request;
use crate::host::event::VolumeChange;
use crate::host::observer::Observer;
use crate::host::spec::{ROOT_SLOT, VOLUME_SLOTS, store_slots};

/// How long a process may take for a change: a guest has half a minute to let go of a volume, ten times so long when emulated.
const PATIENCE: Duration = Duration::from_secs(400);
/// How a process tells of a full disk and of a used-up quota: ENOSPC and EDQUOT in Rust's words.
const NO_ROOM: [&str; 2] = ["(os error 28)", "(os error 122)"];

impl Region {
    /// Attach a volume to an instance, running or stopped, as `device`; the next free name if not said. Answers the name.
    ///
    /// # Errors
    /// `VolumeInUse`, `InvalidParameterValue` for a device name that is none or taken, `AttachmentLimitExceeded`.
    pub fn attach_volume(
        &mut self,
        volume_id: &str,
        instance_id: &str,
        device: Option<&str>,
    ) -> Result<String, RegionError> {
        let (volume, device) = self.store.transaction(|tables| -> Result<_, RegionError> {
            let mut volume = read(tables, volume_id)?;
            let instance: Instance =
                tables.instance(instance_id)?.ok_or_else(|| Ec2Error::instance_not_found(&[instance_id]))?;
            if let Some(there) = volume.attachments.first().cloned() {
                if there.instance_id == instance_id && there.state == AttachmentState::Attaching {
                    // Somebody began it and was killed.
                    return Ok((volume, there.device));
                }
                let text = format!("{volume_id} is already attached to {}", there.instance_id);
                return Err(Ec2Error::new("VolumeInUse", text).into());
            }
            if !matches!(instance.state.name, StateName::Running | StateName::Stopped) {
                let text = format!("Instance '{instance_id}' is not 'running' or 'stopped'.");
                return Err(Ec2Error::new("IncorrectState", text).into());
            }
            place(tables, &mut volume, &instance, device, false)?;
            put_volume(tables, &volume)?;
            let device = volume.attachments[0].device.clone();
            Ok((volume, device))
        })?;
        super::step::reached("attach: recorded");
        let places = Places { paths: &self.paths };
        let spec = places.volume_spec(&volume, &device, false);
        let told = places.settle_size(&volume);
        let told = told.and_then(|()| self.change_volume(instance_id, VolumeChange::Attach { volume: spec }));
        if let Err(error) = told {
            self.edit(volume_id, release)?;
            return Err(error);
        }
        super::step::reached("attach: done by the process");
        self.edit(volume_id, |volume| set_attachment(volume, AttachmentState::Attached))?;
        Ok(device)
    }

    /// Detach a volume from its instance.
    ///
    /// # Errors
    /// `IncorrectState` where it is attached to nothing; `OperationNotPermitted` for the root volume of an instance that is not
    /// stopped; a guest that does not let go of it.
    pub fn detach_volume(&mut self, volume_id: &str, force: bool) -> Result<(), RegionError> {
        let mut attached = String::new();
        let store = &mut self.store;
        store.transaction(|tables| -> Result<(), RegionError> {
            let mut volume = read(tables, volume_id)?;
            let Some(instance_id) = volume.instance_id().map(str::to_owned) else {
                let text = format!("Volume '{volume_id}' is in the 'available' state.");
                return Err(Ec2Error::new("IncorrectState", text).into());
            };
            let instance: Option<Instance> = tables.instance(&instance_id)?;
            let is_root = instance.as_ref().is_some_and(|i| i.root_volume_id == volume_id);
            let lets_go = |state| matches!(state, StateName::Stopped | StateName::Terminated);
            if is_root && instance.is_some_and(|i| !lets_go(i.state.name)) {
                let text = format!("Unable to detach root volume '{volume_id}' from instance '{instance_id}'");
                return Err(Ec2Error::new("OperationNotPermitted", text).into());
            }
            set_attachment(&mut volume, AttachmentState::Detaching);
            put_volume(tables, &volume)?;
            attached = instance_id;
            Ok(())
        })?;
        super::step::reached("detach: recorded");
        let change = VolumeChange::Detach { volume_id: volume_id.to_owned(), force };
        if let Err(error) = self.change_volume(&attached, change) {
            self.edit(volume_id, |volume| set_attachment(volume, AttachmentState::Attached))?;
            return Err(error);
        }
        super::step::reached("detach: done by the process");
        self.edit(volume_id, release)?;
        Ok(())
    }

    /// Have an instance's process change something. Where there is none it is done.
    pub(super) fn change_volume(&self, instance_id: &str, change: VolumeChange) -> Result<(), RegionError> {
        match Observer::connect(&self.paths.control(instance_id)) {
            Ok((_, mut observer)) => {
                let answer = observer.ask(Request::Volume { change }, PATIENCE);
                answer.map_err(|error| {
                    let text = format!("{instance_id}: {error}");
                    match NO_ROOM.iter().any(|number| text.contains(number)) {
                        true => RegionError::NoRoom {
                            code: "InsufficientVolumeCapacity",
                            source: Box::new(RegionError::Other(text)),
                        },
                        false => Ec2Error::new("IncorrectState", text).into(),
                    }
                })
            }
            Err(_) if !self.has_process(instance_id) => Ok(()),
            Err(source) => {
                Err(RegionError::File { action: "reach the process of", path: instance_id.to_owned(), source })
            }
        }
    }
}

/// Attach a volume as an instance's root volume, which goes with it.
pub(super) fn attach_root(volume: &mut Volume, instance: &Instance) {
    volume.amiable.slot = ROOT_SLOT;
    volume.state = VolumeState::InUse;
    volume.attachments = vec![Attachment {
        instance_id: instance.instance_id.clone(),
        device: instance.root_device_name.clone(),
        state: AttachmentState::Attached,
        attach_time: now(),
        delete_on_termination: true,
    }];
}

/// Find a name and a slot for a volume in an instance.
pub(super) fn place(
    tables: &Tables<'_>,
    volume: &mut Volume,
    instance: &Instance,
    device: Option<&str>,
    delete_on_termination: bool,
) -> Result<(), RegionError> {
    let others = volumes_of(tables, &instance.instance_id)?;
    let is_taken = |name: &str| others.iter().any(|o| o.attachments.iter().any(|a| a.device == name));
    let device = match device {
        Some(name) => {
            if !is_device_name(name) {
                let text =
                    format!("Value ({name}) for parameter device is invalid. {name} is not a valid EBS device name.");
                return Err(Ec2Error::invalid_parameter_value(text).into());
            }
            if is_taken(name) || instance.root_device_name == name {
                let text = format!("Invalid value '{name}' for unixDevice. Attachment point {name} is already in use");
                return Err(Ec2Error::invalid_parameter_value(text).into());
            }
            name.to_owned()
        }
        // EC2 recommends /dev/sd[f-p]; past those, its names of two letters.
        None => ('f'..='p')
            .map(|letter| format!("/dev/sd{letter}"))
            .chain(('a'..='z').map(|letter| format!("/dev/xvdb{letter}")))
            .find(|name| !is_taken(name))
            .ok_or_else(limit)?,
    };
    volume.amiable.slot = free_slot(&instance.instance_type, &others).ok_or_else(limit)?;
    volume.state = VolumeState::InUse;
    volume.attachments = vec![Attachment {
        instance_id: instance.instance_id.clone(),
        device,
        state: AttachmentState::Attaching,
        attach_time: now(),
        delete_on_termination,
    }];
    Ok(())
}

/// A slot that neither a volume nor an instance-store disk of the type has.
fn free_slot(instance_type: &str, others: &[Volume]) -> Option<u8> {
    let store = store_slots_of(instance_type);
    VOLUME_SLOTS.into_iter().find(|slot| !store.contains(slot) && others.iter().all(|o| o.amiable.slot != *slot))
}

fn store_slots_of(instance_type: &str) -> RangeInclusive<u8> {
    let store = instance_types::find(instance_type).and_then(|of| of.instance_store);
    store_slots(store.map_or(0, |store| store.count))
}

/// Make room for the instance-store disks of a type that was changed: volumes go to other slots.
///
/// # Errors
/// `AttachmentLimitExceeded`.
pub(super) fn settle_slots(
    tables: &Tables<'_>,
    instance: &Instance,
    volumes: &mut [Volume],
) -> Result<(), RegionError> {
    let store = store_slots_of(&instance.instance_type);
    for index in 0..volumes.len() {
        if store.contains(&volumes[index].amiable.slot) {
            volumes[index].amiable.slot = free_slot(&instance.instance_type, volumes).ok_or_else(limit)?;
            put_volume(tables, &volumes[index])?;
        }
    }
    Ok(())
}

fn limit() -> Ec2Error {
    Ec2Error::new(
        "AttachmentLimitExceeded",
        "The instance has as many attachments as it can have (28 with its network interface)",
    )
}

/// `/dev/sd[b-z]`, `/dev/xvd[b-z]` and `/dev/xvd[b-c][a-z]`, as EC2 has them for HVM images.
fn is_device_name(name: &str) -> bool {
    let short = |rest: &str| matches!(rest.as_bytes(), [b'b'..=b'z']);
    let long = |rest: &str| matches!(rest.as_bytes(), [b'b'..=b'c', b'a'..=b'z']);
    name.strip_prefix("/dev/sd").is_some_and(short)
        || name.strip_prefix("/dev/xvd").is_some_and(|rest| short(rest) || long(rest))
}

pub(super) fn set_attachment(volume: &mut Volume, state: AttachmentState) {
    if let Some(attachment) = volume.attachments.first_mut() {
        attachment.state = state;
    }
}

pub(super) fn release(volume: &mut Volume) {
    volume.attachments.clear();
    volume.state = VolumeState::Available;
    volume.amiable.slot = 0;
}

#[cfg(test)]
mod tests {
    use super::is_device_name;

    #[test]
    fn device_names_are_ec2_s() {
        for good in ["/dev/sdf", "/dev/sdz", "/dev/xvdb", "/dev/xvdba", "/dev/xvdcz"] {
            assert!(is_device_name(good), "{good}");
        }
        for bad in ["sdf", "/dev/sda", "/dev/sda1", "/dev/sdF", "/dev/xvdda", "/dev/nvme1n1", "/dev/sdf/../x", ""] {
            assert!(!is_device_name(bad), "{bad}");
        }
    }
}
