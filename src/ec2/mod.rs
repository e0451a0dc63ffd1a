//! What EC2 means: ids, instance types, user-data rules, network facts, error codes. Pure values, no I/O.
//!
//! Every other room speaks in these words. Where EC2 has an error code for a condition, functions here answer with an
//! [`Ec2Error`] that carries the code and a text in AWS's style.
#![forbid(unsafe_code)]

pub mod base64_bytes;
pub mod error;
pub mod filters;
pub mod ids;
pub mod instance_types;
pub mod metadata_options;
pub mod network;
mod network_regions;
pub mod security_group;
pub mod spelling;
pub mod tags;
pub mod user_data;
pub mod volume_types;

pub use error::Ec2Error;
