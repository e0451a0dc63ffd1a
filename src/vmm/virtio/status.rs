//! The device status and the order in which a driver may raise it (VIRTIO 1.2 §2.1, §3.1.1).
#![forbid(unsafe_code)]

/// The driver noticed the device.
pub const ACKNOWLEDGE: u8 = 1;
/// The driver knows how to drive it.
pub const DRIVER: u8 = 2;
/// The driver is set up.
pub const DRIVER_OK: u8 = 4;
/// Feature negotiation is complete.
pub const FEATURES_OK: u8 = 8;
/// The device can't go on without a reset.
pub const NEEDS_RESET: u8 = 64;
/// The driver gave up.
pub const FAILED: u8 = 128;

/// What a write to the status register means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start over.
    Reset,
    /// Set these bits; nothing else happens.
    Note(u8),
    /// The driver is done with feature negotiation. The device decides whether the bit is set.
    NegotiateFeatures,
    /// The driver is ready.
    Activate,
    /// Out of order: ignored.
    Refused,
}

/// The step from `current` when the driver writes `written`.
pub fn step(current: u8, written: u8) -> Step {
    if written == 0 {
        return Step::Reset;
    }
    // Only a reset clears bits. NEEDS_RESET is not the driver's to write.
    let added = written & !current & !NEEDS_RESET;
    if current & !written & !NEEDS_RESET != 0 {
        return Step::Refused;
    }
    const NEGOTIATED: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    match (current & !NEEDS_RESET, added) {
        (_, 0) => Step::Note(0),
        (now, FAILED) if now & FAILED == 0 => Step::Note(FAILED),
        (0, ACKNOWLEDGE) | (ACKNOWLEDGE, DRIVER) => Step::Note(added),
        // Firmware drivers take the first two in one.
        (0, both) if both == ACKNOWLEDGE | DRIVER => Step::Note(both),
        (now, FEATURES_OK) if now == ACKNOWLEDGE | DRIVER => Step::NegotiateFeatures,
        (NEGOTIATED, DRIVER_OK) if current & NEEDS_RESET == 0 => Step::Activate,
        _ => Step::Refused,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
