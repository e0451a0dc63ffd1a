use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// Tuesday, 2024-12-31 23:59:58 UTC.
fn new_years_eve() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_735_689_598)
}

fn get(rtc: &mut Rtc, index: u8) -> u8 {
    let _ = rtc.write(0, &[index | 0x80]);
    let mut data = [0xFF];
    rtc.read(1, &mut data);
    data[0]
}

#[test]
fn it_shows_the_time_in_bcd() {
    let mut rtc = Rtc::new(new_years_eve);
    let shown: Vec<u8> = [4, 2, 0, 6, 7, 8, 9, 0x32].into_iter().map(|i| get(&mut rtc, i)).collect();
    assert_eq!(shown, [0x23, 0x59, 0x58, 3, 0x31, 0x12, 0x24, 0x20]);
}

#[test]
fn the_status_registers_say_24_hours_valid_and_no_update() {
    let mut rtc = Rtc::new(new_years_eve);
    assert_eq!(get(&mut rtc, 0x0A) & 0x80, 0);
    assert_eq!(get(&mut rtc, 0x0B), 2);
    assert_eq!(get(&mut rtc, 0x0C), 0);
    assert_eq!(get(&mut rtc, 0x0D), 0x80);
}

#[test]
fn wide_accesses_are_not_decoded() {
    let mut rtc = Rtc::new(new_years_eve);
    let mut data = [0xFF; 4];
    rtc.read(1, &mut data);
    assert_eq!(data, [0xFF; 4]);
}
