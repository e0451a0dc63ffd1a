//! The vCPU threads: each enters the guest and serves its exits until somebody ends the machine.

#![forbid(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::device::Action;
use super::kvm::kick::{Kickable, ThreadId};
use super::kvm::vcpu::{Buses, Event, Vcpu};
use super::machine::Exit;
use super::memory::THREAD_STACK;

/// What the vCPU threads, the one that runs the machine and the handles share.
pub struct Shared {
    /// Set with `exit`; looked at without its lock.
    ending: AtomicBool,
    /// How the machine ended. The first one counts.
    exit: Mutex<Option<Exit>>,
    ended: Condvar,
    threads: Vec<ThreadId>,
    inquiry: Inquiry,
}

/// A request to all vCPUs to say what they are doing.
#[derive(Default)]
struct Inquiry {
    /// Counts the requests.
    number: AtomicU64,
    /// The number of the request, and the answers to it.
    answers: Mutex<(u64, Vec<Option<String>>)>,
    answered: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// For a machine with `vcpus` vCPUs.
    pub fn new(vcpus: u32) -> Self {
        Self {
            ending: AtomicBool::new(false),
            exit: Mutex::new(None),
            ended: Condvar::new(),
            threads: (0..vcpus).map(|_| ThreadId::default()).collect(),
            inquiry: Inquiry::default(),
        }
    }

    /// End the machine, unless it has ended.
    pub fn end(&self, exit: Exit) {
        lock(&self.exit).get_or_insert(exit);
        self.ending.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(ThreadId::kick);
        self.ended.notify_all();
    }

    fn ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    fn wait(&self) -> Exit {
        let mut exit = lock(&self.exit);
        loop {
            if let Some(exit) = &*exit {
                return exit.clone();
            }
            exit = self.ended.wait(exit).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ask all vCPUs what they are doing.
    pub fn describe(&self, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let inquiry = &self.inquiry;
        let mut answers = lock(&inquiry.answers);
        let number = answers.0 + 1;
        *answers = (number, vec![None; self.threads.len()]);
        inquiry.number.store(number, Ordering::SeqCst);
        self.threads.iter().for_each(ThreadId::kick);
        // Another inquiry may overtake this one; its answers are as good.
        while answers.1.iter().any(Option::is_none) && !self.ending() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            answers = inquiry.answered.wait_timeout(answers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        answers.1.iter().flatten().cloned().collect()
    }

    /// Answer an inquiry that this vCPU has not answered yet.
    fn answer(&self, vcpu: &Vcpu, index: usize, answered: &mut u64) {
        if self.inquiry.number.load(Ordering::SeqCst) == *answered {
            return;
        }
        let mut answers = lock(&self.inquiry.answers);
        *answered = answers.0;
        if let Some(answer) = answers.1.get_mut(index) {
            *answer = Some(vcpu.describe());
        }
        self.inquiry.answered.notify_all();
    }
}

/// Run all vCPUs until the machine ends, and collect their threads.
pub fn run(vcpus: Vec<Vcpu>, buses: &Arc<Buses>, shared: &Arc<Shared>, on_first_run: impl FnOnce(Instant)) -> Exit {
    let (first_run, started) = channel();
    let threads: Vec<JoinHandle<()>> = vcpus
        .into_iter()
        .enumerate()
        .map_while(|(index, vcpu)| {
            let (buses, shared, first_run) = (Arc::clone(buses), Arc::clone(shared), first_run.clone());
            let body = {
                let shared = Arc::clone(&shared);
                move || vcpu_thread(vcpu, index, &buses, &shared, &first_run)
            };
            let thread = Builder::new().name(format!("vcpu{index}")).stack_size(THREAD_STACK).spawn(body);
            thread.map_err(|e| shared.end(Exit::InternalError(format!("cannot start a vCPU thread: {e}")))).ok()
        })
        .collect();
    drop(first_run);
    if let Ok(at) = started.recv() {
        on_first_run(at);
    }
    let exit = shared.wait();
    for thread in threads {
        // Panics were caught in the thread.
        let _ = thread.join();
    }
    exit
}

fn vcpu_thread(mut vcpu: Vcpu, index: usize, buses: &Buses, shared: &Shared, first_run: &Sender<Instant>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let thread = &shared.threads[index];
        match Kickable::new(thread, &mut vcpu) {
            Ok(_kickable) => vcpu_loop(&mut vcpu, index, buses, shared, first_run),
            Err(e) => Some(Exit::InternalError(format!("cannot prepare a vCPU thread for signals: {e}"))),
        }
    }));
    match outcome {
        Ok(None) => {}
        Ok(Some(exit)) => shared.end(exit),
        Err(panic) => shared.end(Exit::VcpuPanicked(panic_text(&*panic))),
    }
}

/// Returns how the machine ended, or nothing if somebody else ended it.
fn vcpu_loop(
    vcpu: &mut Vcpu,
    index: usize,
    buses: &Buses,
    shared: &Shared,
    first_run: &Sender<Instant>,
) -> Option<Exit> {
    let mut answered = 0;
    if index == 0 && !shared.ending() {
        // Nobody listens only if the machine is ending.
        let _ = first_run.send(Instant::now());
    }
    while !shared.ending() {
        match vcpu.run(buses) {
            Event::Continue => {}
            Event::Interrupted => shared.answer(vcpu, index, &mut answered),
            Event::Action(Action::None) => {}
            Event::Action(Action::PowerOff) => return Some(Exit::PowerOff),
            Event::Action(Action::Reset) => return Some(Exit::Reset),
            Event::TripleFault => return Some(Exit::TripleFault),
            Event::Failed(why) => return Some(Exit::InternalError(why)),
        }
    }
    None
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
