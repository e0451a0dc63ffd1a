//! How an instance's metadata service is set up: the API's `InstanceMetadataOptionsRequest` and the AWS CLI's
//! shorthand for it, `--metadata-options HttpTokens=required,HttpPutResponseHopLimit=2`.

use serde::{Deserialize, Serialize};

use super::Ec2Error;

/// Whether requests need a session token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpTokens {
    /// IMDSv1 and IMDSv2.
    Optional,
    /// IMDSv2 only.
    Required,
}

/// An on/off value, in the API's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// On.
    Enabled,
    /// Off.
    Disabled,
}

impl State {
    /// Whether it is [`State::Enabled`].
    pub fn is_enabled(self) -> bool {
        self == Self::Enabled
    }
}

/// The metadata options of an instance. Serialises with EC2's field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MetadataOptions {
    /// Whether a session token is needed.
    pub http_tokens: HttpTokens,
    /// IP hops that the response to a token request survives, 1 to 64.
    pub http_put_response_hop_limit: u8,
    /// Whether the service answers at all.
    pub http_endpoint: State,
    /// Whether it answers at `fd00:ec2::254`.
    pub http_protocol_ipv6: State,
    /// Whether the instance's tags are shown.
    pub instance_metadata_tags: State,
}

impl Default for MetadataOptions {
    fn default() -> Self {
        Self {
            http_tokens: HttpTokens::Optional,
            http_put_response_hop_limit: 1,
            http_endpoint: State::Enabled,
            http_protocol_ipv6: State::Disabled,
            instance_metadata_tags: State::Disabled,
        }
    }
}

const NAMES: [&str; 5] =
    ["HttpTokens", "HttpPutResponseHopLimit", "HttpEndpoint", "HttpProtocolIpv6", "InstanceMetadataTags"];

impl MetadataOptions {
    /// EC2's defaults for an image that was registered with `ImdsSupport=v2.0`.
    pub fn for_imds_v2_image() -> Self {
        Self { http_tokens: HttpTokens::Required, http_put_response_hop_limit: 2, ..Self::default() }
    }

    /// These options with those that the shorthand `text` names changed.
    ///
    /// # Errors
    /// `UnknownParameter` for another name, `InvalidParameterValue` for a value that EC2 refuses,
    /// `InvalidParameterCombination` for a name that comes twice.
    pub fn with(mut self, text: &str) -> Result<Self, Ec2Error> {
        let mut seen = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let Some((name, value)) = item.split_once('=') else {
                return Err(Ec2Error::invalid_parameter_value(format!(
                    "Expected Name=value in metadata options, got '{item}'"
                )));
            };
            if seen.contains(&name) {
                return Err(Ec2Error::invalid_parameter_combination(format!("{name} is given twice.")));
            }
            seen.push(name);
            match name {
                "HttpTokens" => {
                    self.http_tokens = match value {
                        "optional" => HttpTokens::Optional,
                        "required" => HttpTokens::Required,
                        _ => return Err(Ec2Error::invalid_value_for(value, name, "Valid values: optional, required.")),
                    }
                }
                "HttpPutResponseHopLimit" => {
                    self.http_put_response_hop_limit = match value.parse() {
                        Ok(hops @ 1..=64) => hops,
                        _ => {
                            return Err(Ec2Error::invalid_value_for(value, name, "Value must be between 1 and 64."));
                        }
                    }
                }
                "HttpEndpoint" => self.http_endpoint = state(name, value)?,
                "HttpProtocolIpv6" => self.http_protocol_ipv6 = state(name, value)?,
                "InstanceMetadataTags" => self.instance_metadata_tags = state(name, value)?,
                _ => {
                    return Err(Ec2Error::new(
                        "UnknownParameter",
                        format!("Unknown metadata option: \"{name}\", must be one of: {}", NAMES.join(", ")),
                    ));
                }
            }
        }
        Ok(self)
    }

    /// The shorthand that [`with`](Self::with) reads.
    pub fn to_shorthand(&self) -> String {
        let word = |state: State| if state.is_enabled() { "enabled" } else { "disabled" };
        let tokens = if self.http_tokens == HttpTokens::Required { "required" } else { "optional" };
        format!(
            "HttpTokens={tokens},HttpPutResponseHopLimit={},HttpEndpoint={},HttpProtocolIpv6={},InstanceMetadataTags={}",
            self.http_put_response_hop_limit,
            word(self.http_endpoint),
            word(self.http_protocol_ipv6),
            word(self.instance_metadata_tags)
        )
    }
}

impl std::str::FromStr for MetadataOptions {
    type Err = Ec2Error;

    fn from_str(text: &str) -> Result<Self, Ec2Error> {
        Self::default().with(text)
    }
}

fn state(name: &str, value: &str) -> Result<State, Ec2Error> {
    match value {
        "enabled" => Ok(State::Enabled),
        "disabled" => Ok(State::Disabled),
        _ => Err(Ec2Error::invalid_value_for(value, name, "Valid values: enabled, disabled.")),
    }
}

#[cfg(test)]
#[path = "metadata_options_tests.rs"]
mod tests;
