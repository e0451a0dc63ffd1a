//! Watching an instance until what was asked for has come: the verdict on the user-data, or the guest's power-off.
//!
//! ```text
//! Running ──judged──────────────────────────────► Ending ──Ended──► report
//!    │      └─not while the guest runs─► PowerButton ─┤
//!    ├──time-out──► Syncing ──Synced, or no answer────┤
//!    ├──Ctrl-C────► PowerButton ──grace is over───────┘
//!    └──Ended──► report
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::event::{Control, End};
use super::observer::Observer;
use super::session::Update;
use super::stage::{Finished, Stage};
use super::verdict::Verdict;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The verdict on the user-data.
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
    /// How the instance ended; `None` if it goes on running.
    pub end: Option<End>,
    /// cloud-init's farewell, if it came.
    pub finished: Option<Finished>,
    /// What became of the user-data, if that is known.
    pub verdict: Option<Verdict>,
    /// The guest's kernel panic, if one was seen.
    pub panic: Option<String>,
    /// What the vCPUs did at a time-out.
    pub vcpus: Vec<String>,
}

/// What the watcher does for its owner while it watches.
pub trait Watcher {
    /// Something happened.
    fn show(&mut self, update: &Update);
    /// The instance will be told to end: it does not end by itself.
    fn ending(&mut self);
}

/// How a watch goes about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finally {
    /// The instance is ended when the goal is reached.
    End,
    /// The instance goes on running: nothing ends it but itself.
    LeaveRunning,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Running,
    Syncing,
    /// The power button is pressed.
    PowerButton,
    /// The plug is pulled.
    Ending,
}

/// How long a panicked kernel may take to restart the machine (`panic=N` on its command line).
const PANIC_GRACE: Duration = Duration::from_secs(15);

/// Watch until the goal is reached and the instance has ended (or is left running). `interrupts` counts what the user's Ctrl-C
/// added: the first presses the power button, the second pulls the plug; where the instance is left running the first one
/// ends the watch.
pub fn watch(
    observer: &mut Observer,
    goal: Goal,
    finally: Finally,
    patience: Patience,
    interrupts: &AtomicU32,
    watcher: &mut dyn Watcher,
) -> Report {
    let mut watch = Watch {
        goal,
        finally,
        patience,
        state: State::Running,
        until: patience.timeout.map(|t| Instant::now() + t),
        deadline: None,
        left: false,
        report: Report {
            reason: Reason::Ended,
            end: None,
            finished: None,
            verdict: None,
            panic: None,
            vcpus: Vec::new(),
        },
    };
    while !watch.left && !observer.has_ended() {
        let interrupted = interrupts.load(Ordering::Relaxed);
        if interrupted > 0 {
            watch.interrupted(observer, interrupted, watcher);
        }
        // Ctrl-C is only a counter, so the longest wait is how long it may go unseen.
        let nap = Duration::from_millis(50);
        let wait = watch.until.map_or(nap, |until| until.saturating_duration_since(Instant::now()).min(nap));
        match observer.next(wait) {
            Some(update) => {
                watcher.show(&update);
                watch.update(observer, update, watcher);
            }
            None if watch.until.is_some_and(|until| until <= Instant::now()) => watch.time_is_up(observer, watcher),
            None => {}
        }
    }
    watch.report
}

struct Watch {
    goal: Goal,
    finally: Finally,
    patience: Patience,
    state: State,
    /// When the present state has lasted too long.
    until: Option<Instant>,
    /// The goal's own end of time, while a panicked kernel is waited for.
    deadline: Option<Instant>,
    /// The instance is left running.
    left: bool,
    report: Report,
}

impl Watch {
    fn enter(&mut self, state: State, patience: Duration) {
        self.state = state;
        self.until = Some(Instant::now() + patience);
    }

    fn update(&mut self, observer: &Observer, update: Update, watcher: &mut dyn Watcher) {
        match update {
            Update::Finished(finished) => self.report.finished = Some(finished),
            Update::Judged(verdict) => {
                let known = verdict.is_some();
                self.report.verdict = verdict;
                if self.goal == Goal::UserData && self.state == State::Running {
                    self.report.reason = Reason::UserData;
                    match (self.finally, known) {
                        (Finally::LeaveRunning, _) => self.left = true,
                        (Finally::End, true) => self.pull_plug(observer, watcher),
                        (Finally::End, false) => self.press_button(observer, watcher),
                    }
                }
            }
            Update::Synced if self.state == State::Syncing => self.pull_plug(observer, watcher),
            // With panic=N it restarts the machine, otherwise it stands still. Only the first panic of a boot counts.
            Update::Panic(text) if self.report.panic.is_none() && self.state == State::Running => {
                self.report.panic = Some(text);
                self.deadline = self.until.replace(Instant::now() + PANIC_GRACE);
            }
            Update::Stage(mark) if mark.stage == Stage::Reboot && self.report.panic.take().is_some() => {
                self.until = self.deadline;
            }
            Update::Vcpus(lines) => self.report.vcpus = lines,
            Update::Ended(end) => self.report.end = Some(end),
            _ => {}
        }
    }

    fn time_is_up(&mut self, observer: &Observer, watcher: &mut dyn Watcher) {
        match self.state {
            State::Running => {
                self.report.reason = if self.report.panic.is_some() { Reason::Panicked } else { Reason::TimedOut };
                if self.finally == Finally::LeaveRunning {
                    self.left = true;
                } else if self.report.panic.is_some() {
                    self.pull_plug(observer, watcher);
                } else {
                    watcher.ending();
                    observer.order(Control::Describe);
                    observer.order(Control::Sync);
                    self.enter(State::Syncing, self.patience.sync);
                }
            }
            State::Syncing | State::PowerButton => self.pull_plug(observer, watcher),
            State::Ending => self.until = None,
        }
    }

    fn interrupted(&mut self, observer: &Observer, times: u32, watcher: &mut dyn Watcher) {
        match self.state {
            State::Running => {
                self.report.reason = Reason::Interrupted;
                if self.finally == Finally::LeaveRunning {
                    self.left = true;
                } else {
                    self.press_button(observer, watcher);
                }
            }
            State::Ending => {}
            _ if times > 1 => self.pull_plug(observer, watcher),
            _ => {}
        }
    }

    fn press_button(&mut self, observer: &Observer, watcher: &mut dyn Watcher) {
        watcher.ending();
        observer.order(Control::PowerButton);
        self.enter(State::PowerButton, self.patience.grace);
    }

    fn pull_plug(&mut self, observer: &Observer, watcher: &mut dyn Watcher) {
        watcher.ending();
        observer.order(Control::Stop);
        self.state = State::Ending;
        self.until = None;
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
