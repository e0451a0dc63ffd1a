//! Devices at fixed ports: serial port, real-time clock, keyboard controller and the ACPI registers.

pub mod acpi;
pub mod i8042;
pub mod rtc;
pub mod serial;
