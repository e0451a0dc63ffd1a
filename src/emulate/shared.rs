//! The shared emulated host as those see it who have commands run in it. The first of them starts its
//! [`keeper`](super::keeper); it stays up until it is stopped.

use std::fs::OpenOptions;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::channel::{self, Kind};
use super::error::{Error, io_error};
use super::host::BINARY;
use super::inner::{InnerFile, Order};
use super::keeper::protocol::{Answer, Build, Lease, Request, RunRequest, Settings, Status};
use super::keeper::{self, socket};
use super::running::{Running, STREAM};
use super::{Drive, Forward, initramfs};

/// Between two looks for the keeper's socket.
const PAUSE: Duration = Duration::from_millis(10);
/// How much of the keeper's log an error shows, in bytes.
const LOG_TAIL: usize = 4 << 10;
/// How long a started command may take inside until it runs: its disks must appear.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// What a command's process has to end in good order once nobody waits for it.
const GRACE: Duration = Duration::from_secs(10);

/// A shared emulated host that is up, or was a moment ago.
#[derive(Debug, Clone)]
pub struct SharedHost {
    settings: Settings,
    binary: PathBuf,
}

impl SharedHost {
    /// Waits until the host of the directory in `settings` is up; starts it if it is not. One that runs already is taken
    /// as it is, with the memory and the CPUs that it has.
    pub fn open(mut settings: Settings) -> Result<Self, Error> {
        settings.directory =
            std::path::absolute(&settings.directory).map_err(io_error(settings.directory.display().to_string()))?;
        let binary = match &settings.binary {
            Some(path) => std::path::absolute(path).map_err(io_error(path.display().to_string()))?,
            None => this_executable(),
        };
        if settings.binary.is_some() {
            settings.binary = Some(binary.clone());
        }
        let host = SharedHost { settings, binary };
        host.lease(0)?;
        Ok(host)
    }

    /// How the host of a directory is; `None` if there is none.
    pub fn status(directory: &Path) -> Result<Option<Status>, Error> {
        match ask(directory, &Request::Status)? {
            Some((_, Answer::Status(status))) => Ok(Some(status)),
            Some((_, other)) => Err(unexpected(&other)),
            None => Ok(None),
        }
    }

    /// Ends all commands in the host of a directory, within `grace` in good order, then the host. Whether there was one.
    pub fn stop(directory: &Path, grace: Duration) -> Result<bool, Error> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        match ask(directory, &Request::Stop { grace_ms })? {
            Some((mut connection, Answer::Stopped)) => {
                // The keeper's own end.
                let _ = connection.read(&mut [0]);
                Ok(true)
            }
            Some((_, other)) => Err(unexpected(&other)),
            None => Ok(false),
        }
    }

    /// A command to be: this binary with `arguments` (without the program's name). So many inner `ports` are its own.
    pub fn command<S: Into<String>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        ports: u16,
    ) -> Result<SharedCommand, Error> {
        let (connection, lease) = self.lease(ports)?;
        let argv = ["amiable".to_owned()].into_iter().chain(arguments.into_iter().map(Into::into)).collect();
        let order = Order {
            program: BINARY.into(),
            argv,
            env: initramfs::environment(),
            folder: Some(lease.folder()),
            grace_ms: u32::try_from(GRACE.as_millis()).unwrap_or(u32::MAX),
            ..Order::default()
        };
        let request = RunRequest { order, ..RunRequest::default() };
        Ok(SharedCommand { connection, lease, request })
    }

    /// A file that is a drive of a running command has another size now, `size` bytes. `drive` is its path inside; the inside has to
    /// look again ([`rescan`](super::rescan)).
    pub fn resize(&self, drive: &Path, size: u64) -> Result<(), Error> {
        match ask(&self.settings.directory, &Request::Resize { drive: drive.to_owned(), size })? {
            Some((_, Answer::Resized(resized))) => resized.map_err(Error::Host),
            Some((_, other)) => Err(unexpected(&other)),
            None => Err(Error::Lost { when: "before a drive was resized" }),
        }
    }

    /// A place for a command in a host that is up.
    fn lease(&self, ports: u16) -> Result<(UnixStream, Lease), Error> {
        let build = Build::of(&self.binary).map_err(io_error(self.binary.display().to_string()))?;
        let deadline = Instant::now() + self.settings.boot_timeout;
        let mut keeper: Option<Child> = None;
        let result = loop {
            match ask(&self.settings.directory, &Request::Command { build: build.clone(), ports }) {
                Ok(Some((connection, Answer::Lease(lease)))) => break Ok((connection, lease)),
                Ok(Some((_, Answer::Failed(why)))) => break Err(Error::Host(why)),
                // One that does nothing makes room for ours.
                Ok(Some((_, Answer::OtherBuild { commands: 0 }))) => {
                    Self::stop(&self.settings.directory, Duration::ZERO)?;
                }
                Ok(Some((_, Answer::OtherBuild { .. }))) => break Err(Error::OtherVersion),
                // On its way down: the next one starts when it is gone.
                Ok(Some((_, Answer::Leaving))) => {}
                Ok(Some((_, other))) => break Err(unexpected(&other)),
                Ok(None) => match keeper.as_mut().map(Child::try_wait) {
                    // On its way up.
                    Some(Ok(None)) => {}
                    Some(Ok(Some(status))) if !status.success() => {
                        break Err(Error::Host(format!("did not start: {}", log_tail(&self.settings.directory))));
                    }
                    // None was started, or another was first, and that may be gone meanwhile.
                    _ => keeper = Some(self.start()?),
                },
                Err(error) => break Err(error),
            }
            if Instant::now() > deadline {
                let tail = log_tail(&self.settings.directory);
                break Err(Error::TimedOut { what: "up", after: self.settings.boot_timeout, tail });
            }
            thread::sleep(PAUSE);
        };
        if let Some(mut keeper) = keeper {
            // It is not ours to wait for, but to bury.
            thread::spawn(move || keeper.wait());
        }
        result
    }

    fn start(&self) -> Result<Child, Error> {
        let failed = || io_error("starting the emulated host's keeper");
        let directory = &self.settings.directory;
        std::fs::create_dir_all(directory).map_err(io_error(directory.display().to_string()))?;
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(socket::LOG));
        let settings = serde_json::to_string(&self.settings).map_err(io::Error::from).map_err(failed())?;
        Command::new(&self.binary)
            .arg0("amiable")
            .arg(keeper::SUBCOMMAND)
            .arg(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_err(failed())?)
            .spawn()
            .map_err(failed())
    }
}

