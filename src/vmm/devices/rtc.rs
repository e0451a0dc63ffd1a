//! CMOS real-time clock (Motorola MC146818): the host's time in UTC. No alarm, no interrupt, nothing stored.

#![forbid(unsafe_code)]

use std::time::SystemTime;

use jiff::{Timestamp, tz::TimeZone};

use crate::vmm::device::{Action, BusDevice};

/// Ports taken: index and data.
pub const PORTS: u16 = 2;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;
const STATUS_D: u8 = 0x0D;
const CENTURY: u8 = 0x32;

/// 32,768 Hz time base, as every PC has it; no update in progress, ever.
const TIME_BASE: u8 = 0x26;
/// 24 hours, BCD.
const FORMAT: u8 = 1 << 1;
/// The battery is fine.
const VALID: u8 = 1 << 7;

/// The clock.
#[derive(Debug)]
pub struct Rtc {
    index: u8,
    now: fn() -> SystemTime,
}

impl Rtc {
    /// A clock that shows `now`.
    pub fn new(now: fn() -> SystemTime) -> Self {
        Self { index: 0, now }
    }

    fn register(&self) -> u8 {
        match self.index {
            STATUS_A => return TIME_BASE,
            STATUS_B => return FORMAT,
            STATUS_D => return VALID,
            _ => {}
        }
        let Ok(now) = Timestamp::try_from((self.now)()) else { return 0 };
        let time = TimeZone::UTC.to_datetime(now);
        match self.index {
            SECONDS => bcd(time.second()),
            MINUTES => bcd(time.minute()),
            HOURS => bcd(time.hour()),
            DAY_OF_WEEK => bcd(time.weekday().to_sunday_one_offset()),
            DAY => bcd(time.day()),
            MONTH => bcd(time.month()),
            YEAR => bcd((time.year() % 100) as i8),
            CENTURY => bcd((time.year() / 100) as i8),
            _ => 0,
        }
    }
}

fn bcd(value: i8) -> u8 {
    let value = value.unsigned_abs();
    ((value / 10) << 4) | (value % 10)
}

impl BusDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = if offset == 1 { self.register() } else { self.index };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if let (0, &[index]) = (offset, data) {
            // Bit 7 of the index port masks NMIs.
            self.index = index & 0x7F;
        }
        Action::None
    }
}

#[cfg(test)]
#[path = "rtc_tests.rs"]
mod tests;
