//! The emulated host.
