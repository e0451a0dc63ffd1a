//! The body of an instance's process: the instance on threads of its own, other processes connected, the user-data judged.
//!
//! ```text
//!   instance's threads ──events──► Session ──updates──┐
//!   (here, or in the emulated host)                   ├──► one loop: judge, tell the region, tell all who follow
//!   control socket ──► peers ──messages───────────────┘
//! ```
//!
//! The one who launched the instance is the first peer, over a socket that was handed down; it follows from the start, so
//! nothing is missed. Whether the instance may live on without it is the launch's choice.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::control::{Answer, Greeting, Message, Request, VERSION};
use super::emulated::{self, Tools};
use super::event::{Control, End};
use super::judge::{Judge, Step};
use super::peers::{PeerId, Peers, Said};
use super::running::{self, OpenDisk, Running, StartError};
use super::session::{Orders, Update};
use super::spec::InstanceSpec;
use super::stage::Stage;
use super::verdict::{Verdict, judge};
use super::{instance, logs, sockets};
use crate::vmm::footprint;
use crate::vmm::groundwork::Groundwork;

/// Where an instance runs.
#[derive(Clone, Debug)]
pub enum Way {
    /// On this machine's KVM.
    Native,
    /// Inside an emulated host.
    Emulated(Box<Tools>),
}

impl Way {
    /// Whether there is an emulated host between.
    pub fn is_emulated(&self) -> bool {
        matches!(self, Way::Emulated(_))
    }
}

/// What an instance's process is started with.
#[derive(Debug)]
pub struct Launch {
    /// The instance.
    pub spec: InstanceSpec,
    /// Where it runs.
    pub way: Way,
    /// The directory of its records.
    pub records: PathBuf,
    /// Where its control socket is to be.
    pub control: PathBuf,
    /// The one who launched it.
    pub owner: UnixStream,
    /// Whether it ends when its owner is gone.
    pub bound_to_owner: bool,
    /// When the launch command started.
    pub started: Instant,
    /// What was begun of it.
    pub groundwork: Option<Groundwork>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How the instance ended.
    pub end: End,
    /// What became of the user-data, if it got to its end in this run.
    pub verdict: Option<Verdict>,
    /// Whether the owner went away without a word, from an instance that is bound to it.
    pub abandoned: bool,
}

enum Inbox {
    Update(Update),
    Connected(UnixStream),
    Said(PeerId, Said),
}

/// The guest's kernel has this long to write its dirty pages; ten times so long in the emulated host.
const SYNC: Duration = Duration::from_secs(3);
/// Linux answers the magic SysRq key when the files' pages are written, and its journal's commit has only begun. The second time
/// finds that one done.
const FETCH_SYNCS: u32 = 2;

/// After so long without anything to do, the process gives back what of its program it used for that; it is idle, as most guests are
/// most of the time, or only the machine's own threads work, which use little of it. What they used is given back after ten times
/// as long, and after [`LONGEST_QUIET`].
const QUIET: Duration = Duration::from_secs(1);
const LONGEST_QUIET: Duration = Duration::from_secs(100);

/// How long a guest may take from the power button to its power-off; ten times so long in the emulated host.
const GRACE: Duration = Duration::from_secs(60);

