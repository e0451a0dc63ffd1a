//! The user-mode network.
