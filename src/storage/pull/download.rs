//! Downloads that go on where they stopped.
//!
//! What has arrived is kept in `TARGET.part`; `TARGET.part.from` says which file it is a part of: its address and its
//! validator (ETag or date, RFC 9110 §8.8). A later attempt asks for the rest with `Range` and `If-Range`, so that a
//! file that has changed on the server comes whole (RFC 9110 §13.1.5, §14.2).

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ureq::http::{HeaderMap, StatusCode};

use super::checksum::Hasher;
use super::client::{Client, Remote, status_error};
use super::{Checksum, PullError};
use crate::storage::StorageError;
use crate::storage::lock::lock;

/// Attempts in all, however well each begins.
const MAX_ATTEMPTS: u32 = 100;

/// Told how far a download is: bytes here, and the file's size where known. With [`ControlFlow::Break`] it stops, and a
/// later call goes on.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>) -> ControlFlow<()>;

/// A complete file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum: of the kind that was published, SHA-256 where none was.
    pub checksum: Checksum,
}

impl Client {
    /// Download `remote` to the file `target`, verified and durable. A file that is there is replaced at the end.
    pub fn download(&self, remote: &Remote, target: &Path, progress: Progress<'_>) -> Result<Downloaded, PullError> {
        let mut part = Part::open(remote, target)?;
        let (mut failures, mut attempts) = (0, 0);
        loop {
            let before = part.len;
            match self.attempt(remote, &mut part, progress) {
                Ok(()) => {}
                Err(error) if error.is_passing() => {
                    attempts += 1;
                    failures = if part.len > before { 1 } else { failures + 1 };
                    if failures >= self.attempts || attempts >= MAX_ATTEMPTS {
                        return Err(error);
                    }
                    log::info!("{error}; attempt {}", attempts + 1);
                    std::thread::sleep(self.pause.saturating_mul(1 << (failures - 1).min(5)));
                    continue;
                }
                Err(error) => return Err(error),
            }
            let found = part.hasher.clone().finish();
            match &remote.checksum {
                Some(expected) if *expected != found => {
                    let resumed = part.resumed;
                    part.restart()?;
                    if resumed {
                        // Perhaps the pieces are of two files; a whole one decides.
                        continue;
                    }
                    part.remove();
                    let (expected, found) = (expected.to_string(), found.to_string());
                    return Err(PullError::WrongChecksum { url: remote.url.clone(), expected, found });
                }
                _ => return part.finish(target, found),
            }
        }
    }

    /// One request for what is missing.
    fn attempt(&self, remote: &Remote, part: &mut Part, progress: Progress<'_>) -> Result<(), PullError> {
        let url = &remote.url;
        let bad = |reason: String| PullError::BadAnswer { url: url.clone(), reason };
        let range = format!("bytes={}-", part.len);
        let mut headers = Vec::new();
        if part.len > 0 {
            headers.push(("Range", range.as_str()));
            if !part.validator.is_empty() {
                headers.push(("If-Range", part.validator.as_str()));
            }
        }
        let response = self.get(url, &headers)?;
        let status = response.status();
        match status {
            StatusCode::OK => {
                let validator = validator(response.headers());
                part.restart()?;
                part.begin(url, validator)?;
            }
            StatusCode::PARTIAL_CONTENT => {
                let start = content_range(response.headers()).and_then(|(start, _)| start);
                if start != Some(part.len) {
                    part.restart()?;
                    return Err(bad("the server sent another part of the file than was asked for".into()));
                }
                part.resumed = true;
            }
            StatusCode::RANGE_NOT_SATISFIABLE if part.len > 0 => {
                let total = content_range(response.headers()).map(|(_, total)| total);
                if total == Some(Some(part.len)) {
                    part.resumed = true;
                    return Ok(());
                }
                part.restart()?;
                return Err(status_error(url, status));
            }
            _ => return Err(status_error(url, status)),
        }
        let total = response.body().content_length().map(|rest| part.len.saturating_add(rest));
        let too_large = || PullError::TooLarge { url: url.clone(), max: self.max_size };
        if total.is_some_and(|total| total > self.max_size) {
            return Err(too_large());
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buf = vec![0; 256 << 10];
        loop {
            if let ControlFlow::Break(()) = progress(part.len, total) {
                return Err(PullError::Interrupted);
            }
            let n = match body.read(&mut buf) {
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::debug!("{url} broke off at {}: {error}", part.len);
                    return Err(PullError::BrokenOff { url: url.clone(), done: part.len });
                }
            };
            match buf.get(..n) {
                Some(bytes) if n > 0 => part.append(bytes)?,
                _ => break,
            }
            if part.len > self.max_size {
                return Err(too_large());
            }
        }
        match total {
            Some(total) if part.len < total => Err(PullError::BrokenOff { url: url.clone(), done: part.len }),
            _ => Ok(()),
        }
    }
}

