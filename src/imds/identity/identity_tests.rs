use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use rsa::signature::Verifier as _;
use rsa::signature::hazmat::PrehashVerifier as _;
use sha1::{Digest as _, Sha1};
use x509_cert::der::{Decode as _, Encode as _};

use super::*;

/// Keys for tests: making them takes a while.
fn keys() -> &'static IdentityKeys {
    static KEYS: OnceLock<IdentityKeys> = OnceLock::new();
    KEYS.get_or_init(|| IdentityKeys::generate().unwrap())
}

fn decode(text: &str) -> Vec<u8> {
    STANDARD.decode(text.replace('\n', "")).unwrap()
}

#[test]
fn document_has_ec2s_form() {
    let document = document(&Metadata::example());
    assert!(document.starts_with("{\n  \"accountId\" : \"123456789012\",\n  \"architecture\" : \"x86_64\",\n"));
    assert!(document.ends_with("  \"region\" : \"us-east-1\",\n  \"version\" : \"2017-09-30\"\n}"));
    let json: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(json["instanceId"], Metadata::example().instance_id);
    assert_eq!(json["privateIp"], "172.31.0.37");
    assert_eq!(json["pendingTime"], "2026-11-20T22:25:12Z");
    assert!(json["billingProducts"].is_null());
}

#[test]
fn pem_round_trip() {
    let pem = keys().to_pem().unwrap();
    let again = IdentityKeys::from_pem(&pem).unwrap();
    assert_eq!(again.to_pem().unwrap(), pem);
    assert!(IdentityKeys::from_pem("").is_err());
    assert!(IdentityKeys::from_pem(&pem[..pem.len() / 2]).is_err());
    assert!(!format!("{again:?}").contains("PRIVATE"));
}

#[test]
fn signatures_verify_and_are_stable() {
    let document = document(&Metadata::example());
    let (rsa_key, dsa_key) = keys().public_keys();
    for form in Form::ALL {
        let text = form.sign(keys(), document.as_bytes(), 1_795_213_512).unwrap();
        assert_eq!(text, form.sign(keys(), document.as_bytes(), 1_795_213_512).unwrap(), "{form:?}");
        assert!(text.lines().all(|line| line.len() <= 76) && !text.ends_with('\n') && !text.contains("BEGIN"));
        let bytes = decode(&text);
        if form == Form::Signature {
            let signature = rsa::pkcs1v15::Signature::try_from(bytes.as_slice()).unwrap();
            rsa_key.verify(document.as_bytes(), &signature).unwrap();
            rsa_key.verify(b"another document", &signature).unwrap_err();
            continue;
        }
        let info = ContentInfo::from_der(&bytes).unwrap();
        let data: SignedData = info.content.decode_as().unwrap();
        assert_eq!(data.encap_content_info.econtent.unwrap().value(), document.as_bytes());
        let signer = data.signer_infos.0.get(0).unwrap();
        let attributes = signer.signed_attrs.as_ref().unwrap().to_der().unwrap();
        if form == Form::Rsa2048 {
            let signature = rsa::pkcs1v15::Signature::try_from(signer.signature.as_bytes()).unwrap();
            rsa_key.verify(&attributes, &signature).unwrap();
        } else {
            let signature = dsa::Signature::try_from(signer.signature.as_bytes()).unwrap();
            dsa_key.verify_prehash(&Sha1::digest(&attributes), &signature).unwrap();
        }
    }
}

/// The commands of the EC2 User Guide.
#[test]
fn openssl_verifies_as_the_user_guide_says() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: openssl_verifies_as_the_user_guide_says needs the openssl command");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    };
    let openssl =
        |arguments: &[&str]| Command::new("openssl").args(arguments).current_dir(directory.path()).output().unwrap();
    let document = document(&Metadata::example());
    write("document", document.as_bytes());
    write("rsa", keys().rsa_certificate().unwrap().as_bytes());
    write("dsa", keys().dsa_certificate().unwrap().as_bytes());
    for (form, certificate) in [(Form::Rsa2048, "rsa"), (Form::Pkcs7, "dsa")] {
        let body = form.sign(keys(), document.as_bytes(), 1_795_213_512).unwrap();
        write(form.name(), format!("-----BEGIN PKCS7-----\n{body}\n-----END PKCS7-----\n").as_bytes());
        let output =
            openssl(&["smime", "-verify", "-in", form.name(), "-inform", "PEM", "-certfile", certificate, "-noverify"]);
        assert!(output.status.success(), "{form:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, document.as_bytes());
        write(
            "changed",
            format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", body.replacen('E', "F", 1)).as_bytes(),
        );
        let output =
            openssl(&["smime", "-verify", "-in", "changed", "-inform", "PEM", "-certfile", certificate, "-noverify"]);
        assert!(!output.status.success(), "{form:?}: a changed message verifies");
    }
    let key = openssl(&["x509", "-pubkey", "-noout", "-in", "rsa"]);
    write("key", &key.stdout);
    write("signature", &decode(&Form::Signature.sign(keys(), document.as_bytes(), 0).unwrap()));
    let output = openssl(&["dgst", "-sha256", "-verify", "key", "-signature", "signature", "document"]);
    assert_eq!(output.stdout, b"Verified OK\n");
    let output = openssl(&["x509", "-in", "dsa", "-noout", "-text"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("dsa_with_SHA1") || output.status.success());
}
