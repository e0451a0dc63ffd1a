//! Stand-ins for the machine, for the tests of every device.
#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::vmm::interrupt::{MsiLine, MsiMessage, MsiRouter};

/// A table of eventfds: what was routed where, and what was raised.
#[derive(Debug, Default)]
pub struct TestRouter {
    lines: Mutex<Vec<(MsiLine, Option<MsiMessage>)>>,
}

impl TestRouter {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The line that a message with this `data` is routed to.
    pub fn line(&self, data: u32) -> Option<MsiLine> {
        let lines = self.lines.lock().unwrap();
        lines.iter().find(|(_, m)| m.is_some_and(|m| m.data == data)).map(|(line, _)| line.clone())
    }

    /// How often the message with this `data` was raised since the last call.
    pub fn take(&self, data: u32) -> u64 {
        self.line(data).and_then(|line| line.fd.read().ok()).unwrap_or(0)
    }

    /// How many lines were allocated.
    pub fn allocated(&self) -> usize {
        self.lines.lock().unwrap().len()
    }
}

impl MsiRouter for TestRouter {
    fn allocate(&self) -> io::Result<MsiLine> {
        let mut lines = self.lines.lock().unwrap();
        let line = MsiLine {
            gsi: lines.iter().map(|(l, _)| l.gsi + 1).max().unwrap_or(24),
            fd: Arc::new(EventFd::new(EFD_NONBLOCK)?),
        };
        lines.push((line.clone(), None));
        Ok(line)
    }

    fn route(&self, line: &MsiLine, message: Option<MsiMessage>) -> io::Result<()> {
        let mut lines = self.lines.lock().unwrap();
        let entry = lines.iter_mut().find(|(l, _)| l.gsi == line.gsi).ok_or(io::ErrorKind::NotFound)?;
        entry.1 = message;
        Ok(())
    }

    fn free(&self, line: &MsiLine) -> io::Result<()> {
        let mut lines = self.lines.lock().unwrap();
        let index = lines.iter().position(|(l, _)| l.gsi == line.gsi).ok_or(io::ErrorKind::NotFound)?;
        lines.remove(index);
        Ok(())
    }
}
