//! Watching an instance until what was asked for has come: the end of the user-data, or the guest's power-off.
//!
//! The user-data's end is not its verdict yet. cloud-init announces its end on the console and writes `result.json` a
//! moment later, into the guest's page cache. So the guest's kernel is asked to write its dirty pages (magic SysRq `s` on
//! the serial line, which Debian, Ubuntu, Fedora and Amazon Linux permit), and the root volume is looked at; that is
//! repeated until the result is there. Where the kernel does not obey, the power button does the same more slowly.
//!
//! ```text
//! Running ──finished──► Settling ──Sync──► Syncing ──Synced, result there──► Ending ──Ended──► report
//!    │                     ▲                  │                                ▲
//!    │                     └──no result yet───┤                                │
//!    ├──time-out, Ctrl-C──► Syncing ──────────┴──no answer──► PowerButton ─────┘
//!    └──Ended──► report
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::event::{Control, End};
use super::session::{Session, Update};
use super::stage::{Finished, Stage};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The end of the user-data; then the instance is stopped.
    UserData,
    /// The guest's own power-off.
    PowerOff,
}

/// How patient a watcher is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the goal; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// For the guest's kernel to write its dirty pages.
    pub sync: Duration,
    /// For a clean power-off after the power button, before the plug is pulled.
    pub grace: Duration,
}

/// Why watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The user-data ran to its end.
    UserData,
    /// The instance ended by itself.
    Ended,
    /// The time was over.
    TimedOut,
    /// The user wanted to end it.
    Interrupted,
    /// The guest's kernel panicked and did not restart the machine.
    Panicked,
}

/// What a watch saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Why it ended.
    pub reason: Reason,
    /// How the instance ended.
    pub end: End,
    /// cloud-init's farewell, if it came.
    pub finished: Option<Finished>,
    /// The guest's kernel panic, if one was seen.
    pub panic: Option<String>,
    /// Whether the root volume holds what the guest wrote: the kernel said so, or the guest powered off by itself.
    pub synced: bool,
    /// What the vCPUs did at a time-out.
    pub vcpus: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Running,
    /// The user-data has ended; its result is on its way.
    Settling,
    Syncing,
    /// The power button is pressed.
    PowerButton,
    /// The plug is pulled.
    Ending,
}

/// How long after cloud-init's farewell the first look is taken, if nothing says sooner that it is through.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a panicked kernel may take to restart the machine (`panic=N` on its command line).
const PANIC_GRACE: Duration = Duration::from_secs(15);
/// How many looks are taken for a result that does not come.
const MOST_LOOKS: u32 = 20;

/// Watch until the goal is reached and the instance has ended. `result_is_there` looks at the root volume;
/// `interrupts` counts what the user's Ctrl-C added: the first presses the power button, the second pulls the plug.
pub fn watch(
    session: &mut Session,
    goal: Goal,
    patience: Patience,
    interrupts: &AtomicU32,
    result_is_there: &dyn Fn() -> bool,
    show: &mut dyn FnMut(&Update),
) -> Report {
    let mut watch = Watch {
        goal,
        patience,
        state: State::Running,
        until: patience.timeout.map(|t| Instant::now() + t),
        deadline: None,
        looks: 0,
        asked: 0,
        report: Report {
            reason: Reason::Ended,
            end: End::Stopped,
            finished: None,
            panic: None,
            synced: false,
            vcpus: Vec::new(),
        },
    };
    loop {
        let interrupted = interrupts.load(Ordering::Relaxed);
        if interrupted > 0 {
            watch.interrupted(session, interrupted);
        }
        // Ctrl-C is only a counter, so the longest wait is how long it may go unseen.
        let nap = Duration::from_millis(50);
        let wait = watch.until.map_or(nap, |until| until.saturating_duration_since(Instant::now()).min(nap));
        match session.next(wait) {
            Some(update) => {
                show(&update);
                watch.update(session, update, result_is_there);
                if let State::Ending = watch.state
                    && session.has_ended()
                {
                    return watch.report;
                }
            }
            None if session.has_ended() => return watch.report,
            None if watch.until.is_some_and(|until| until <= Instant::now()) => watch.time_is_up(session),
            None => {}
        }
    }
}

