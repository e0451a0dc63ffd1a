//! EC2's error codes and texts ("Error codes for the Amazon EC2 API", EC2 API Reference).

use std::fmt;

/// An error as the EC2 API answers it: a code that programs test for, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Ec2Error {
    /// The code, as in the EC2 API Reference: `InvalidParameterValue`.
    pub code: &'static str,
    /// What is wrong, in AWS's words where they are known.
    pub message: String,
}

impl Ec2Error {
    /// An error with this code and text.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// `InvalidParameterValue`: a parameter has a value that is not allowed.
    pub fn invalid_parameter_value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", message)
    }

    /// `InvalidParameterValue` in the words EC2 uses when it names the parameter and what it wants.
    pub fn invalid_value_for(value: impl fmt::Display, parameter: &str, expected: impl fmt::Display) -> Self {
        Self::invalid_parameter_value(format!("Value ({value}) for parameter {parameter} is invalid. {expected}"))
    }

    /// `InvalidParameterCombination`: two parameters that do not go together.
    pub fn invalid_parameter_combination(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterCombination", message)
    }

    /// `MissingParameter`: the request lacks a parameter.
    pub fn missing_parameter(parameter: &str) -> Self {
        Self::new("MissingParameter", format!("The request must contain the parameter {parameter}"))
    }

    /// `UnknownParameter`: the request has a parameter that EC2 does not know.
    pub fn unknown_parameter(parameter: &str) -> Self {
        Self::new("UnknownParameter", format!("The parameter {parameter} is not recognized"))
    }

    /// `InvalidAMIID.NotFound`.
    pub fn image_not_found(image_id: &str) -> Self {
        Self::new("InvalidAMIID.NotFound", format!("The image id '[{image_id}]' does not exist"))
    }

    /// `InvalidAMIID.Unavailable`: the image exists and cannot be launched.
    pub fn image_unavailable(image_id: &str) -> Self {
        Self::new("InvalidAMIID.Unavailable", format!("The image id '[{image_id}]' is no longer available"))
    }

    /// `InvalidInstanceID.NotFound`, for one or several ids.
    pub fn instance_not_found(instance_ids: &[&str]) -> Self {
        let message = match instance_ids {
            [one] => format!("The instance ID '{one}' does not exist"),
            many => format!("The instance IDs '{}' do not exist", many.join(", ")),
        };
        Self::new("InvalidInstanceID.NotFound", message)
    }

    /// `IncorrectInstanceState`: `action` is the participle that ends EC2's sentence: "started", "stopped".
    pub fn incorrect_instance_state(instance_id: &str, action: &str) -> Self {
        Self::new(
            "IncorrectInstanceState",
            format!("The instance '{instance_id}' is not in a state from which it can be {action}."),
        )
    }

    /// `InvalidKeyPair.NotFound`.
    pub fn key_pair_not_found(name: &str) -> Self {
        Self::new("InvalidKeyPair.NotFound", format!("The key pair '{name}' does not exist"))
    }

    /// `InvalidKeyPair.Duplicate`.
    pub fn key_pair_duplicate(name: &str) -> Self {
        Self::new("InvalidKeyPair.Duplicate", format!("The keypair already exists: {name}"))
    }

    /// `InvalidKey.Format`: what was given is not a public key.
    pub fn key_format() -> Self {
        Self::new("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
    }

    /// `InvalidVolume.NotFound`.
    pub fn volume_not_found(volume_id: &str) -> Self {
        Self::new("InvalidVolume.NotFound", format!("The volume '{volume_id}' does not exist."))
    }

    /// `InvalidSnapshot.NotFound`.
    pub fn snapshot_not_found(snapshot_id: &str) -> Self {
        Self::new("InvalidSnapshot.NotFound", format!("The snapshot '{snapshot_id}' does not exist."))
    }

    /// `InvalidGroup.NotFound`.
    pub fn security_group_not_found(group: &str) -> Self {
        Self::new("InvalidGroup.NotFound", format!("The security group '{group}' does not exist"))
    }

    /// `InvalidBlockDeviceMapping`.
    pub fn invalid_block_device_mapping(message: impl Into<String>) -> Self {
        Self::new("InvalidBlockDeviceMapping", message)
    }

    /// `InvalidUserData.Malformed`: the API's user-data is not base64.
    pub fn user_data_malformed() -> Self {
        Self::new("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
    }

    /// `InvalidParameterValue`: user-data above EC2's limit.
    pub fn user_data_too_large() -> Self {
        Self::invalid_parameter_value("User data is limited to 16384 bytes")
    }

    /// `InvalidParameterValue`: no such instance type, as RunInstances says it.
    pub fn invalid_instance_type(name: &str) -> Self {
        Self::invalid_parameter_value(format!("Invalid value '{name}' for InstanceType."))
    }

    /// `InvalidParameterValue`: instance type and image do not fit.
    pub fn architecture_mismatch(of_type: &str, of_image: &str) -> Self {
        Self::invalid_parameter_value(format!(
            "The architecture '{of_type}' of the specified instance type does not match the architecture '{of_image}' \
             of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again."
        ))
    }

    /// `Unsupported`: EC2's sentence, and the reason.
    pub fn unsupported(reason: impl fmt::Display) -> Self {
        Self::new("Unsupported", format!("The requested configuration is currently not supported: {reason}"))
    }

    /// `InsufficientInstanceCapacity`: this host has too little of something.
    pub fn insufficient_capacity(message: impl Into<String>) -> Self {
        Self::new("InsufficientInstanceCapacity", message)
    }

    /// `TagLimitExceeded`.
    pub fn tag_limit_exceeded() -> Self {
        Self::new("TagLimitExceeded", "You have reached the maximum number of tags on the resource (50).")
    }

    /// `DryRunOperation`: the request would have succeeded.
    pub fn dry_run() -> Self {
        Self::new("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    }
}
