//! What a person types: arguments parsed, the region called, results printed. No EC2 rule lives here.

#![forbid(unsafe_code)]

pub mod args;
pub mod error;
pub mod output;
pub mod parse;
pub mod types;
