use proptest::prelude::*;

use super::*;

fn filters(texts: &[&str]) -> Filters {
    Filters(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn fit(texts: &[&str]) -> Result<bool, Ec2Error> {
    let filters = filters(texts);
    filters.check(&["instance-type", "none"])?;
    Ok(filters.fit(&[("Name", "web-1"), ("env", "dev")], |name| match name {
        "instance-type" => vec!["t3.micro".to_owned()],
        _ => Vec::new(),
    }))
}

#[test]
fn the_shorthand_is_the_aws_cli_s() {
    let filter: Filter = "Name=tag:Name,Values=a,b=c".parse().unwrap();
    assert_eq!((filter.name.as_str(), filter.values), ("tag:Name", vec!["a".to_owned(), "b=c".to_owned()]));
    assert_eq!("instance-type=t3.*".parse::<Filter>().unwrap().name, "instance-type");
    for wrong in ["", "x", "Name=x", "Name=x,Value=y", "Values=x", "=x"] {
        assert_eq!(wrong.parse::<Filter>().unwrap_err().code, "InvalidParameterValue", "{wrong}");
    }
}

#[test]
fn values_are_alternatives_and_filters_are_not() {
    for (texts, expected) in [
        (&["instance-type=t2.*,t3.*"][..], true),
        (&["instance-type=t2.*"], false),
        (&["instance-type=T3.micro"], false),
        (&["instance-type=t3.micro", "tag:Name=web-?"], true),
        (&["instance-type=t3.micro", "tag:Name=db-?"], false),
        (&["tag-key=env"], true),
        (&["tag-key=Env"], false),
        (&["tag-value=dev"], true),
        (&["tag:nope=*"], false),
        (&["none=*"], false),
        (&[], true),
    ] {
        assert_eq!(fit(texts), Ok(expected), "{texts:?}");
    }
    let error = fit(&["colour=red"]).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), ("InvalidParameterValue", "The filter 'colour' is invalid"));
    assert_eq!(fit(&[&format!("none={}", "x,".repeat(200))]).unwrap_err().code, "FilterLimitExceeded");
}

#[test]
fn patterns() {
    for (pattern, value, expected) in [
        ("", "", true),
        ("*", "", true),
        ("a*b*c", "aXbYc", true),
        ("a*b*c", "aXbY", false),
        (r"\*", "*", true),
        (r"\*", "x", false),
        (r"a\?", "a?", true),
        (r"a\", r"a\", true),
        ("*aab", "aaaaaab", true),
    ] {
        assert_eq!(fits(pattern, value), expected, "{pattern} {value}");
    }
}

proptest! {
    #[test]
    fn a_value_fits_itself_with_its_signs_escaped(value in ".{0,20}") {
        let escaped: String = value.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert!(fits(&escaped, &value));
        let longer = escaped + "*";
        prop_assert!(fits("*", &value) && fits(&longer, &value));
    }
}