/// Run the instance to its end. `keep` hears every update before anybody else does, the last one when the instance has let go of
/// its volumes and its outcome is known.
pub fn run(launch: Launch, keep: &mut dyn FnMut(&Update, Option<&Outcome>)) -> Outcome {
    let (inbox, messages) = mpsc::channel();
    let mut peers = Peers::new(inbox.clone(), Inbox::Said);
    let greeting = Greeting {
        version: VERSION,
        instance_id: launch.spec.metadata.instance_id.clone(),
        marks: Vec::new(),
        published: Vec::new(),
        judged: None,
    };
    if let Ok(owner) = launch.owner.try_clone().and_then(|stream| peers.add(stream, &greeting)) {
        peers.follow(owner);
    }
    let patience = if launch.way.is_emulated() { 10 } else { 1 };
    let mut process = Process {
        patience,
        judge: Judge::new(SYNC * patience),
        overdue: None,
        records: launch.records.clone(),
        greeting,
        peers,
        asking: HashMap::new(),
        questions: 0,
        fetching: Vec::new(),
        fetch_until: None,
        fetch_syncs: 0,
        quiet: None,
        quiet_for: QUIET,
        synced: false,
        finished: false,
        bound_to_owner: launch.bound_to_owner,
        abandoned: false,
    };
    let outcome = match start(launch, inbox) {
        Ok((orders, disk)) => process.serve(&messages, &orders, &*disk, keep),
        Err(error) => {
            let end = instance::failed(&*error);
            let outcome = Outcome { end: end.clone(), verdict: None, abandoned: false };
            process.finish(&end, &outcome, keep);
            outcome
        }
    };
    process.peers.close();
    outcome
}

/// Start everything that sends to the inbox.
fn start(launch: Launch, inbox: Sender<Inbox>) -> Result<(Orders, Arc<OpenDisk>), StartError> {
    let Launch { spec, way, records, control, started, groundwork, .. } = launch;
    let listener = sockets::listen(&control).map_err(|e| format!("can't listen at {}: {e}", control.display()))?;
    let running = match way {
        Way::Native => running::start(spec, &records, started, groundwork)?,
        Way::Emulated(tools) => emulated::start(&tools, &spec, &records, started)?,
    };
    let (orders, disk) = (running.session.orders(), running.disk.clone());
    let accepted = inbox.clone();
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if sockets::is_ours(&stream) && accepted.send(Inbox::Connected(stream)).is_err() {
                return;
            }
        }
    })?;
    std::thread::Builder::new().name("session".into()).spawn(move || pump(running, &inbox))?;
    Ok((orders, disk))
}

/// Pass the session's updates on. The last one comes when the instance has let go of everything.
fn pump(mut running: Running, inbox: &Sender<Inbox>) {
    const LONG: Duration = Duration::from_secs(3600);
    loop {
        let Some(update) = running.session.next(LONG) else { continue };
        if matches!(update, Update::Ended(_)) {
            drop(running);
            let _ = inbox.send(Inbox::Update(update));
            return;
        }
        if inbox.send(Inbox::Update(update)).is_err() {
            return;
        }
    }
}

struct Process {
    /// All guests are measured with this: the emulated host is slow in everything.
    patience: u32,
    judge: Judge,
    /// What becomes of a guest that does not hear the power button, and when.
    overdue: Option<(Instant, Control)>,
    records: PathBuf,
    greeting: Greeting,
    peers: Peers<Inbox>,
    /// Who waits for the answer to which question to the instance.
    asking: HashMap<u64, (PeerId, u64)>,
    questions: u64,
    /// Who waits for the guest's logs.
    fetching: Vec<(PeerId, u64)>,
    fetch_until: Option<Instant>,
    /// How often the guest's kernel has to write its dirty pages before.
    fetch_syncs: u32,
    /// When it has had nothing to do for the time beside it; `None` once that was the longest.
    quiet: Option<Instant>,
    quiet_for: Duration,
    /// The root volume holds what the guest had written when it was asked last.
    synced: bool,
    /// cloud-init is through.
    finished: bool,
    bound_to_owner: bool,
    abandoned: bool,
}

/// The owner's number: it was the first.
const OWNER: PeerId = 0;

