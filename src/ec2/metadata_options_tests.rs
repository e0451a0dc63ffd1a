use super::*;

#[test]
fn shorthand_changes_what_it_names() {
    let options: MetadataOptions = "HttpTokens=required,HttpPutResponseHopLimit=2".parse().unwrap();
    assert_eq!(options, MetadataOptions::for_imds_v2_image());
    let options = options.with("InstanceMetadataTags=enabled,HttpEndpoint=disabled,HttpProtocolIpv6=enabled").unwrap();
    assert_eq!(options.http_tokens, HttpTokens::Required);
    assert!(options.instance_metadata_tags.is_enabled() && !options.http_endpoint.is_enabled());
    assert_eq!(options.to_shorthand().parse::<MetadataOptions>().unwrap(), options);
    assert_eq!("".parse::<MetadataOptions>().unwrap(), MetadataOptions::default());
}

#[test]
fn errors() {
    for (text, code) in [
        ("HttpTokens=maybe", "InvalidParameterValue"),
        ("HttpPutResponseHopLimit=0", "InvalidParameterValue"),
        ("HttpPutResponseHopLimit=65", "InvalidParameterValue"),
        ("HttpPutResponseHopLimit=two", "InvalidParameterValue"),
        ("HttpEndpoint=on", "InvalidParameterValue"),
        ("HttpTokens", "InvalidParameterValue"),
        ("httptokens=required", "UnknownParameter"),
        ("HttpTokens=required,HttpTokens=optional", "InvalidParameterCombination"),
    ] {
        assert_eq!(text.parse::<MetadataOptions>().unwrap_err().code, code, "{text}");
    }
}

#[test]
fn serialises_with_ec2s_names() {
    let json = serde_json::to_value(MetadataOptions::default()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"HttpTokens": "optional", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled",
            "HttpProtocolIpv6": "disabled", "InstanceMetadataTags": "disabled"})
    );
}
