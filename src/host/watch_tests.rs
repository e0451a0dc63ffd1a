use std::cell::Cell;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use super::*;
use crate::host::event::{Event, Seen};

const FINISHED: &str = "Cloud-init v. 22.4.2 finished at x. Datasource DataSourceEc2Local.  Up 12.5 seconds\n";
const SYNCED: &str = "[  9.9] sysrq: Emergency Sync complete\n";

/// A guest that answers each order with the events of `script`.
struct Guest {
    orders: Arc<Mutex<Vec<Control>>>,
    session: Session,
    events: Sender<Seen>,
    _dir: tempfile::TempDir,
}

fn guest(script: impl Fn(&Control) -> Vec<Event> + Send + Sync + 'static) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let (events, receiver) = mpsc::channel();
    let orders = Arc::new(Mutex::new(Vec::new()));
    let (heard, answers) = (orders.clone(), events.clone());
    let obey = move |control: Control| {
        for event in script(&control) {
            let _ = answers.send(Seen { at: Instant::now(), event });
        }
        heard.lock().unwrap().push(control);
    };
    let session = Session::new(receiver, Arc::new(obey), dir.path(), Instant::now()).unwrap();
    Guest { orders, session, events, _dir: dir }
}

impl Guest {
    fn says(&self, text: &str) {
        let event = Event::Console { data: text.into() };
        self.events.send(Seen { at: Instant::now(), event }).unwrap();
    }

    fn watch(&mut self, goal: Goal, timeout: Option<Duration>, interrupts: u32, result: &dyn Fn() -> bool) -> Report {
        let short = Duration::from_millis(30);
        let patience = Patience { timeout, sync: short, grace: short };
        watch(&mut self.session, goal, patience, &AtomicU32::new(interrupts), result, &mut |_| {})
    }

    fn orders(&self) -> String {
        format!("{:?}", self.orders.lock().unwrap())
    }
}

fn console(text: &str) -> Vec<Event> {
    vec![Event::Console { data: text.into() }]
}

fn ended(end: End) -> Vec<Event> {
    vec![Event::Ended { end }]
}

#[test]
fn the_result_is_waited_for_and_then_the_plug_is_pulled() {
    let mut guest = guest(|order| match order {
        Control::Sync => console(SYNCED),
        Control::Stop => ended(End::Stopped),
        _ => Vec::new(),
    });
    guest.says(FINISHED);
    guest.says("[  OK  ] Finished cloud-final.service - Execute cloud user/final scripts.\n");
    let looks = Cell::new(0);
    let report = guest.watch(Goal::UserData, None, 0, &|| {
        looks.set(looks.get() + 1);
        looks.get() == 2
    });
    assert_eq!((report.reason, report.end, report.synced), (Reason::UserData, End::Stopped, true));
    assert_eq!(report.finished.unwrap().datasource, "DataSourceEc2Local");
    assert_eq!(guest.orders(), "[Sync, Sync, Stop]");
}

#[test]
fn a_kernel_that_does_not_sync_gets_the_power_button_and_then_the_plug() {
    let mut guest = guest(|order| if let Control::Stop = order { ended(End::Stopped) } else { Vec::new() });
    guest.says(FINISHED);
    let report = guest.watch(Goal::UserData, None, 0, &|| false);
    assert!(!report.synced);
    assert_eq!(guest.orders(), "[Sync, Sync, Sync, PowerButton, Stop]");
}

#[test]
fn a_time_out_tells_what_the_guest_was_doing() {
    let mut guest = guest(|order| match order {
        Control::Describe => vec![Event::Vcpus { lines: vec!["vCPU 0: halted".into()] }],
        Control::Sync => console(SYNCED),
        Control::Stop => ended(End::Stopped),
        _ => Vec::new(),
    });
    let report = guest.watch(Goal::UserData, Some(Duration::from_millis(20)), 0, &|| true);
    assert_eq!((report.reason, report.vcpus.len(), report.synced), (Reason::TimedOut, 1, true));
}

#[test]
fn a_guest_that_powers_off_ends_the_watch() {
    let mut guest = guest(|_| Vec::new());
    guest.says(FINISHED);
    guest.events.send(Seen { at: Instant::now(), event: Event::Ended { end: End::PowerOff } }).unwrap();
    let report = guest.watch(Goal::PowerOff, None, 0, &|| false);
    assert_eq!((report.reason, report.end, report.synced), (Reason::Ended, End::PowerOff, true));
    assert_eq!(guest.orders(), "[]");
}

#[test]
fn ctrl_c_is_the_power_button_and_twice_the_plug() {
    let mut patient = guest(|order| if let Control::PowerButton = order { ended(End::PowerOff) } else { Vec::new() });
    let report = patient.watch(Goal::PowerOff, None, 1, &|| false);
    assert_eq!((report.reason, report.end), (Reason::Interrupted, End::PowerOff));
    let mut hasty = guest(|order| if let Control::Stop = order { ended(End::Stopped) } else { Vec::new() });
    hasty.watch(Goal::PowerOff, None, 2, &|| false);
    assert_eq!(hasty.orders(), "[PowerButton, Stop]");
}
