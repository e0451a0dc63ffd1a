//! QEMU's machine protocol (QMP): JSON objects in lines. Only what the keeper needs: one command at a time, its answer,
//! and the events that tell of devices' ends.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest line that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// A connection to a QEMU.
pub(super) struct Qmp {
    connection: BufReader<UnixStream>,
    next_id: u64,
    /// Devices that are gone, by their ids.
    deleted: BTreeSet<String>,
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

impl Qmp {
    /// Waits for the greeting and starts to talk.
    pub(super) fn new(connection: UnixStream) -> io::Result<Self> {
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        let mut qmp = Qmp { connection: BufReader::new(connection), next_id: 0, deleted: BTreeSet::new() };
        if qmp.read()?.get("QMP").is_none() {
            return Err(bad("QEMU does not greet"));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command; what it returns, or QEMU's reason as an error's text.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        self.next_id += 1;
        let id = self.next_id;
        let mut line = serde_json::to_vec(&json!({ "execute": command, "arguments": arguments, "id": id }))?;
        line.push(b'\n');
        self.connection.get_mut().write_all(&line)?;
        loop {
            let mut answer = self.read()?;
            // An answer that came after its time-out is nobody's.
            if answer.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                return Err(bad(error["desc"].as_str().unwrap_or("an error without a description")));
            }
            return Ok(answer.get_mut("return").map(Value::take).unwrap_or_default());
        }
    }

    /// Runs a line of the human monitor. It answers with text, and where nothing went wrong with none.
    pub(super) fn human(&mut self, line: &str) -> io::Result<()> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        match answer.as_str().map(str::trim) {
            None | Some("") => Ok(()),
            Some(text) => Err(bad(text)),
        }
    }

    /// Takes a device out and waits until it is gone.
    pub(super) fn delete_device(&mut self, id: &str) -> io::Result<()> {
        self.execute("device_del", json!({ "id": id }))?;
        while !self.deleted.remove(id) {
            self.read()?;
        }
        Ok(())
    }

    /// The next object; events are noted.
    fn read(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        (&mut self.connection).take(LONGEST).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Err(bad("QEMU is gone"));
        }
        let object: Value = serde_json::from_slice(&line)?;
        if object["event"] == "DEVICE_DELETED"
            && let Some(device) = object["data"]["device"].as_str()
        {
            self.deleted.insert(device.to_owned());
        }
        Ok(object)
    }
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
