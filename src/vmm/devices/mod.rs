//! Devices at fixed ports: serial port, real-time clock, keyboard controller, the ACPI registers and events.

pub mod acpi;
pub mod events;
pub mod i8042;
pub mod rtc;
pub mod serial;