impl Process {
    fn serve(
        &mut self,
        inbox: &Receiver<Inbox>,
        orders: &Orders,
        disk: &OpenDisk,
        keep: &mut dyn FnMut(&Update, Option<&Outcome>),
    ) -> Outcome {
        loop {
            let overdue = self.overdue.as_ref().map(|(until, _)| *until);
            let until = [self.judge.until(), self.fetch_until, overdue, self.quiet].into_iter().flatten().min();
            let received = match until {
                Some(until) => inbox.recv_timeout(until.saturating_duration_since(Instant::now())),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            if received.is_ok() {
                self.wait_for_quiet(QUIET);
            }
            match received {
                Ok(Inbox::Update(Update::Ended(end))) => return self.ended(end, disk, keep),
                Ok(Inbox::Update(update)) => self.update(&update, orders, disk, keep),
                Ok(Inbox::Connected(stream)) => {
                    let _ = self.peers.add(stream, &self.greeting);
                }
                Ok(Inbox::Said(peer, said)) => self.said(peer, said, orders),
                Err(RecvTimeoutError::Timeout) => self.time_is_up(orders, disk, keep),
                Err(RecvTimeoutError::Disconnected) => {
                    let text = "the instance's threads ended without a word".to_owned();
                    return self.ended(End::Failed { text, causes: Vec::new() }, disk, keep);
                }
            }
        }
    }

    fn update(
        &mut self,
        update: &Update,
        orders: &Orders,
        disk: &OpenDisk,
        keep: &mut dyn FnMut(&Update, Option<&Outcome>),
    ) {
        if let Update::Answer(Answer { id, error }) = update {
            if let Some((peer, id)) = self.asking.remove(id) {
                self.peers.tell(peer, &Update::Answer(Answer { id, error: error.clone() }));
            }
            return;
        }
        match update {
            Update::Stage(mark) => {
                self.greeting.marks.push(mark.clone());
                if mark.stage == Stage::Reboot {
                    // A guest that restarts by itself does not cancel that it is to end.
                    self.overdue.take_if(|(_, control)| matches!(control, Control::Reset));
                }
            }
            Update::Published(forwards) => self.greeting.published.clone_from(forwards),
            Update::Finished(_) => (self.finished, self.synced) = (true, false),
            Update::Synced => {
                self.synced = true;
                match self.fetch_syncs.checked_sub(1) {
                    Some(left @ 1..) => {
                        self.fetch_syncs = left;
                        orders(Control::Sync);
                    }
                    _ => self.fetched(disk, None),
                }
            }
            _ => {}
        }
        self.tell(update, None, keep);
        let step = self.judge.update(update);
        self.step(step, orders, disk, keep);
    }

    fn step(
        &mut self,
        step: Option<Step>,
        orders: &Orders,
        disk: &OpenDisk,
        keep: &mut dyn FnMut(&Update, Option<&Outcome>),
    ) {
        match step {
            None => {}
            Some(Step::Sync) => orders(Control::Sync),
            Some(Step::Look) => {
                let next = self.judge.looked(logs::result_is_there(disk));
                self.step(next, orders, disk, keep);
            }
            Some(Step::Judge) => {
                let verdict = judge(&logs::read_files(disk, &self.records));
                self.judged(Some(verdict), keep);
            }
            Some(Step::GiveUp) => self.judged(None, keep),
        }
    }

    fn judged(&mut self, verdict: Option<Verdict>, keep: &mut dyn FnMut(&Update, Option<&Outcome>)) {
        self.greeting.judged = Some(verdict.clone());
        self.tell(&Update::Judged(verdict), None, keep);
    }

    fn tell(&mut self, update: &Update, outcome: Option<&Outcome>, keep: &mut dyn FnMut(&Update, Option<&Outcome>)) {
        keep(update, outcome);
        self.peers.tell_all(update);
    }

    fn wait_for_quiet(&mut self, quiet: Duration) {
        self.quiet_for = quiet;
        self.quiet = (quiet <= LONGEST_QUIET).then(|| Instant::now() + quiet);
    }

    fn time_is_up(&mut self, orders: &Orders, disk: &OpenDisk, keep: &mut dyn FnMut(&Update, Option<&Outcome>)) {
        let now = Instant::now();
        if self.quiet.take_if(|until| *until <= now).is_some() {
            footprint::give_back();
            self.wait_for_quiet(self.quiet_for * 10);
        }
        if self.fetch_until.is_some_and(|until| until <= now) {
            self.fetched(disk, Some("the guest's kernel did not write its dirty pages: the logs may lack their end"));
        }
        if let Some((_, control)) = self.overdue.take_if(|(until, _)| *until <= now) {
            orders(control);
        }
        if self.judge.until().is_some_and(|until| until <= now) {
            let step = self.judge.time_is_up();
            self.step(step, orders, disk, keep);
        }
    }

    fn said(&mut self, peer: PeerId, said: Said, orders: &Orders) {
        match said {
            Said::Message(Message::Follow) => self.peers.follow(peer),
            Said::Message(Message::Order { control }) => orders(control),
            Said::Message(Message::Shutdown { force: true }) => orders(Control::Stop),
            Said::Message(Message::Shutdown { force: false }) => {
                if !matches!(self.overdue, Some((_, Control::Stop))) {
                    self.overdue = Some((Instant::now() + GRACE * self.patience, Control::Stop));
                    orders(Control::PowerButton);
                }
            }
            Said::Message(Message::Reboot) => {
                if self.overdue.is_none() {
                    self.overdue = Some((Instant::now() + GRACE * self.patience, Control::Reset));
                    orders(Control::Reboot);
                }
            }
            Said::Message(Message::Detach) if peer == OWNER => self.bound_to_owner = false,
            Said::Message(Message::Detach) => {}
            Said::Message(Message::Ask { id, request: Request::Volume { change } }) => {
                // Numbered anew: two peers may use the same number.
                self.questions += 1;
                self.asking.insert(self.questions, (peer, id));
                orders(Control::Volume { id: self.questions, change });
            }
            Said::Message(Message::Ask { id, request: Request::Metadata { change } }) => {
                self.questions += 1;
                self.asking.insert(self.questions, (peer, id));
                orders(Control::Metadata { id: self.questions, change });
            }
            Said::Message(Message::Ask { id, request: Request::SecurityGroups { groups } }) => {
                self.questions += 1;
                self.asking.insert(self.questions, (peer, id));
                orders(Control::SecurityGroups { id: self.questions, groups });
            }
            Said::Message(Message::Ask { id, request: Request::FetchLogs }) => {
                self.fetching.push((peer, id));
                self.fetch_until = Some(Instant::now() + SYNC * self.patience);
                self.fetch_syncs = FETCH_SYNCS;
                orders(Control::Sync);
            }
            Said::Gone => {
                self.peers.remove(peer);
                if peer == OWNER && self.bound_to_owner {
                    self.abandoned = true;
                    orders(Control::Stop);
                }
            }
        }
    }

    /// Copy the guest's logs for those who asked.
    fn fetched(&mut self, disk: &OpenDisk, error: Option<&str>) {
        if self.fetching.is_empty() {
            return;
        }
        (self.fetch_until, self.fetch_syncs) = (None, 0);
        logs::read_files(disk, &self.records);
        for (peer, id) in std::mem::take(&mut self.fetching) {
            self.peers.tell(peer, &Update::Answer(Answer { id, error: error.map(str::to_owned) }));
        }
    }

    /// The instance has let go of its volumes: what could not be read before is read now.
    fn ended(&mut self, end: End, disk: &OpenDisk, keep: &mut dyn FnMut(&Update, Option<&Outcome>)) -> Outcome {
        let written = self.synced || end == End::PowerOff;
        if written && self.greeting.judged.as_ref().is_none_or(Option::is_none) {
            let files = logs::read_files(disk, &self.records);
            if self.finished {
                self.judged(Some(judge(&files)), keep);
            }
        }
        let verdict = self.greeting.judged.clone().flatten();
        let outcome = Outcome { end: end.clone(), verdict, abandoned: self.abandoned };
        self.finish(&end, &outcome, keep);
        outcome
    }

    fn finish(&mut self, end: &End, outcome: &Outcome, keep: &mut dyn FnMut(&Update, Option<&Outcome>)) {
        self.tell(&Update::Ended(end.clone()), Some(outcome), keep);
    }
}
