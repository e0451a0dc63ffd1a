use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use super::*;
use crate::host::control::Message;
use crate::host::verdict::Outcome;

/// A guest that answers each order with the updates of a script.
struct Guest {
    orders: Arc<Mutex<Vec<Control>>>,
    observer: Observer,
    updates: Sender<Update>,
    endings: u32,
}

fn guest(script: impl Fn(&Control) -> Vec<Update> + Send + Sync + 'static) -> Guest {
    let (updates, receiver) = mpsc::channel();
    let orders = Arc::new(Mutex::new(Vec::new()));
    let (heard, answers) = (orders.clone(), updates.clone());
    let obey = move |message: Message| {
        let Message::Order { control } = message else { panic!("{message:?}") };
        for update in script(&control) {
            let _ = answers.send(update);
        }
        heard.lock().unwrap().push(control);
    };
    Guest { orders, observer: Observer::new(receiver, Arc::new(obey)), updates, endings: 0 }
}

struct Count<'a>(&'a mut u32);

impl Watcher for Count<'_> {
    fn show(&mut self, _update: &Update) {}
    fn ending(&mut self) {
        *self.0 += 1;
    }
}

impl Guest {
    fn tells(&self, update: Update) {
        self.updates.send(update).unwrap();
    }

    fn watch(&mut self, goal: Goal, finally: Finally, timeout: Option<Duration>, interrupts: u32) -> Report {
        let short = Duration::from_millis(30);
        let patience = Patience { timeout, sync: short, grace: short };
        let interrupts = AtomicU32::new(interrupts);
        watch(&mut self.observer, goal, finally, patience, &interrupts, &mut Count(&mut self.endings))
    }

    fn orders(&self) -> String {
        format!("{:?}", self.orders.lock().unwrap())
    }
}

fn verdict() -> Verdict {
    Verdict {
        outcome: Outcome::Success,
        datasource: None,
        errors: Vec::new(),
        warnings: Vec::new(),
        last_lines: Vec::new(),
    }
}

fn obedient(order: &Control) -> Vec<Update> {
    match order {
        Control::Describe => vec![Update::Vcpus(vec!["vCPU 0: halted".into()])],
        Control::Sync => vec![Update::Synced],
        Control::Stop => vec![Update::Ended(End::Stopped)],
        Control::PowerButton => vec![Update::Ended(End::PowerOff)],
        _ => Vec::new(),
    }
}

#[test]
fn after_the_verdict_the_plug_is_pulled() {
    let mut guest = guest(obedient);
    guest.tells(Update::Judged(Some(verdict())));
    let report = guest.watch(Goal::UserData, Finally::End, None, 0);
    assert_eq!((report.reason, report.end), (Reason::UserData, Some(End::Stopped)));
    assert!(report.verdict.is_some());
    assert_eq!((guest.orders().as_str(), guest.endings), ("[Stop]", 1));
}

#[test]
fn a_verdict_that_must_wait_for_the_power_off_is_waited_for() {
    let mut guest = guest(|order| match order {
        Control::PowerButton => vec![Update::Judged(Some(verdict())), Update::Ended(End::PowerOff)],
        _ => Vec::new(),
    });
    guest.tells(Update::Judged(None));
    let report = guest.watch(Goal::UserData, Finally::End, None, 0);
    assert_eq!((report.reason, report.end), (Reason::UserData, Some(End::PowerOff)));
    assert!(report.verdict.is_some());
    assert_eq!(guest.orders(), "[PowerButton]");
}

#[test]
fn a_kernel_that_does_not_hear_the_button_loses_its_plug() {
    let mut guest = guest(|order| if let Control::Stop = order { obedient(order) } else { Vec::new() });
    guest.tells(Update::Judged(None));
    let report = guest.watch(Goal::UserData, Finally::End, None, 0);
    assert_eq!((report.verdict, report.end), (None, Some(End::Stopped)));
    assert_eq!(guest.orders(), "[PowerButton, Stop]");
}

#[test]
fn an_instance_that_is_left_running_is_not_touched() {
    let mut judged = guest(obedient);
    judged.tells(Update::Judged(Some(verdict())));
    let report = judged.watch(Goal::UserData, Finally::LeaveRunning, None, 0);
    assert_eq!((report.reason, report.end), (Reason::UserData, None));
    let mut late = guest(obedient);
    let report = late.watch(Goal::UserData, Finally::LeaveRunning, Some(Duration::from_millis(5)), 0);
    assert_eq!((report.reason, report.end), (Reason::TimedOut, None));
    let mut hasty = guest(obedient);
    let report = hasty.watch(Goal::UserData, Finally::LeaveRunning, None, 1);
    assert_eq!((report.reason, report.end), (Reason::Interrupted, None));
    for guest in [judged, late, hasty] {
        assert_eq!((guest.orders().as_str(), guest.endings), ("[]", 0));
    }
}

#[test]
fn a_time_out_tells_what_the_guest_was_doing() {
    let mut guest = guest(obedient);
    let report = guest.watch(Goal::UserData, Finally::End, Some(Duration::from_millis(20)), 0);
    assert_eq!((report.reason, report.vcpus.len()), (Reason::TimedOut, 1));
    assert_eq!(guest.orders(), "[Describe, Sync, Stop]");
}

#[test]
fn a_guest_that_powers_off_ends_the_watch() {
    let mut guest = guest(obedient);
    guest.tells(Update::Ended(End::PowerOff));
    let report = guest.watch(Goal::PowerOff, Finally::End, None, 0);
    assert_eq!((report.reason, report.end), (Reason::Ended, Some(End::PowerOff)));
    assert_eq!((guest.orders().as_str(), guest.endings), ("[]", 0));
}

#[test]
fn ctrl_c_is_the_power_button_and_twice_the_plug() {
    let mut patient = guest(obedient);
    let report = patient.watch(Goal::PowerOff, Finally::End, None, 1);
    assert_eq!((report.reason, report.end), (Reason::Interrupted, Some(End::PowerOff)));
    let mut hasty = guest(|order| if let Control::Stop = order { obedient(order) } else { Vec::new() });
    hasty.watch(Goal::PowerOff, Finally::End, None, 2);
    assert_eq!(hasty.orders(), "[PowerButton, Stop]");
}

#[test]
fn a_panicked_kernel_may_restart_the_machine() {
    let mut guest = guest(obedient);
    guest.tells(Update::Panic("Kernel panic - not syncing: x".into()));
    let mark = crate::host::session::Mark { stage: Stage::Reboot, ms: 1.0, detail: None };
    guest.tells(Update::Stage(mark));
    guest.tells(Update::Ended(End::PowerOff));
    let report = guest.watch(Goal::PowerOff, Finally::End, None, 0);
    assert_eq!((report.reason, report.panic), (Reason::Ended, None));
}