/// What has arrived so far. Locked: another process at the same file is refused.
struct Part {
    file: File,
    path: PathBuf,
    from: PathBuf,
    len: u64,
    hasher: Hasher,
    fresh: Hasher,
    validator: String,
    /// It was not received in one piece.
    resumed: bool,
}

impl Part {
    fn open(remote: &Remote, target: &Path) -> Result<Part, PullError> {
        let with = |ending: &str| {
            let mut name = target.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let (path, from) = (with(".part"), with(".part.from"));
        let file = open_locked(&path)?;
        let fresh = Hasher::like(remote.checksum.as_ref());
        let mut part =
            Part { file, path, from, len: 0, hasher: fresh.clone(), fresh, validator: String::new(), resumed: false };
        let note = std::fs::read_to_string(&part.from).unwrap_or_default();
        match note.split_once('\n') {
            // Without a validator only the checksum can tell that the pieces fit.
            Some((url, validator)) if url == remote.url && (!validator.is_empty() || remote.checksum.is_some()) => {
                part.validator = validator.into();
                part.rehash()?;
            }
            _ => part.restart()?,
        }
        Ok(part)
    }

    fn rehash(&mut self) -> Result<(), PullError> {
        let mut buf = vec![0; 256 << 10];
        loop {
            let n = self.file.read(&mut buf).map_err(PullError::write(&self.path))?;
            let Some(bytes) = buf.get(..n).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            self.hasher.update(bytes);
            self.len += n as u64;
        }
    }

    fn restart(&mut self) -> Result<(), PullError> {
        self.file.set_len(0).map_err(PullError::write(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(PullError::write(&self.path))?;
        self.len = 0;
        self.hasher = self.fresh.clone();
        self.validator.clear();
        self.resumed = false;
        Ok(())
    }

    /// Note which file this is a part of.
    fn begin(&mut self, url: &str, validator: String) -> Result<(), PullError> {
        std::fs::write(&self.from, format!("{url}\n{validator}")).map_err(PullError::write(&self.from))?;
        self.validator = validator;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        if let Err(error) = self.file.write_all(bytes) {
            // Some of it may have been written: leave the file as long as we know it.
            let _ = self.file.set_len(self.len);
            return Err(PullError::write(&self.path)(error));
        }
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(&self.from);
    }

    fn finish(self, target: &Path, checksum: Checksum) -> Result<Downloaded, PullError> {
        self.file.sync_all().map_err(PullError::write(&self.path))?;
        std::fs::rename(&self.path, target).map_err(PullError::write(target))?;
        let _ = std::fs::remove_file(&self.from);
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(PullError::write(folder))?;
        Ok(Downloaded { size: self.len, checksum })
    }
}

fn open_locked(path: &Path) -> Result<File, PullError> {
    for _ in 0..5 {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(PullError::write(path))?;
        lock(&file, path, true).map_err(|error| match error {
            StorageError::InUse { path, .. } => PullError::Busy(path),
            other => PullError::write(path)(std::io::Error::other(other)),
        })?;
        // Whoever held the lock before us may just have finished and given the file its final name.
        let ours = file.metadata().map_err(PullError::write(path))?.ino();
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == ours) {
            return Ok(file);
        }
    }
    Err(PullError::Busy(path.into()))
}

/// What tells this version of the file from others: a strong ETag, or the date of the last change.
fn validator(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text("etag").filter(|etag| etag.starts_with('"'));
    let validator = etag.or_else(|| text("last-modified")).unwrap_or_default();
    if validator.len() <= 256 { validator.into() } else { String::new() }
}

/// `bytes START-END/TOTAL` or `bytes */TOTAL`: start and total.
fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let value = headers.get("content-range")?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-').and_then(|(start, _)| start.parse().ok());
    Some((start, total.parse().ok()))
}
