//! Stop, reboot, terminate, modify, and what an instance's process does to its own record: EC2's state machine.
//!
//! ```text
//! pending ──first vCPU runs──► running ──stop──► stopping ──process ended──► stopped ──start──► pending
//!    │                            ├──guest is off──────────────────────────────┤
//!    └──launch failed             └──terminate──► shutting-down ──────────► terminated
//! ```
//!
//! The record says what is wanted *before* the process is told, so that an intention survives whoever had it: when a process ends
//! it does what its record says, and if it could not (it was killed), [`Region::reconcile`] does it for it. Every command begins
//! with that.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::RegionError;
use super::instances::put;
use super::launch::LaunchParameters;
use super::model::{Instance, ShutdownBehavior, StateName, StateReason};
use super::tagging::check_tags;
use super::{Region, lock, security_groups};
use crate::ec2::instance_types::InstanceType;
use crate::ec2::{Ec2Error, user_data};
use crate::host::control::Message;
use crate::host::event::End;
use crate::host::observer::Observer;
use crate::host::process::Outcome;
use crate::host::spec::PortForward;
use crate::host::verdict::Verdict;

/// What can be changed of a stopped instance, and (the last three) of any.
#[derive(Clone, Debug, Default)]
pub struct Modification {
    /// The instance type.
    pub instance_type: Option<InstanceType>,
    /// The user-data; the inner `None` takes it away.
    pub user_data: Option<Option<Vec<u8>>>,
    /// What a power-off by the guest means.
    pub shutdown_behavior: Option<ShutdownBehavior>,
    /// Whether it can't be terminated.
    pub termination_protection: Option<bool>,
    /// How the metadata service answers, in the AWS CLI's shorthand; what is not named stays.
    pub metadata_options: Option<String>,
    /// Names or ids of the security groups that it is to be in.
    pub security_groups: Option<Vec<String>>,
}

/// How long [`Region::reconcile`] waits for processes that it reminds.
const REMINDING: Duration = Duration::from_millis(500);
/// How long a process may take to greet: it does nothing else before.
const LISTENING: Duration = Duration::from_secs(5);

/// Whether a message came to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// It did.
    Yes,
    /// There is a process, and it hangs.
    No,
    /// There is none.
    Nobody,
}

