use super::*;

#[test]
fn a_transition_s_reason_has_its_time() {
    let text = by_user("User initiated");
    assert!(text.starts_with("User initiated (20") && text.ends_with(" GMT)"), "{text}");
}
