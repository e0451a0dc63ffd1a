//! Volumes, copy-on-write, image formats.