/// This very executable, also when another is at its path meanwhile.
fn this_executable() -> PathBuf {
    let this: PathBuf = "/proc/self/exe".into();
    match (std::env::current_exe().and_then(|path| Ok((Build::of(&path)?, path))), Build::of(&this)) {
        (Ok((at_path, path)), Ok(running)) if at_path == running => path,
        _ => this,
    }
}

/// Asks a keeper. `None` if there is none, or if it went away over the question.
fn ask(directory: &Path, request: &Request) -> Result<Option<(UnixStream, Answer)>, Error> {
    let failed = || io_error("asking the emulated host's keeper");
    let Some(mut connection) = socket::connect(directory).map_err(failed())? else { return Ok(None) };
    let answer = channel::send_value(&mut connection, Kind::Message, STREAM, request)
        // Nothing but the answer comes, so nothing can be left behind in the buffer.
        .and_then(|()| channel::receive_value(&mut BufReader::new(&connection), Kind::Message));
    match answer {
        Ok(answer) => Ok(Some((connection, answer))),
        Err(error) if went_away(&error) => Ok(None),
        Err(error) => Err(failed()(error)),
    }
}

fn went_away(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn unexpected(answer: &Answer) -> Error {
    Error::Host(format!("gave an answer that makes no sense: {answer:?}"))
}

fn log_tail(directory: &Path) -> String {
    let log = std::fs::read(directory.join(socket::LOG)).unwrap_or_default();
    let tail = log.get(log.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
    String::from_utf8_lossy(tail).trim_end().to_owned()
}

/// A command to be in a shared emulated host. Dropping it is no harm.
#[derive(Debug)]
pub struct SharedCommand {
    connection: UnixStream,
    lease: Lease,
    request: RunRequest,
}

impl SharedCommand {
    /// Runs another program than this binary: a path inside.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.request.order.program = path.into();
        if let Some(name) = self.request.order.argv.first_mut() {
            *name = self.request.order.program.to_string_lossy().into_owned();
        }
        self
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl Into<String>) {
        self.request.order.argv.push(argument.into());
    }

    /// An environment variable.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.request.order.env.retain(|(k, _)| *k != key);
        self.request.order.env.push((key, value.into()));
        self
    }

    /// How long it may take to end once its input has ended because nobody waits for it any more.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.request.order.grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self
    }

    /// A folder inside that is its own, in memory; it is gone when the command has ended.
    pub fn folder(&self) -> PathBuf {
        self.lease.folder()
    }

    /// How much memory the host has for all that runs in it, in MiB.
    pub fn host_memory_mib(&self) -> u32 {
        self.lease.memory_mib
    }

    /// The inner ports that are its own.
    pub fn ports(&self) -> &[u16] {
        &self.lease.ports
    }

    /// A small file to place in [`Self::folder`] (or, with an absolute path, elsewhere) with permission bits `mode`. Its
    /// path inside.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: impl Into<Vec<u8>>) -> PathBuf {
        let path = self.lease.folder().join(path);
        self.request.order.files.push(InnerFile { path: path.clone(), mode, content: content.into() });
        path
    }

    /// Puts a drive in for as long as the command runs. Its path inside. One that is not read-only is its alone.
    pub fn drive(&mut self, drive: Drive) -> PathBuf {
        let path = self.lease.drive(self.request.drives.len());
        // The keeper has another working directory. A path without an absolute form is an error there.
        let outer = std::path::absolute(&drive.path).unwrap_or(drive.path);
        self.request.drives.push(Drive { path: outer, ..drive });
        path
    }

    /// A port of the outer host that leads to one of [`Self::ports`] for as long as the command runs.
    pub fn forward(&mut self, forward: Forward) {
        self.request.forwards.push(forward);
    }

    /// Starts it and waits until it runs.
    pub fn start(mut self) -> Result<Running, Error> {
        channel::send_value(&mut self.connection, Kind::Message, STREAM, &self.request).map_err(|error| {
            if went_away(&error) {
                Error::Lost { when: "before its command ran" }
            } else {
                io_error("sending a command to the emulated host's keeper")(error)
            }
        })?;
        let running = Running::new(self.connection, None)?;
        running.wait_until_started(START_PATIENCE)?;
        Ok(running)
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
