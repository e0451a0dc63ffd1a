use super::*;

#[test]
fn limits() {
    validate("Name", "web 1").unwrap();
    validate(&"k".repeat(128), &"v".repeat(256)).unwrap();
    for (key, value) in [("", ""), (&*"k".repeat(129), ""), ("k", &*"v".repeat(257)), ("aws:x", ""), ("AWS:x", "")] {
        assert_eq!(validate(key, value).unwrap_err().code, "InvalidParameterValue", "{key}");
    }
    validate("äws", "ü").unwrap();
}

#[test]
fn metadata_keys() {
    for good in ["Name", "ghr:ssm_config_path", "a+b-c=d.e,f_g:h@i", "...", "_index2"] {
        validate_metadata_key(good).unwrap();
    }
    for bad in ["", ".", "..", "_index", "a b", "a/b", "ä", "a\n"] {
        let error = validate_metadata_key(bad).unwrap_err();
        assert!(error.message.contains("is not a valid tag key"), "{bad}");
    }
}

#[test]
fn shorthand() {
    assert_eq!(parse("Key=Name,Value=a,b=c").unwrap(), ("Name".into(), "a,b=c".into()));
    assert_eq!(parse("Key=Name").unwrap(), ("Name".into(), String::new()));
    assert_eq!(parse("Name=a=b").unwrap(), ("Name".into(), "a=b".into()));
    parse("=x").unwrap_err();
}
