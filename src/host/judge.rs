//! When the user-data's result can be read from the volume of a guest that goes on running.
//!
//! The user-data's end is not its verdict yet. cloud-init announces its end on the console and writes `result.json` a
//! moment later, into the guest's page cache. So the guest's kernel is asked to write its dirty pages (magic SysRq `s` on
//! the serial line, which Debian, Ubuntu, Fedora and Amazon Linux permit), and the root volume is looked at; that is
//! repeated until the result is there.
//!
//! ```text
//! Idle ──finished──► Settling ──ask──► Syncing ──synced──► look ──there──► judged
//!                       ▲                 │                  │
//!                       └─────────────────┼───not yet────────┘
//!                                         └──no answer──► given up: known when the guest is off
//! ```

use std::time::{Duration, Instant};

use super::session::Update;
use super::stage::Stage;

/// How long after cloud-init's farewell the first look is taken, if nothing says sooner that it is through.
const SETTLE: Duration = Duration::from_millis(500);
/// How many looks are taken for a result that does not come.
const MOST_LOOKS: u32 = 20;
/// How often the guest's kernel is asked: it hears nothing while no program has the console open.
const MOST_ASKED: u32 = 3;

/// What has to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the guest's kernel to write its dirty pages.
    Sync,
    /// Look for the result, and tell with [`Judge::looked`].
    Look,
    /// Judge by what there is.
    Judge,
    /// The guest's kernel does not obey.
    GiveUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Settling,
    Syncing,
    Done,
}

/// Follows one instance.
#[derive(Debug)]
pub struct Judge {
    state: State,
    until: Option<Instant>,
    /// For the kernel's answer.
    patience: Duration,
    looks: u32,
    asked: u32,
}

impl Judge {
    /// One that waits `patience` for the guest's kernel to write its dirty pages.
    pub fn new(patience: Duration) -> Self {
        Judge { state: State::Idle, until: None, patience, looks: 0, asked: 0 }
    }

    /// When [`time_is_up`](Self::time_is_up) is to be called.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Something happened.
    pub fn update(&mut self, update: &Update) -> Option<Step> {
        match update {
            Update::Finished(_) if self.state == State::Idle => {
                self.enter(State::Settling, SETTLE);
                None
            }
            // systemd's word that cloud-init's last unit is through, where it shows its units.
            Update::Line(line) if self.state == State::Settling && line.contains("cloud-final.serv") => self.ask(),
            Update::Synced if self.state == State::Syncing => {
                self.asked = 0;
                self.looks += 1;
                Some(Step::Look)
            }
            Update::Stage(mark) if mark.stage == Stage::Reboot => {
                *self = Judge::new(self.patience);
                None
            }
            _ => None,
        }
    }

    /// Nothing happened in time.
    pub fn time_is_up(&mut self) -> Option<Step> {
        match self.state {
            State::Settling => self.ask(),
            State::Syncing if self.asked < MOST_ASKED => self.ask(),
            State::Syncing => {
                self.done();
                Some(Step::GiveUp)
            }
            State::Idle | State::Done => None,
        }
    }

    /// Whether the look found the result.
    pub fn looked(&mut self, found: bool) -> Option<Step> {
        if found || self.looks >= MOST_LOOKS {
            self.done();
            return Some(Step::Judge);
        }
        self.enter(State::Settling, SETTLE);
        None
    }

    fn ask(&mut self) -> Option<Step> {
        self.asked += 1;
        self.enter(State::Syncing, self.patience / MOST_ASKED);
        Some(Step::Sync)
    }

    fn done(&mut self) {
        self.state = State::Done;
        self.until = None;
    }

    fn enter(&mut self, state: State, patience: Duration) {
        self.state = state;
        self.until = Some(Instant::now() + patience);
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
