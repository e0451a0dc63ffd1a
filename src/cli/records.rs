//! What is kept of instances' runs, printed: the console and the metadata requests.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use super::error::{CliError, exit};
use super::output::write_out;
use crate::host::record::{CONSOLE_LOG, IMDS_LOG, NOTICES_LOG};
use crate::imds::LogEntry;

/// Print the console of the instance whose records are in `directory`. `runs` tells whether it still does, for
/// `follow`: then what comes is printed until the instance ends.
pub fn console(directory: &Path, follow: bool, runs: impl Fn() -> bool) -> Result<(), CliError> {
    let path = directory.join(CONSOLE_LOG);
    let mut file = open(&path)?;
    loop {
        // Asked before reading: what came before the end is then read in the same round.
        let more = follow && runs();
        match io::copy(&mut file, &mut io::stdout().lock()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(CliError::from_error(exit::OTHER, &e)),
            Ok(_) => {}
        }
        let _ = io::stdout().flush();
        if !more {
            return Ok(());
        }
        // Another process writes the file and says nothing; a look now and then is what `tail -f` does too.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How many notices a description shows.
const NOTICES: usize = 10;
/// ... from so many bytes at the end of the file.
const TAIL: u64 = 16 << 10;

/// The last that the user should know of an instance.
pub fn last_notices(directory: &Path) -> Vec<String> {
    let Ok(mut file) = File::open(directory.join(NOTICES_LOG)) else { return Vec::new() };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).and_then(|_| file.read_to_end(&mut bytes));
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().rev().take(NOTICES).rev().map(|line| (*line).to_owned()).collect()
}

/// Print the metadata requests.
pub fn imds_log(directory: &Path, json: bool) -> Result<(), CliError> {
    let mut text = String::new();
    open(&directory.join(IMDS_LOG))?.read_to_string(&mut text).map_err(|e| CliError::from_error(exit::OTHER, &e))?;
    if json {
        return write_out(&text);
    }
    let mut lines = String::new();
    for line in text.lines() {
        match serde_json::from_str::<LogEntry>(line) {
            Ok(entry) => lines.push_str(&format!("{entry}\n")),
            // The last line of a run that was killed may be half.
            Err(_) => lines.push_str("(a line that can't be read)\n"),
        }
    }
    write_out(&lines)
}

fn open(path: &Path) -> Result<File, CliError> {
    File::open(path).map_err(|e| {
        let what = match e.kind() {
            io::ErrorKind::NotFound => "the instance has no such record: it has not run yet".to_owned(),
            _ => format!("can't read {}: {e}", path.display()),
        };
        CliError::new(exit::OTHER, what)
    })
}
