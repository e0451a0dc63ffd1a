use super::*;

#[test]
fn s5_with_sleep_enable_powers_off() {
    let mut registers = AcpiRegisters;
    assert_eq!(registers.write(0, &[5 << 2]), Action::None, "not without SLP_EN");
    assert_eq!(registers.write(0, &[3 << 2 | 1 << 5]), Action::None, "S3 does not exist");
    assert_eq!(registers.write(0, &[5 << 2 | 1 << 5]), Action::PowerOff);
}

#[test]
fn the_reset_value_resets() {
    let mut registers = AcpiRegisters;
    assert_eq!(registers.write(2, &[0]), Action::None);
    assert_eq!(registers.write(2, &[1, 0]), Action::None, "the register is a byte");
    assert_eq!(registers.write(2, &[1]), Action::Reset);
    let mut status = [0xFF];
    registers.read(1, &mut status);
    assert_eq!(status, [0]);
}
