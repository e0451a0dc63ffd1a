//! Volumes that come and go while their instance runs inside the emulated host.
//!
//! Its drives are plugged into the emulated host with a command of their own there, which does nothing but hold them; after that the
//! instance's process inside finds them by the paths that they have there, and goes on as it would outside.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event::{Control, Event, VolumeChange};
use super::running::StartError;
use super::spec::{InstanceSpec, VolumeSpec};
use crate::boot::SharedDisk;
use crate::emulate::{Cache, Drive, Running, SharedCommand, SharedHost};
use crate::storage::{Chain, OpenMode, Reservation, VolumePaths};

/// The command inside that holds drives until its standard input ends.
pub const HOLD: &str = "hold";

/// What an instance has plugged in.
pub(super) struct Plugs {
    root_id: String,
    /// Outlives the rest: its files are looked at after the instance's end, too.
    root: Arc<Mutex<RootFiles>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By volume; the drives go with it.
    held: HashMap<String, Vec<Running>>,
    /// By volume, the layer that it is written to.
    tops: HashMap<String, Top>,
    /// Detachments whose answer is not there yet.
    detaching: HashMap<u64, String>,
    /// Snapshots of the root volume whose answer is not there yet, with the layer that it is written to afterwards.
    freezing: HashMap<u64, VolumePaths>,
}

/// A root volume's files.
#[derive(Clone)]
pub(super) struct RootFiles {
    chain: Chain,
    top: VolumePaths,
}

impl RootFiles {
    /// Those of an instance as it is specified.
    pub fn of(spec: &InstanceSpec) -> Self {
        RootFiles { chain: spec.root.chain.clone(), top: spec.root.top.clone() }
    }

    /// Open them for a look: that the volume is being written is in its nature.
    pub fn look(&self) -> io::Result<SharedDisk> {
        let volume = self.chain.open_volume(&self.top, OpenMode::Look).map_err(io::Error::other)?;
        Ok(Arc::new(volume))
    }
}

/// A layer that the instance writes to.
struct Top {
    /// Its drives in the emulated host.
    drives: VolumePaths,
    /// QEMU's own locks keep only other QEMUs away.
    _reservation: Reservation,
}

impl Plugs {
    /// Those of an instance, as it is specified here and inside.
    ///
    /// # Errors
    /// Another process has one of its volumes.
    pub fn of(outer: &InstanceSpec, inner: &InstanceSpec) -> Result<Self, StartError> {
        fn volumes(spec: &InstanceSpec) -> impl Iterator<Item = &VolumeSpec> {
            std::iter::once(&spec.root).chain(&spec.volumes)
        }
        let tops = volumes(outer).zip(volumes(inner)).map(|(outer, inner)| {
            let top = Top { drives: inner.top.clone(), _reservation: outer.top.reserve()? };
            Ok::<_, StartError>((outer.volume_id.clone(), top))
        });
        let tops = tops.collect::<Result<_, _>>()?;
        Ok(Plugs {
            root_id: outer.root.volume_id.clone(),
            root: Arc::new(Mutex::new(RootFiles::of(outer))),
            state: Mutex::new(State { tops, ..State::default() }),
        })
    }

    /// Do outside what a change needs, and pass it on with `inner`; what can't be done is answered with `tell`. It takes a moment, so
    /// it is done on a thread.
    pub fn change(
        self: &Arc<Self>,
        host: &Arc<SharedHost>,
        id: u64,
        change: VolumeChange,
        inner: impl Fn(Control) + Send + 'static,
        tell: impl Fn(Event) + Send + Clone + 'static,
    ) {
        let (plugs, host, answer) = (self.clone(), host.clone(), tell.clone());
        let plugging = std::thread::Builder::new().name("plug drives".into()).spawn(move || {
            match plugs.prepare(&host, id, change) {
                Ok(change) => inner(Control::Volume { id, change }),
                Err(error) => answer(Event::Answer { id, error: Some(error.to_string()) }),
            }
        });
        if let Err(error) = plugging {
            tell(Event::Answer { id, error: Some(format!("can't start a thread: {error}")) });
        }
    }