struct Watch {
    goal: Goal,
    patience: Patience,
    state: State,
    /// When the present state has lasted too long.
    until: Option<Instant>,
    /// The goal's own end of time, while a panicked kernel is waited for.
    deadline: Option<Instant>,
    looks: u32,
    /// How often the guest's kernel was asked in vain: it hears nothing while no program has the console open.
    asked: u32,
    report: Report,
}

/// How often it is asked before the power button.
const MOST_ASKED: u32 = 3;

impl Watch {
    fn enter(&mut self, state: State, patience: Duration) {
        self.state = state;
        self.until = Some(Instant::now() + patience);
    }

    fn update(&mut self, session: &Session, update: Update, result_is_there: &dyn Fn() -> bool) {
        match update {
            Update::Finished(finished) => {
                self.report.finished = Some(finished);
                if self.goal == Goal::UserData && self.state == State::Running {
                    self.report.reason = Reason::UserData;
                    self.enter(State::Settling, SETTLE);
                }
            }
            // systemd's word that cloud-init's last unit is through, where it shows its units.
            Update::Line(line) if self.state == State::Settling && line.contains("cloud-final.serv") => {
                self.sync(session);
            }
            Update::Synced if self.state == State::Syncing => {
                self.report.synced = true;
                self.asked = 0;
                self.looks += 1;
                if self.report.reason != Reason::UserData || result_is_there() || self.looks >= MOST_LOOKS {
                    self.pull_plug(session);
                } else {
                    self.enter(State::Settling, SETTLE);
                }
            }
            // With panic=N it restarts the machine, otherwise it stands still.
            // With panic=N it restarts the machine, otherwise it stands still. Only the first panic of a boot counts.
            Update::Panic(text) if self.report.panic.is_none() && self.state == State::Running => {
                self.report.panic = Some(text);
                self.deadline = self.until.replace(Instant::now() + PANIC_GRACE);
            }
            Update::Stage(mark) if mark.stage == Stage::Reboot && self.report.panic.take().is_some() => {
                self.until = self.deadline;
            }
            Update::Vcpus(lines) => self.report.vcpus = lines,
            Update::Ended(end) => {
                self.report.synced |= end == End::PowerOff;
                self.report.end = end;
                self.state = State::Ending;
            }
            _ => {}
        }
    }

    fn time_is_up(&mut self, session: &Session) {
        match self.state {
            State::Running if self.report.panic.is_some() => {
                self.report.reason = Reason::Panicked;
                self.pull_plug(session);
            }
            State::Running => {
                self.report.reason = Reason::TimedOut;
                session.order(Control::Describe);
                self.sync(session);
            }
            State::Settling => self.sync(session),
            State::Syncing if self.asked < MOST_ASKED => self.sync(session),
            State::Syncing => {
                session.order(Control::PowerButton);
                self.enter(State::PowerButton, self.patience.grace);
            }
            State::PowerButton => self.pull_plug(session),
            State::Ending => self.until = None,
        }
    }

    fn interrupted(&mut self, session: &Session, times: u32) {
        match self.state {
            State::Running => {
                self.report.reason = Reason::Interrupted;
                session.order(Control::PowerButton);
                self.enter(State::PowerButton, self.patience.grace);
            }
            State::Ending => {}
            _ if times > 1 => self.pull_plug(session),
            _ => {}
        }
    }

    fn sync(&mut self, session: &Session) {
        session.order(Control::Sync);
        self.asked += 1;
        self.enter(State::Syncing, self.patience.sync / MOST_ASKED);
    }

    fn pull_plug(&mut self, session: &Session) {
        session.order(Control::Stop);
        self.state = State::Ending;
        self.until = None;
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
