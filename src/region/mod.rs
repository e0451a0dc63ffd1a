//! The local region.
