//! One instance's process.
