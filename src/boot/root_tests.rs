use super::*;

#[test]
fn words_keep_quoted_spaces() {
    assert_eq!(words(r#" a=1  b="x y" c"#), ["a=1", r#"b="x y""#, "c"]);
    assert_eq!(words(""), [""; 0]);
}

#[test]
fn the_last_value_wins_and_init_arguments_do_not_count() {
    assert_eq!(value("root=/dev/sda1 ro root=UUID=x -- root=z", "root"), Some("UUID=x"));
    assert_eq!(value("rootflags=subvol=root", "root"), None);
}