fn by_user(text: &str) -> String {
    format!("{text} ({})", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S GMT"))
}

/// The reason for what a user asked for.
pub fn user_initiated() -> StateReason {
    StateReason::new("Client.UserInitiatedShutdown", "User initiated shutdown")
}

impl Region {
    /// Bring the records of instances whose processes are gone to where those would have brought them, and remind the processes
    /// of instances that are to end.
    ///
    /// Answers which instances are to end and have a process that does not listen. All of them together are waited for no longer than
    /// [`REMINDING`].
    ///
    /// # Errors
    /// Where the disk has no room for a record: what the region shows from then on is as if it had been written.
    pub fn reconcile(&mut self) -> Result<Vec<String>, RegionError> {
        let result = self.bring_up_to_date();
        self.behind = result.as_ref().is_err_and(RegionError::is_no_room);
        result
    }

    fn bring_up_to_date(&mut self) -> Result<Vec<String>, RegionError> {
        let alive: Vec<Instance> = self.store.tables().instances_alive()?;
        let until = Instant::now() + REMINDING;
        let mut deaf = Vec::new();
        for seen in alive {
            let id = &seen.instance_id;
            if lock::is_held(&self.paths.lock(id)) {
                if matches!(seen.state.name, StateName::Stopping | StateName::ShuttingDown) {
                    // Whoever wanted it may have been killed before the process heard it.
                    let patience = until.saturating_duration_since(Instant::now());
                    let message = Message::Shutdown { force: seen.state.name == StateName::ShuttingDown };
                    if self.tell_within(id, message, patience) == Heard::No {
                        deaf.push(id.clone());
                    }
                }
                continue;
            }
            let killed = self.killed(id);
            let mut delete = None;
            self.store.transaction(|tables| -> Result<(), RegionError> {
                // Its process may have ended in good order since, or it was started again.
                let Some(mut instance) = tables.instance::<Instance>(id)? else { return Ok(()) };
                if lock::is_held(&self.paths.lock(id)) {
                    return Ok(());
                }
                if matches!(instance.state.name, StateName::Stopped | StateName::Terminated) {
                    return Ok(());
                }
                delete = without_process(&mut instance, killed);
                if delete.is_none() {
                    put(tables, &instance)?;
                }
                Ok(())
            })?;
            if let Some(reason) = delete {
                self.delete_instance(id, reason)?;
            }
        }
        self.forget_terminated()?;
        self.remind_of_groups();
        Ok(deaf)
    }

    /// Why an instance has no process that should have one.
    fn killed(&self, instance_id: &str) -> StateReason {
        let text = match lock::is_of_an_earlier_boot(&self.paths.lock(instance_id)) {
            true => "The machine was restarted while the instance ran",
            false => "The instance's process was killed",
        };
        StateReason::new("Server.InternalError", text)
    }

    /// An instance as it is, where its record could not be brought up to date.
    pub(super) fn as_it_is(&self, mut instance: Instance) -> Instance {
        let settled = matches!(instance.state.name, StateName::Stopped | StateName::Terminated);
        if self.behind && !settled && !self.has_process(&instance.instance_id) {
            let killed = self.killed(&instance.instance_id);
            if let Some(reason) = without_process(&mut instance, killed) {
                instance.state = StateName::Terminated.into();
                instance.state_reason = Some(reason);
            }
        }
        instance
    }

    /// Stop an instance: the power button, and the plug after a grace, or at once with `force`. Answers the states before and
    /// after; the process brings it to `stopped`. One that is stopped already is left so.
    ///
    /// # Errors
    /// `IncorrectInstanceState` where it is terminated.
    pub fn stop_instance(&mut self, instance_id: &str, force: bool) -> Result<(StateName, StateName), RegionError> {
        let (before, after) = self.mark_stopping(instance_id)?;
        super::step::reached("stop: recorded");
        if after == StateName::Stopping {
            self.shut_down(instance_id, force);
        }
        Ok((before, after))
    }

    /// Record that the user wants an instance stopped, by one who tells its process.
    ///
    /// # Errors
    /// As [`stop_instance`](Self::stop_instance).
    pub fn mark_stopping(&mut self, instance_id: &str) -> Result<(StateName, StateName), RegionError> {
        let mut before = StateName::Stopped;
        let after = self.change(instance_id, |instance| {
            before = instance.state.name;
            match before {
                StateName::Running | StateName::Pending => {
                    instance.state = StateName::Stopping.into();
                    instance.state_reason = Some(user_initiated());
                    instance.state_transition_reason = by_user("User initiated");
                    Ok(())
                }
                StateName::Stopping | StateName::Stopped => Ok(()),
                StateName::ShuttingDown | StateName::Terminated => {
                    Err(Ec2Error::incorrect_instance_state(instance_id, "stopped").into())
                }
            }
        })?;
        Ok((before, after.state.name))
    }

    /// Wait until an instance's process has ended, and see to it that the record says so. Whether it ended in time.
    pub fn await_end(&mut self, instance_id: &str, limit: Duration) -> Result<bool, RegionError> {
        let until = Instant::now() + limit;
        while self.has_process(instance_id) {
            if Instant::now() >= until {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.reconcile()?;
        Ok(true)
    }

    /// Reboot a running instance: the power button and a start; after a grace, a reset.
    ///
    /// # Errors
    /// `IncorrectInstanceState` where it is not running.
    pub fn reboot_instance(&mut self, instance_id: &str) -> Result<(), RegionError> {
        let instance = self.instance(instance_id)?;
        if instance.state.name != StateName::Running || !self.tell(instance_id, Message::Reboot) {
            return Err(Ec2Error::incorrect_instance_state(instance_id, "rebooted").into());
        }
        Ok(())
    }

    /// Terminate an instance: at once where none of its disks outlive it. Answers the states before and after; where a process
    /// runs, that brings it to `terminated`. One that is terminated already is left so.
    ///
    /// # Errors
    /// `OperationNotPermitted` with termination protection.
    pub fn terminate_instance(&mut self, instance_id: &str) -> Result<(StateName, StateName), RegionError> {
        let mut before = StateName::Terminated;
        let after = self.change(instance_id, |instance| {
            before = instance.state.name;
            if instance.amiable.termination_protection && before != StateName::Terminated {
                return Err(Ec2Error::new(
                    "OperationNotPermitted",
                    format!(
                        "The instance '{instance_id}' may not be terminated. Modify its 'disableApiTermination' \
                         instance attribute and try again."
                    ),
                )
                .into());
            }
            if before != StateName::Terminated {
                instance.state = StateName::ShuttingDown.into();
                instance.state_reason = Some(user_initiated());
                instance.state_transition_reason = by_user("User initiated");
            }
            Ok(())
        })?;
        super::step::reached("terminate: recorded");
        if after.state.name == StateName::ShuttingDown {
            if self.has_process(instance_id) {
                self.shut_down(instance_id, true);
            } else {
                self.delete_instance(instance_id, user_initiated())?;
                return Ok((before, StateName::Terminated));
            }
        }
        Ok((before, after.state.name))
    }

    /// Change an instance's attributes.
    ///
    /// # Errors
    /// `IncorrectInstanceState` for the type and the user-data of one that is not stopped, as on EC2, and for the groups of one
    /// that is terminated; `InvalidGroup.NotFound`.
    pub fn modify_instance(&mut self, instance_id: &str, change: Modification) -> Result<Instance, RegionError> {
        if let Some(Some(data)) = &change.user_data {
            user_data::check_size(data)?;
        }
        let regroups = change.security_groups.is_some();
        let instance = self.store.transaction(|tables| -> Result<Instance, RegionError> {
            let mut instance: Instance =
                tables.instance(instance_id)?.ok_or_else(|| Ec2Error::instance_not_found(&[instance_id]))?;
            let needs_stop = change.instance_type.is_some() || change.user_data.is_some();
            if needs_stop && instance.state.name != StateName::Stopped {
                let what = if change.instance_type.is_some() { "instanceType" } else { "userData" };
                return Err(Ec2Error::new(
                    "IncorrectInstanceState",
                    format!("The instance '{instance_id}' is not in the 'stopped' state: '{what}' can't be modified."),
                )
                .into());
            }
            if let Some(of) = &change.instance_type {
                if !of.supports(&instance.architecture) {
                    let of_type = of.architectures.first().copied().unwrap_or("unknown");
                    return Err(Ec2Error::architecture_mismatch(of_type, &instance.architecture).into());
                }
                instance.instance_type = of.name.to_owned();
            }
            if let Some(data) = change.user_data {
                let mut parameters: LaunchParameters = tables.launch(instance_id)?.unwrap_or_default();
                instance.amiable.user_data_bytes = data.as_ref().map(Vec::len);
                parameters.user_data = data;
                tables.put_launch(instance_id, &parameters)?;
            }
            if let Some(options) = &change.metadata_options {
                instance.metadata_options = instance.metadata_options.with(options)?;
                check_tags(&instance)?;
            }
            if let Some(behavior) = change.shutdown_behavior {
                instance.amiable.shutdown_behavior = behavior;
            }
            if let Some(protection) = change.termination_protection {
                instance.amiable.termination_protection = protection;
            }
            if let Some(groups) = &change.security_groups {
                if instance.state.name == StateName::Terminated {
                    return Err(Ec2Error::incorrect_instance_state(instance_id, "modified").into());
                }
                security_groups::assign(tables, &mut instance, groups)?;
            }
            put(tables, &instance)?;
            Ok(instance)
        })?;
        if regroups {
            super::step::reached("modify: groups recorded");
            self.tell_groups()?;
        }
        Ok(instance)
    }

    /// Say something to an instance's process; whether there is one that hears it.
    pub fn tell(&self, instance_id: &str, message: Message) -> bool {
        self.tell_within(instance_id, message, LISTENING) == Heard::Yes
    }

    fn tell_within(&self, instance_id: &str, message: Message, patience: Duration) -> Heard {
        match Observer::connect_within(&self.paths.control(instance_id), patience) {
            Ok((_, observer)) => {
                observer.send(message);
                Heard::Yes
            }
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Heard::No,
            // It has just ended, or does not listen yet.
            Err(_) => Heard::Nobody,
        }
    }

    /// Tell an instance's process to end. With `force` one that hangs is killed: its record says what is wanted, and the next look at it
    /// does the rest.
    fn shut_down(&self, instance_id: &str, force: bool) {
        let heard = self.tell_within(instance_id, Message::Shutdown { force }, LISTENING);
        let process = self.process_id(instance_id).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let (Heard::No, true, Some(process)) = (heard, force, process) {
            let _ = kill_process(process, Signal::KILL);
        }
    }

    /// From its process: the guest runs, and can be reached at these ports.
    pub(super) fn process_runs(&mut self, instance_id: &str, ports: Vec<PortForward>) -> Result<(), RegionError> {
        self.change(instance_id, |instance| {
            instance.amiable.has_run = true;
            instance.amiable.published = ports;
            // It may be on its way to its end already.
            if instance.state.name == StateName::Pending {
                instance.state = StateName::Running.into();
            }
            Ok(())
        })?;
        Ok(())
    }

    /// From its process: where it can be reached now.
    pub(super) fn process_publishes(&mut self, instance_id: &str, ports: &[PortForward]) -> Result<(), RegionError> {
        self.change(instance_id, |instance| {
            instance.amiable.published = ports.to_vec();
            Ok(())
        })?;
        Ok(())
    }

    /// From its process: what became of the user-data.
    pub(super) fn process_judged(&mut self, instance_id: &str, verdict: &Verdict) -> Result<(), RegionError> {
        self.change(instance_id, |instance| {
            instance.amiable.verdict = Some(verdict.clone());
            Ok(())
        })?;
        Ok(())
    }

    /// From its process, the last thing it does: the instance has let go of everything.
    pub(super) fn process_ended(&mut self, instance_id: &str, outcome: &Outcome) -> Result<(), RegionError> {
        let mut delete = None;
        self.change(instance_id, |instance| {
            let reason = match &outcome.end {
                End::PowerOff => StateReason::new("Client.InstanceInitiatedShutdown", "Instance initiated shutdown"),
                End::Crashed { text } | End::Failed { text, .. } => StateReason::new("Server.InternalError", text),
                End::Stopped => user_initiated(),
            };
            match instance.state.name {
                StateName::ShuttingDown => delete = Some(user_initiated()),
                StateName::Stopping => stopped(instance, None),
                _ if outcome.abandoned || !instance.amiable.has_run => delete = Some(reason),
                _ if outcome.end == End::PowerOff
                    && instance.amiable.shutdown_behavior == ShutdownBehavior::Terminate =>
                {
                    delete = Some(reason);
                }
                _ => stopped(instance, Some(reason)),
            }
            if delete.is_some() {
                // If this process is killed before it is through, the next command goes on with it.
                instance.state = StateName::ShuttingDown.into();
                instance.state_reason.clone_from(&delete);
            }
            Ok(())
        })?;
        super::step::reached("process: end recorded");
        if let Some(reason) = delete {
            self.delete_instance(instance_id, reason)?;
        }
        Ok(())
    }
}

/// What becomes of an instance whose process is gone without a word: it is stopped, or to be deleted, and why.
fn without_process(instance: &mut Instance, killed: StateReason) -> Option<StateReason> {
    match instance.state.name {
        StateName::Stopped | StateName::Terminated => {}
        StateName::ShuttingDown => return instance.state_reason.clone().or(Some(killed)),
        _ if instance.amiable.bound_to_command => return Some(killed),
        StateName::Pending if !instance.amiable.has_run => {
            return Some(StateReason::new("Server.InternalError", "The launch was interrupted"));
        }
        StateName::Stopping => stopped(instance, None),
        StateName::Pending | StateName::Running => stopped(instance, Some(killed)),
    }
    None
}

fn stopped(instance: &mut Instance, reason: Option<StateReason>) {
    instance.state = StateName::Stopped.into();
    if reason.is_some() {
        instance.state_reason = reason;
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
