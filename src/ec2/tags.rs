//! Tags: limits of keys and values, and the narrower rule for tags that the metadata service shows.

use super::Ec2Error;

/// Tags that a resource may have.
pub const MAX_TAGS: usize = 50;

/// Check one tag as CreateTags does.
///
/// # Errors
/// `InvalidParameterValue` with EC2's text.
pub fn validate(key: &str, value: &str) -> Result<(), Ec2Error> {
    if key.is_empty() {
        return Err(Ec2Error::invalid_parameter_value("Tag keys must not be empty."));
    }
    if key.chars().count() > 128 {
        return Err(Ec2Error::invalid_parameter_value(format!(
            "Tag key exceeds the maximum length of 128 characters: {key}"
        )));
    }
    if value.chars().count() > 256 {
        return Err(Ec2Error::invalid_parameter_value(format!(
            "Tag value exceeds the maximum length of 256 characters: {value}"
        )));
    }
    if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
        return Err(Ec2Error::invalid_parameter_value("Tag keys starting with 'aws:' are reserved for internal use"));
    }
    if key.chars().chain(value.chars()).any(char::is_control) {
        return Err(Ec2Error::invalid_parameter_value(format!("Tag '{key}' contains control characters.")));
    }
    Ok(())
}

/// Whether the metadata service can show a tag with this key below `tags/instance/`.
pub fn is_metadata_key(key: &str) -> bool {
    !matches!(key, "" | "." | ".." | "_index")
        && key.len() <= 255
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-=._:,@".contains(&b))
}

/// Check a key of an instance whose tags are shown in metadata (`InstanceMetadataTags=enabled`).
///
/// # Errors
/// `InvalidParameterValue` with EC2's text.
pub fn validate_metadata_key(key: &str) -> Result<(), Ec2Error> {
    if is_metadata_key(key) {
        return Ok(());
    }
    Err(Ec2Error::invalid_parameter_value(format!(
        "'{key}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{{1,255}}), and must not be \
         a reserved name ('.', '..', '_index')"
    )))
}

/// Read a tag in the AWS CLI's shorthand, `Key=Name,Value=web`, or plainly `Name=web`.
///
/// # Errors
/// `InvalidParameterValue` for text without a key, and those of [`validate`].
pub fn parse(text: &str) -> Result<(String, String), Ec2Error> {
    let (key, value) = match text.strip_prefix("Key=") {
        Some(rest) => match rest.split_once(",Value=") {
            Some(pair) => pair,
            None => (rest, ""),
        },
        None => text.split_once('=').unwrap_or((text, "")),
    };
    validate(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
#[path = "tags_tests.rs"]
mod tests;
