//! One connection to the keeper: a question, or a command.

use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use super::boot::Host;
use super::outbox::Outbox;
use super::plugs::Plugged;
use super::protocol::{Answer, Build, Lease, Request, RunRequest};
use super::{Keeper, Machine};
use crate::emulate::channel::{self, Failure, Kind};
use crate::emulate::running::STREAM;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves all that come, each on a thread.
pub(super) fn accept(keeper: &Arc<Keeper>, listener: &UnixListener) {
    loop {
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(_) => {
                // No descriptors left, as a rule: others end.
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        let here = Arc::clone(keeper);
        *keeper.clients.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let thread = thread::Builder::new().name("client".into()).spawn(move || {
            if let Err(error) = serve(&here, connection) {
                eprintln!("a client: {error}");
            }
            leave(&here);
        });
        if thread.is_err() {
            leave(keeper);
        }
    }
}

fn leave(keeper: &Keeper) {
    *keeper.clients.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    keeper.client_left.notify_all();
}

fn serve(keeper: &Arc<Keeper>, mut connection: UnixStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut input = BufReader::with_capacity(64 << 10, connection.try_clone()?);
    let request = channel::receive_value(&mut input, Kind::Message)?;
    connection.set_read_timeout(None)?;
    let mut answer = |answer: &Answer| channel::send_value(&mut connection, Kind::Message, STREAM, answer);
    match request {
        Request::Status => answer(&Answer::Status(keeper.status())),
        Request::Stop { grace_ms } => {
            keeper.stop(Duration::from_millis(grace_ms.into()));
            let result = answer(&Answer::Stopped);
            // The connection ends with the process: who asked sees when another can be started.
            std::mem::forget(connection);
            result
        }
        Request::Resize { drive, size } => {
            let resized = resize(keeper, &drive, size).map_err(|error| error.to_string());
            answer(&Answer::Resized(resized))
        }
        Request::Command { build, ports } => match lease(keeper, &build, ports) {
            Err(no) => answer(&no),
            Ok((host, lease)) => {
                let result = answer(&Answer::Lease(lease.clone()))
                    .and_then(|()| run(keeper, &host, &lease, &mut input, connection));
                host.plugs.end_lease(&lease);
                result
            }
        },
    }
}

fn resize(keeper: &Keeper, drive: &Path, size: u64) -> io::Result<()> {
    let host = match &*keeper.settled() {
        Machine::Up(host) => Arc::clone(host),
        _ => return Err(io::Error::other("the emulated host is going away")),
    };
    let (number, n) = Lease::parse_drive(drive).ok_or_else(|| io::Error::other("it is no drive of a command"))?;
    host.plugs.resize(number, n, size)
}

fn lease(keeper: &Keeper, build: &Build, ports: u16) -> Result<(Arc<Host>, Lease), Answer> {
    let host = match &*keeper.settled() {
        Machine::Up(host) => Arc::clone(host),
        Machine::Stopping(_) | Machine::Gone | Machine::Starting => return Err(Answer::Leaving),
        Machine::Failed(why) => return Err(Answer::Failed(why.clone())),
    };
    if *build != keeper.build {
        return Err(Answer::OtherBuild { commands: keeper.streams().len() });
    }
    let (number, ports) = host.plugs.lease(ports).ok_or_else(|| Answer::Failed("has no inner ports left".into()))?;
    Ok((host, Lease { number, ports, memory_mib: keeper.settings.memory_mib }))
}

/// Runs the client's command, if it sends one.
fn run(
    keeper: &Arc<Keeper>,
    host: &Arc<Host>,
    lease: &Lease,
    input: &mut BufReader<UnixStream>,
    mut connection: UnixStream,
) -> io::Result<()> {
    let request: RunRequest = match channel::receive_value(input, Kind::Message) {
        // It has thought better of it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        other => other?,
    };
    let mut plugged = Plugged::default();
    if let Err(why) = host.plugs.put_in(lease, &request.drives, &request.forwards, &mut plugged) {
        let out = host.plugs.take_out(plugged);
        channel::send(&mut connection, Kind::Failed, STREAM, &serde_json::to_vec(&why)?)?;
        return out;
    }
    let mut order = request.order;
    order.disks = plugged.disks();
    let outbox = Arc::new(Outbox::default());
    keeper.streams().insert(lease.number, Arc::clone(&outbox));
    // A machine that goes away between these two finds the stream, or is found gone here.
    let stays = matches!(&*keeper.machine(), Machine::Up(_));
    let sent = channel::send_value(&mut *host.channel(), Kind::Run, lease.number, &order);
    if !stays || sent.is_err() {
        let gone = Failure::Host("is going away".into());
        outbox.put(Kind::Failed, &serde_json::to_vec(&gone)?);
    }
    let over = Arc::new(AtomicBool::new(false));
    let deliverer = {
        let (keeper, host, number, over) = (Arc::clone(keeper), Arc::clone(host), lease.number, Arc::clone(&over));
        thread::Builder::new().name("deliver".into()).spawn(move || {
            let result = deliver(&host, &outbox, plugged, &connection);
            keeper.streams().remove(&number);
            over.store(true, Ordering::Relaxed);
            // Wakes the thread that reads.
            let _ = connection.shutdown(Shutdown::Both);
            result
        })?
    };
    pass_on(host, lease.number, input);
    if !over.load(Ordering::Relaxed) {
        let _ = channel::send(&mut *host.channel(), Kind::Leave, lease.number, &[]);
    }
    deliverer.join().unwrap_or(Ok(()))
}

/// What the client says, until it is gone.
fn pass_on(host: &Host, number: u32, input: &mut BufReader<UnixStream>) {
    let mut payload = Vec::new();
    while let Ok(Some(frame)) = channel::receive(input, &mut payload) {
        let meant = matches!(frame.kind, Kind::Stdin | Kind::StdinEnd | Kind::Signal | Kind::Room);
        if meant && channel::send(&mut *host.channel(), frame.kind, number, &payload).is_err() {
            return;
        }
    }
}

/// What the command says, until it has ended; the client may be gone before. Drives and ports are free when the client
/// hears of the end.
fn deliver(host: &Host, outbox: &Outbox, plugged: Plugged, mut connection: &UnixStream) -> io::Result<()> {
    let mut here = true;
    let (kind, payload) = loop {
        let (kind, payload) = outbox.take();
        if matches!(kind, Kind::Exit | Kind::Failed) {
            break (kind, payload);
        }
        here = here && channel::send(&mut connection, kind, STREAM, &payload).is_ok();
    };
    let out = host.plugs.take_out(plugged);
    if here {
        let _ = channel::send(&mut connection, kind, STREAM, &payload);
    }
    out
}
