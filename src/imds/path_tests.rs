use super::*;

#[test]
fn paths() {
    for (target, path) in [
        ("/", ""),
        ("//", ""),
        ("/latest/", "latest"),
        ("/latest//meta-data///mac/", "latest/meta-data/mac"),
        ("/latest/meta-data/mac?x=/y", "latest/meta-data/mac"),
        ("/a%3Ab%20c", "a:b c"),
        ("/a%2F%2fb", "a/b"),
        ("http://169.254.169.254/latest", "latest"),
        ("http://169.254.169.254", ""),
        ("/a/../b", "a/../b"),
        ("/%ff", "\u{fffd}"),
    ] {
        assert_eq!(normalise(target).as_deref(), Ok(path), "{target}");
    }
    for bad in ["", "*", "latest", "/%", "/%4", "/%zz", "ftp://a/b"] {
        assert_eq!(normalise(bad), Err(BadTarget), "{bad}");
    }
}
