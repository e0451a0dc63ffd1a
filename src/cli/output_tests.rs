use serde_json::json;

use super::*;

#[test]
fn text_is_tab_separated_like_the_aws_cli_s() {
    let mut text = String::new();
    text_lines(
        &json!({"Images": [{"ImageId": "ami-1", "Name": "a", "Tags": [{"Key": "k", "Value": "v"}]}, {"ImageId": "ami-2", "Name": "b"}]}),
        &mut text,
    );
    assert_eq!(text, "ami-1\ta\nk\tv\nami-2\tb\n");
}

#[test]
fn queries_are_jmespath() {
    let value = json!({"Images": [{"ImageId": "ami-1"}, {"ImageId": "ami-2"}]});
    assert_eq!(search("Images[].ImageId", &value).unwrap(), json!(["ami-1", "ami-2"]));
    let error = search("Images[", &value).unwrap_err();
    assert_eq!(error.exit, exit::USAGE);
}

#[test]
fn literals_of_queries_may_be_bare_words_as_for_the_aws_cli() {
    let value = json!({"Instances": [{"Id": "i-1", "State": {"Name": "running"}}, {"Id": "i-`2`", "State": {"Name": "stopped"}}]});
    for state in ["`running`", "`\"running\"`", "'running'"] {
        let found = search(&format!("Instances[?State.Name==`stopped` || State.Name=={state}].Id"), &value).unwrap();
        assert_eq!(found, json!(["i-1", "i-`2`"]), "{state}");
    }
    assert_eq!(search("Instances[?\"Id\"=='i-`2`'].State.Name | [0]", &value).unwrap(), json!("stopped"));
    assert_eq!(search("`[1, {\"a\": true}]`", &value).unwrap(), json!([1, {"a": true}]));
    assert_eq!(search("Instances[?Id=='it\\'s']", &value).unwrap(), json!([]));
    for broken in ["Instances[?Id==`run", "`", "'", "\""] {
        assert_eq!(search(broken, &value).unwrap_err().exit, exit::USAGE, "{broken}");
    }
}

#[test]
fn a_description_has_a_line_per_field() {
    let mut rows = Vec::new();
    fields("", &json!({"A": {"B": 1}, "C": ["x", "y"], "D": [{"E": null}]}), &mut rows);
    let expected = [("A.B", "1"), ("C", "x, y"), ("D[0].E", "None")];
    assert_eq!(rows, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn sizes_for_people() {
    assert_eq!([0, 1023, 1024, 1536, 3 << 30].map(human_size), ["0 B", "1023 B", "1 KiB", "1.5 KiB", "3 GiB"]);
}
