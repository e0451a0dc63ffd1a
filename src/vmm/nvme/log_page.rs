//! Get Log Page (§5.14): errors, health, firmware, changed namespaces, and Amazon's statistics.
//!
//! No more is transferred than a page has: Amazon's own tools ask for one dword more than the 4096 bytes of their
//! buffer.
#![forbid(unsafe_code)]

use super::admin::Admin;
use super::controller::Controller;
use super::identify::ERROR_LOG_ENTRIES;
use super::prp;
use super::spec::{Command, NAMESPACE, PAGE_SIZE, Status};
use super::statistics::{self, EBS_MAGIC, INSTANCE_STORE_MAGIC, Statistics};
use crate::vmm::config::VolumeIdentity;

const ERROR_ENTRY_SIZE: usize = 64;
const SHORT_PAGE: usize = 512;
const RETAIN_EVENT: u32 = 1 << 15;
/// 27 °C, in kelvins.
const TEMPERATURE: u16 = 300;
/// Bytes in a data unit of the health log.
const DATA_UNIT: u64 = 512 * 1000;

/// The last errors that no command was answered with: wrong doorbells.
#[derive(Debug, Default)]
pub struct ErrorLog {
    count: u64,
}

impl ErrorLog {
    /// An error happened.
    pub fn push(&mut self) {
        self.count += 1;
    }

    fn page(&self) -> Vec<u8> {
        let mut page = vec![0; ERROR_LOG_ENTRIES * ERROR_ENTRY_SIZE];
        for (entry, count) in page.chunks_exact_mut(ERROR_ENTRY_SIZE).zip((1..=self.count).rev()) {
            entry[..8].copy_from_slice(&count.to_le_bytes());
            // Submission queue and command: not of a particular one.
            entry[8..12].fill(0xff);
            entry[14..16].fill(0xff);
        }
        page
    }
}

impl Controller {
    pub(super) fn get_log_page(&self, admin: &mut Admin, command: &Command) -> Result<u32, Status> {
        let dwords = u64::from(command.dword::<11>() & 0xffff) << 16 | u64::from(command.dword::<10>() >> 16);
        let offset = u64::from(command.dword::<13>()) << 32 | u64::from(command.dword::<12>());
        let read = command.dword::<10>() & RETAIN_EVENT == 0;
        let page = match command.dword::<10>() & 0xff {
            0x01 => {
                admin.error_event.masked &= !read;
                admin.error_log.page()
            }
            0x02 => self.health(admin.error_log.count),
            0x03 => firmware(),
            0x04 => {
                let page = changed_namespaces(admin.namespace_changed);
                admin.namespace_changed &= !read;
                admin.namespace_event.masked &= !read;
                page
            }
            0xd0 => {
                let magic = match self.identity {
                    VolumeIdentity::Ebs { .. } => EBS_MAGIC,
                    VolumeIdentity::InstanceStore { .. } => INSTANCE_STORE_MAGIC,
                };
                statistics::log_page(&self.statistics, magic, self.in_flight(), self.hold.held_back())
            }
            _ => return Err(Status::INVALID_LOG_PAGE),
        };
        let offset = usize::try_from(offset).ok().filter(|offset| offset % 4 == 0).ok_or(Status::INVALID_FIELD)?;
        let rest = page.get(offset..).ok_or(Status::INVALID_FIELD)?;
        let length = rest.len().min((dwords as usize + 1).saturating_mul(4));
        prp::write(&self.memory, command, &rest[..length]).map(|()| 0)
    }

    /// SMART / Health Information (figure 194).
    fn health(&self, errors: u64) -> Vec<u8> {
        let sum = |of: &dyn Fn(&Statistics) -> u64| self.statistics.iter().map(of).fold(0, u64::wrapping_add);
        let mut page = vec![0; SHORT_PAGE];
        let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(1, &TEMPERATURE.to_le_bytes());
        put(3, &[100, 10]); // available spare and its threshold, per cent
        put(32, &sum(&|q| q.read.bytes()).div_ceil(DATA_UNIT).to_le_bytes());
        put(48, &sum(&|q| q.write.bytes()).div_ceil(DATA_UNIT).to_le_bytes());
        put(64, &sum(&|q| q.read.operations()).to_le_bytes());
        put(80, &sum(&|q| q.write.operations()).to_le_bytes());
        put(176, &errors.to_le_bytes());
        page
    }
}

/// Firmware Slot Information: slot 1 is active.
fn firmware() -> Vec<u8> {
    let mut page = vec![0; SHORT_PAGE];
    page[0] = 1;
    page[8..16].copy_from_slice(b"1.0     ");
    page
}

fn changed_namespaces(changed: bool) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE as usize];
    if changed {
        page[..4].copy_from_slice(&NAMESPACE.to_le_bytes());
    }
    page
}
