//! One instance from its specification to its end: volume, boot files, metadata service, network and machine put
//! together, and the machine built anew for each restart of the guest.
//!
//! Three threads of this room are at work, beside the machine's own: the one that calls [`run`] builds machines and waits
//! for them, `orders` passes orders on to whichever machine runs, and the network's services answer on the NIC's thread.
//! The metadata service is up before the first vCPU runs, and stays up over restarts.

use std::error::Error;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::{Control, End, Event};
use super::services::{self, Services};
use super::spec::{InstanceSpec, NIC_SLOT};
use super::stage::Stage;
use super::volumes::Volumes;
use super::{bootfiles, running::StartError};
use crate::vmm::backend::ConsoleSink;
use crate::vmm::config::{CpuTopology, MachineConfig, NicConfig, SmbiosIdentity};
use crate::vmm::groundwork::Groundwork;
use crate::vmm::machine::{Exit, Machine, MachineHandle};

/// Tells the owner.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// A guest that triple-faults is restarted, as on EC2; one that does nothing else is given up after so many
/// in a row, none of which lived longer than [`SHORT_LIFE`].
const MOST_TRIPLE_FAULTS: u32 = 3;
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// Run an instance to its end. `orders` is the way back to `controls`, for the console's own reminders; `groundwork` is what was
/// begun of its first machine.
pub fn run(
    spec: &InstanceSpec,
    volumes: Volumes,
    tell: Tell,
    orders: Sender<Control>,
    controls: Receiver<Control>,
    groundwork: Option<Groundwork>,
) {
    let volumes = Arc::new(volumes);
    let console = Console::new(tell.clone(), orders);
    let present = Arc::new(Mutex::new(Present::default()));
    let lived = Services::new(spec, &tell).map(Arc::new).and_then(|services| {
        let obedient = (present.clone(), console.clone(), tell.clone(), volumes.clone(), services.clone());
        std::thread::Builder::new().name("orders".into()).spawn(move || {
            let (present, console, tell, volumes, services) = obedient;
            obey(&controls, &present, &console, &volumes, &services, &tell);
        })?;
        let life =
            Life { spec, volumes: &volumes, services: &services, tell: &tell, console: &console, present: &present };
        boots(&life, groundwork)
    });
    let end = lived.unwrap_or_else(|error| failed(&*error));
    console.flush();
    for text in volumes.close() {
        tell(Event::Warning { text });
    }
    tell(Event::Ended { end });
}

/// The end that an error makes.
pub(super) fn failed(error: &(dyn Error + 'static)) -> End {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    End::Failed { text: error.to_string(), causes }
}

/// What all boots of an instance share.
struct Life<'a> {
    spec: &'a InstanceSpec,
    volumes: &'a Arc<Volumes>,
    services: &'a Services,
    tell: &'a Tell,
    console: &'a Console,
    present: &'a Mutex<Present>,
}

/// Boot the guest again and again, until it powers off or something else ends it.
fn boots(life: &Life<'_>, mut groundwork: Option<Groundwork>) -> Result<End, StartError> {
    let Life { tell, console, present, .. } = life;
    let mut first = true;
    let mut triple_faults = 0;
    loop {
        let exit = match boot(life, first, groundwork.take())? {
            None => return Ok(End::Stopped),
            Some((exit, lived)) => {
                triple_faults = if exit == Exit::TripleFault && lived < SHORT_LIFE { triple_faults + 1 } else { 0 };
                exit
            }
        };
        first = false;
        let next = {
            let mut present = lock(present);
            present.machine = None;
            if present.next == Next::Restart { std::mem::take(&mut present.next) } else { present.next }
        };
        console.flush();
        let detail = match exit {
            Exit::PowerOff | Exit::Stopped if next == Next::Restart => None,
            // A guest that was restarting when it was told to power off has shut down all the same.
            Exit::Reset if next == Next::Off => return Ok(End::PowerOff),
            Exit::TripleFault if next == Next::Off => return Ok(End::Stopped),
            Exit::PowerOff => return Ok(End::PowerOff),
            Exit::Stopped => return Ok(End::Stopped),
            Exit::TripleFault if triple_faults >= MOST_TRIPLE_FAULTS => {
                let text =
                    format!("the guest's CPU triple-faulted {triple_faults} times in a row, soon after its start");
                return Ok(End::Crashed { text });
            }
            Exit::TripleFault => Some("triple fault".to_owned()),
            Exit::Reset => None,
            Exit::VcpuPanicked(text) => return Err(format!("a vCPU thread of amiable panicked: {text}").into()),
            Exit::InternalError(text) => return Err(format!("KVM can't go on with this guest: {text}").into()),
        };
        tell(Event::Stage { stage: Stage::Reboot, detail });
    }
}

