//! What EC2 means: pure values.
