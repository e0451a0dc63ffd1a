use super::*;

#[test]
fn the_way_up_has_one_order() {
    assert_eq!(step(0, 1), Step::Note(ACKNOWLEDGE));
    assert_eq!(step(0, 3), Step::Note(ACKNOWLEDGE | DRIVER));
    assert_eq!(step(1, 3), Step::Note(DRIVER));
    assert_eq!(step(3, 11), Step::NegotiateFeatures);
    assert_eq!(step(11, 15), Step::Activate);
}

#[test]
fn every_state_can_fail_once_and_be_reset() {
    for current in [0, 1, 3, 11, 15] {
        assert_eq!(step(current, current | FAILED), Step::Note(FAILED));
        assert_eq!(step(current, 0), Step::Reset);
        assert_eq!(step(current, current), if current == 0 { Step::Reset } else { Step::Note(0) });
    }
    assert_eq!(step(1 | FAILED, 3 | FAILED), Step::Refused, "nothing but a reset after a failure");
}

#[test]
fn everything_else_is_refused() {
    let ways_up = [(0, 1), (0, 3), (1, 3), (3, 11), (11, 15)];
    for current in [0u8, 1, 3, 11, 15] {
        for written in 1..128u8 {
            let added = written & !NEEDS_RESET;
            if added == current || ways_up.contains(&(current, added)) {
                continue;
            }
            assert_eq!(step(current, written), if added == 0 && current == 0 { Step::Note(0) } else { Step::Refused });
        }
    }
}

#[test]
fn a_device_that_needs_a_reset_is_not_activated() {
    assert_eq!(step(11 | NEEDS_RESET, 15 | NEEDS_RESET), Step::Refused);
    assert_eq!(step(15 | NEEDS_RESET, 15), Step::Note(0), "the driver need not repeat the device's bit");
}
