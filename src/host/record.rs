//! What is kept of an instance's run, in its directory: the console as it came, the metadata requests and the stages.
//!
//! A guest decides how much it writes, so every file is bounded: when one is full it becomes `NAME.1`, and the last
//! `NAME.1` is gone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::event::write_line;

/// The console's bytes.
pub const CONSOLE_LOG: &str = "console.log";
/// A [`LogEntry`](crate::imds::LogEntry) a line.
pub const IMDS_LOG: &str = "imds.jsonl";
/// What the user should know, a line each.
pub const NOTICES_LOG: &str = "notices.log";
/// A stage with its time a line.
pub const STAGES_LOG: &str = "stages.jsonl";

/// The size at which a file is turned over, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// The files of one run.
#[derive(Debug)]
pub struct Recorder {
    console: BoundedFile,
    imds: BoundedFile,
    stages: BoundedFile,
    /// Opened when there is something to say: most instances have nothing.
    notices: Option<BoundedFile>,
    directory: PathBuf,
}

impl Recorder {
    /// Record into `directory`, made if it is not there; what earlier runs left is kept.
    pub fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Recorder {
            console: BoundedFile::open(directory.join(CONSOLE_LOG))?,
            imds: BoundedFile::open(directory.join(IMDS_LOG))?,
            stages: BoundedFile::open(directory.join(STAGES_LOG))?,
            notices: None,
            directory: directory.to_owned(),
        })
    }

    /// Console output.
    pub fn console(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.console.write_all(bytes)
    }

    /// A metadata request.
    pub fn imds(&mut self, entry: &impl Serialize) -> io::Result<()> {
        write_line(&mut self.imds, entry)
    }

    /// Something that the user should know.
    pub fn notice(&mut self, text: &str) -> io::Result<()> {
        let file = match &mut self.notices {
            Some(file) => file,
            none => none.insert(BoundedFile::open(self.directory.join(NOTICES_LOG))?),
        };
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        file.write_all(format!("{now} {}\n", text.replace('\n', " ")).as_bytes())
    }

    /// A stage.
    pub fn stage(&mut self, stage: &impl Serialize) -> io::Result<()> {
        write_line(&mut self.stages, stage)
    }
}

#[derive(Debug)]
struct BoundedFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl BoundedFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(BoundedFile { path, file, size })
    }
}

impl Write for BoundedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size >= MAX_FILE {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, older)?;
            *self = Self::open(std::mem::take(&mut self.path))?;
        }
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