/// Build a machine and run it once. `None` if it was stopped before it started.
fn boot(life: &Life<'_>, first: bool, groundwork: Option<Groundwork>) -> Result<Option<(Exit, Duration)>, StartError> {
    let Life { spec, volumes, services, tell, console, present } = life;
    let files = bootfiles::find(&spec.boot, &volumes.root(), first)?;
    let network = services.network(spec)?;
    let machine = Machine::new(MachineConfig {
        memory: spec.memory_mib << 20,
        topology: CpuTopology { cores: spec.cores, threads_per_core: spec.threads_per_core },
        kernel: files.kernel,
        initrd: files.initrd,
        cmdline: files.cmdline,
        smbios: SmbiosIdentity {
            uuid: spec.uuid.clone(),
            product_name: spec.metadata.instance_type.clone(),
            board_asset_tag: spec.metadata.instance_id.clone(),
        },
        console: Box::new(Console::clone(console)),
        volumes: volumes.configs(),
        nics: vec![NicConfig { slot: NIC_SLOT, mac: spec.network.mac, mtu: services::MTU, backend: Box::new(network) }],
        groundwork,
    })?;
    {
        let mut present = lock(present);
        if present.next == Next::Off {
            return Ok(None);
        }
        let handle = machine.handle();
        volumes.follow(&handle);
        present.machine = Some(handle);
    }
    tell(Event::Stage { stage: Stage::Prepared, detail: Some(files.description) });
    let started = Instant::now();
    let announce = Tell::clone(tell);
    let exit = machine.run(move |_| announce(Event::Stage { stage: Stage::Machine, detail: None }));
    Ok(Some((exit, started.elapsed())))
}

/// The machine of the moment.
#[derive(Default)]
struct Present {
    machine: Option<MachineHandle>,
    next: Next,
}

/// What follows when the machine ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// What the guest says: it powers off or restarts.
    #[default]
    AsTheGuestSays,
    /// Another boot, even after a power-off.
    Restart,
    /// Nothing, even after a restart: it was told to power off, or stopped.
    Off,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is whole after each statement; a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pass orders on to the machine until it is stopped.
fn obey(
    controls: &Receiver<Control>,
    present: &Mutex<Present>,
    console: &Console,
    volumes: &Arc<Volumes>,
    services: &Services,
    tell: &Tell,
) {
    loop {
        let control = match console.waits() {
            // Part of a line stands in the buffer: a prompt, if nothing follows soon.
            true => match controls.recv_timeout(PROMPT) {
                Err(RecvTimeoutError::Timeout) => {
                    console.flush();
                    continue;
                }
                other => other.ok(),
            },
            false => controls.recv().ok(),
        };
        let Some(control) = control else { return };
        let mut present = lock(present);
        let machine = present.machine.clone();
        match (control, &machine) {
            (Control::Stop, machine) => {
                if let Some(machine) = machine {
                    machine.stop();
                }
                present.next = Next::Off;
                return;
            }
            (Control::PowerButton, machine) => {
                if let Some(machine) = machine {
                    machine.power_button();
                }
                present.next = Next::Off;
            }
            (Control::Reboot, Some(machine)) => {
                present.next = Next::Restart;
                machine.power_button();
            }
            (Control::Reset, Some(machine)) => {
                present.next = Next::Restart;
                machine.stop();
            }
            (Control::Input { data }, Some(machine)) => {
                machine.serial_input(&data);
            }
            (Control::Sync, Some(machine)) => machine.serial_sysrq(b's'),
            (Control::Metadata { id, change }, _) => {
                services.change(change);
                tell(Event::Answer { id, error: None });
            }
            (Control::SecurityGroups { id, groups }, _) => {
                services.set_groups(&groups);
                tell(Event::Answer { id, error: None });
            }
            (Control::Volume { id, change }, machine) => volumes.change(id, change, machine.clone(), tell),
            (Control::Describe, Some(machine)) => {
                tell(Event::Vcpus { lines: machine.describe_vcpus(ANSWER) });
            }
            (Control::Remind, _) | (_, None) => {}
        }
    }
}

/// How long vCPUs have to say what they do.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a part of a line waits for the rest before it is shown.
const PROMPT: Duration = Duration::from_millis(30);
/// A part of a line is shown at this length, in bytes.
const LONG: usize = 1024;

/// The console's output on its way out, in lines: the guest writes byte by byte.
#[derive(Clone)]
struct Console {
    buffer: Arc<Mutex<Vec<u8>>>,
    tell: Tell,
    orders: Sender<Control>,
}

impl Console {
    fn new(tell: Tell, orders: Sender<Control>) -> Self {
        Console { buffer: Arc::default(), tell, orders }
    }

    fn waits(&self) -> bool {
        !lock(&self.buffer).is_empty()
    }

    fn flush(&self) {
        let data = std::mem::take(&mut *lock(&self.buffer));
        if !data.is_empty() {
            (self.tell)(Event::Console { data });
        }
    }
}

impl ConsoleSink for Console {
    fn write(&mut self, bytes: &[u8]) {
        let mut buffer = lock(&self.buffer);
        let begins = buffer.is_empty();
        buffer.extend_from_slice(bytes);
        let full = bytes.contains(&b'\n') || buffer.len() >= LONG;
        drop(buffer);
        if full {
            self.flush();
        } else if begins {
            let _ = self.orders.send(Control::Remind);
        }
    }
}