    /// The root volume's files, as they are at each time.
    pub fn root(&self) -> Arc<Mutex<RootFiles>> {
        self.root.clone()
    }

    /// An answer came by: the drives of a detached volume are not needed any more, or the root volume has another layer.
    pub fn answered(&self, id: u64, succeeded: bool) {
        let mut state = self.lock();
        if let Some(above) = state.freezing.remove(&id)
            && succeeded
        {
            let mut root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
            let frozen = std::mem::replace(&mut root.top, above);
            root.chain.frozen.push(frozen);
        }
        if let Some(volume_id) = state.detaching.remove(&id)
            && succeeded
        {
            state.held.remove(&volume_id);
            state.tops.remove(&volume_id);
        }
    }

    fn prepare(&self, host: &SharedHost, id: u64, change: VolumeChange) -> Result<VolumeChange, StartError> {
        match change {
            VolumeChange::Attach { mut volume } => {
                let reservation = volume.top.reserve()?;
                let mut command = host.command([HOLD], 0)?;
                plug(&mut command, &mut volume);
                self.hold(&volume.volume_id, command.start()?, &volume.top, reservation);
                Ok(VolumeChange::Attach { volume })
            }
            VolumeChange::Snapshot { volume_id, above, size } => {
                above.preallocate(size)?;
                let reservation = above.reserve()?;
                let mut command = host.command([HOLD], 0)?;
                let drives = layer(&mut command, &above, false, Cache::Writeback);
                self.hold(&volume_id, command.start()?, &drives, reservation);
                if volume_id == self.root_id {
                    self.lock().freezing.insert(id, above);
                }
                Ok(VolumeChange::Snapshot { volume_id, above: drives, size })
            }
            VolumeChange::Detach { volume_id, force } => {
                self.lock().detaching.insert(id, volume_id.clone());
                Ok(VolumeChange::Detach { volume_id, force })
            }
            VolumeChange::Grow { volume_id, size, .. } => {
                let state = self.lock();
                let top = state.tops.get(&volume_id).ok_or_else(|| format!("{volume_id} is not attached"))?;
                let (data, map) = VolumePaths::file_sizes(size)?;
                host.resize(&top.drives.data, data)?;
                host.resize(&top.drives.map, map)?;
                let drives = vec![top.drives.data.clone(), top.drives.map.clone()];
                Ok(VolumeChange::Grow { volume_id, size, drives })
            }
        }
    }

    fn hold(&self, volume_id: &str, running: Running, drives: &VolumePaths, reservation: Reservation) {
        let mut state = self.lock();
        state.held.entry(volume_id.to_owned()).or_default().push(running);
        state.tops.insert(volume_id.to_owned(), Top { drives: drives.clone(), _reservation: reservation });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Put a volume's files into the emulated host with `command`; its paths are the inner ones afterwards.
pub(super) fn plug(command: &mut SharedCommand, volume: &mut VolumeSpec) {
    let cache = if volume.throw_away { Cache::Unsafe } else { Cache::Writeback };
    if let Some(image) = &mut volume.chain.image {
        *image = command.drive(Drive { path: image.clone(), read_only: true, cache });
    }
    for below in &mut volume.chain.frozen {
        *below = layer(command, below, true, cache);
    }
    volume.top = layer(command, &volume.top, false, cache);
    // Inside, a flush must reach the drive, or it is lost when the emulated host ends. What a drive's flush costs is `cache`.
    volume.throw_away = false;
}

fn layer(command: &mut SharedCommand, paths: &VolumePaths, read_only: bool, cache: Cache) -> VolumePaths {
    let mut drive = |path: &Path| command.drive(Drive { path: path.to_owned(), read_only, cache });
    VolumePaths { data: drive(&paths.data), map: drive(&paths.map) }
}
