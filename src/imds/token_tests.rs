use super::*;

#[test]
fn hmac_matches_rfc_4231() {
    let mut key = [0u8; 32];
    key[..20].fill(0x0b);
    assert_eq!(
        hex::encode(hmac_sha256(&key, b"Hi There")),
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    );
}

#[test]
fn tokens_look_like_ec2s_and_expire() {
    let tokens = Tokens::new();
    let token = tokens.mint(1000);
    assert_eq!(token.len(), 56);
    assert!(token.starts_with("AQAE") && token.ends_with("=="), "{token}");
    assert_ne!(token, tokens.mint(1000));
    assert_eq!(tokens.remaining(token.as_bytes(), 990), Some(10));
    assert_eq!(tokens.remaining(token.as_bytes(), 999), Some(1));
    assert_eq!(tokens.remaining(token.as_bytes(), 1000), None);
    assert_eq!(tokens.remaining(token.as_bytes(), i64::MIN), None);
}

#[test]
fn foreign_and_changed_tokens_are_refused() {
    let tokens = Tokens::new();
    let token = tokens.mint(1000);
    assert_eq!(Tokens::new().remaining(token.as_bytes(), 0), None, "of another instance");
    for index in 0..54 {
        let mut changed = token.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        assert_eq!(tokens.remaining(&changed, 0), None, "letter {index}");
    }
    for bad in ["", "x", &token[..55], &format!("{token}A"), &"A".repeat(10_000)] {
        assert_eq!(tokens.remaining(bad.as_bytes(), 0), None);
    }
}
