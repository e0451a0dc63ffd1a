use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::imds::{Connection, IdentityKeys, Outcome};

/// A service with a clock that tests turn.
struct Fixture {
    service: Arc<Service>,
    now: Arc<AtomicI64>,
}

struct Reply {
    status: u16,
    head: String,
    body: String,
    outcome: Outcome,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut Metadata)) -> Self {
        let mut metadata = Metadata::example();
        change(&mut metadata);
        let now = Arc::new(AtomicI64::new(1_800_000_000));
        let clock = Arc::clone(&now);
        let clock: Clock = Arc::new(move || Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap());
        Self { service: Arc::new(Service::new(metadata, None, clock)), now }
    }

    fn ask(&self, line: &str, headers: &[&str]) -> Reply {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let mut reply = Vec::new();
        let outcome = Connection::new(Arc::clone(&self.service))
            .receive(format!("{line} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n").as_bytes(), &mut reply);
        let text = String::from_utf8(reply).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head: head.into(), body: body.into(), outcome }
    }

    fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[])
    }

    fn token(&self, ttl: u32) -> String {
        let reply = self.ask("PUT /latest/api/token", &[&format!("X-aws-ec2-metadata-token-ttl-seconds: {ttl}")]);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }
}

fn plain() -> Fixture {
    Fixture::new(|_| {})
}

#[test]
fn token_requests() {
    let fixture = plain();
    let put = |headers: &[&str]| fixture.ask("PUT /latest/api/token", headers);
    for ttl in ["1", "21600", " 60 "] {
        let reply = put(&[&format!("X-aws-ec2-metadata-token-ttl-seconds: {ttl}")]);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.body.len(), 56);
        let line = format!("X-Aws-Ec2-Metadata-Token-Ttl-Seconds: {}", ttl.trim());
        assert!(reply.head.contains(&line), "{}", reply.head);
        assert_eq!(reply.outcome.hop_limit, Some(1));
    }
    assert_eq!(put(&["x-AWS-ec2-metadata-TOKEN-ttl-seconds: 60"]).status, 200, "in any case");
    for ttl in ["0", "21601", "-1", "+60", "1.5", "", "abc", "99999999999999999999"] {
        assert_eq!(put(&[&format!("X-aws-ec2-metadata-token-ttl-seconds: {ttl}")]).status, 400, "{ttl}");
    }
    assert_eq!(put(&[]).status, 400);
    for name in ["X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR"] {
        let reply = put(&["X-aws-ec2-metadata-token-ttl-seconds: 60", &format!("{name}: 1.2.3.4")]);
        assert_eq!((reply.status, reply.outcome.hop_limit), (403, None), "{name}");
    }
    let ttl = ["X-aws-ec2-metadata-token-ttl-seconds: 60"];
    assert_eq!(fixture.ask("PUT /2021-03-23/api/token", &ttl).status, 403);
    assert_eq!(fixture.ask("PUT //latest//api/token/", &ttl).status, 200);
    assert_eq!(fixture.ask("PUT /latest/meta-data/mac", &ttl).status, 405);
    let reply = fixture.get("/latest/api/token");
    assert_eq!(reply.status, 405);
    assert!(reply.head.contains("Allow: PUT"), "{}", reply.head);
}

#[test]
fn tokens_open_and_expire() {
    let fixture = plain();
    let token = fixture.token(60);
    let with =
        |token: &str| fixture.ask("GET /latest/meta-data/system", &[&format!("X-aws-ec2-metadata-token: {token}")]);
    let reply = with(&token);
    assert_eq!((reply.status, reply.body.as_str(), reply.outcome.hop_limit), (200, "nitro", None));
    assert!(reply.head.contains("X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60"));
    fixture.now.fetch_add(59, Ordering::Relaxed);
    assert!(with(&token).head.contains("X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 1\r\n"));
    fixture.now.fetch_add(1, Ordering::Relaxed);
    assert_eq!(with(&token).status, 401, "expired, though tokens are optional");
    assert_eq!(with("nonsense").status, 401);
    assert_eq!(with("").status, 401);
    assert_eq!(with(&plain().token(60)).status, 401, "of another instance");
    let fresh = fixture.token(60);
    let headers = [&*format!("X-aws-ec2-metadata-token: {fresh}"), "X-Forwarded-For: 1.2.3.4"];
    assert_eq!(fixture.ask("GET /latest/meta-data/system", &headers).status, 403);
    assert_eq!(fixture.ask("GET /latest/meta-data/system", &headers[1..]).status, 200, "version 1 does not look");
}

#[test]
fn options_rule() {
    let required = Fixture::new(|metadata| {
        metadata.options = "HttpTokens=required,HttpPutResponseHopLimit=64".parse().unwrap();
    });
    for path in ["/", "/latest/meta-data/mac", "/latest/user-data", "/nowhere"] {
        assert_eq!(required.get(path).status, 401, "{path}");
    }
    let token = required.token(60);
    let headers = [&*format!("X-aws-ec2-metadata-token: {token}")];
    assert_eq!(required.ask("GET /latest/user-data", &headers).status, 200);
    assert_eq!(required.ask("HEAD /latest/user-data", &headers).body, "");
    let put = required.ask("PUT /latest/api/token", &["X-aws-ec2-metadata-token-ttl-seconds: 1"]);
    assert_eq!(put.outcome.hop_limit, Some(64));
    let off = Fixture::new(|metadata| metadata.options = "HttpEndpoint=disabled".parse().unwrap());
    for line in ["GET /", "GET /latest/meta-data/", "PUT /latest/api/token", "POST /", "GET nonsense"] {
        assert_eq!(off.ask(line, &["X-aws-ec2-metadata-token-ttl-seconds: 1"]).status, 403, "{line}");
    }
    let mut metadata = Metadata::example();
    metadata.options = "InstanceMetadataTags=enabled".parse().unwrap();
    let fixture = plain();
    let token = fixture.token(60);
    assert_eq!(fixture.get("/latest/meta-data/tags/instance/Name").status, 404);
    fixture.service.update(&metadata);
    assert_eq!(fixture.get("/latest/meta-data/tags/instance/Name").body, "example");
    let headers = [&*format!("X-aws-ec2-metadata-token: {token}")];
    assert_eq!(fixture.ask("GET /latest/", &headers).status, 200, "tokens outlive a change");
}

#[test]
fn methods_and_unknown_paths() {
    let fixture = plain();
    for method in ["POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"] {
        let reply = fixture.ask(&format!("{method} /latest/meta-data/"), &[]);
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.head.contains("Allow: GET, HEAD"), "{}", reply.head);
    }
    let reply = fixture.get("/latest/meta-data/nowhere");
    assert_eq!(reply.status, 404);
    assert!(reply.head.contains("Content-Type: text/html"));
    assert!(reply.body.starts_with("<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>"));
    assert!(reply.body.contains("<title>404 - Not Found</title>"));
    for path in [
        "/2099-01-01/meta-data/",
        "/latest/vendor-data",
        "/latest/api",
        "/latest/meta-data/ipv6",
        "/x",
        "/LATEST",
        "/latest/meta-data/../user-data",
        "/latest/meta-data/iam/security-credentials/",
        "/%ff",
    ] {
        assert_eq!(fixture.get(path).status, 404, "{path}");
    }
    assert_eq!(fixture.get("/%zz").status, 400);
}

#[test]
fn user_data_is_served_byte_for_byte() {
    let reply = plain().get("/latest/user-data");
    assert_eq!(reply.body, "#!/bin/sh\necho hello\n");
    assert!(reply.head.contains("Content-Type: application/octet-stream"));
    let without = Fixture::new(|metadata| metadata.user_data = None);
    assert_eq!(without.get("/2021-03-23/user-data").status, 404);
    let bytes: Vec<u8> = (0..=255).cycle().take(16_384).collect();
    let expected = bytes.clone();
    let binary = Fixture::new(|metadata| metadata.user_data = Some(bytes));
    let mut reply = Vec::new();
    Connection::new(binary.service).receive(b"GET /latest/user-data HTTP/1.1\r\n\r\n", &mut reply);
    assert!(reply.ends_with(&expected));
}

#[test]
fn liberal_paths() {
    let fixture = Fixture::new(|metadata| {
        metadata.options = "InstanceMetadataTags=enabled".parse().unwrap();
        metadata.tags.insert("ghr:x".into(), "tagged".into());
    });
    for (path, body) in [
        ("/latest//meta-data/system", "nitro"),
        ("//latest/meta-data///system", "nitro"),
        ("/latest/meta-data/system/", "nitro"),
        ("/latest/meta-data/services/domain/", "amazonaws.com"),
        ("/latest/meta-data/public-keys", "0=mykey"),
        ("/latest/meta-data/public-keys/", "0=mykey"),
        ("/latest/meta-data/public-keys/0", "openssh-key"),
        ("/latest/meta-data/system?a=b", "nitro"),
        ("http://169.254.169.254/latest/meta-data/system", "nitro"),
        ("/latest/meta-data/tags/instance/ghr%3Ax", "tagged"),
        ("/latest/meta-data/tags/instance/ghr:x", "tagged"),
        ("/latest", "dynamic\nmeta-data\nuser-data"),
        ("/latest/", "dynamic\nmeta-data\nuser-data"),
    ] {
        let reply = fixture.get(path);
        assert_eq!((reply.status, reply.body.as_str()), (200, body), "{path}");
    }
}

/// Fetch all that is listed, from the top: every entry answers 200, and none twice.
fn crawl(fixture: &Fixture) -> BTreeSet<String> {
    let mut leaves = BTreeSet::new();
    let mut queue: Vec<String> = fixture.get("/").body.lines().map(|version| format!("/{version}/")).collect();
    while let Some(directory) = queue.pop() {
        let listing = fixture.get(&directory);
        assert_eq!(listing.status, 200, "{directory}");
        assert!(!listing.body.ends_with('\n') && !listing.body.is_empty(), "{directory}");
        let bare = fixture.get(directory.trim_end_matches('/'));
        assert_eq!(bare.body, listing.body, "{directory} without its slash");
        let at_top = directory.matches('/').count() == 2;
        for name in listing.body.lines() {
            let name = match name.split_once('=') {
                Some((index, _)) if directory.ends_with("/public-keys/") => format!("{index}/"),
                _ if at_top && name != "user-data" => format!("{name}/"),
                _ => name.to_owned(),
            };
            let path = format!("{directory}{name}");
            if name.ends_with('/') {
                queue.push(path);
            } else {
                assert_eq!(fixture.get(&path).status, 200, "{path} is listed");
                assert!(leaves.insert(path.clone()), "{path} is listed twice");
            }
        }
    }
    leaves
}

#[test]
fn all_that_is_listed_can_be_fetched() {
    let leaves = crawl(&plain());
    for version in VERSIONS {
        for leaf in
            ["meta-data/instance-id", "meta-data/public-keys/0/openssh-key", "dynamic/instance-identity/document"]
        {
            assert!(leaves.contains(&format!("/{version}/{leaf}")), "{version} {leaf}");
        }
    }
    assert!(leaves.iter().all(|leaf| !leaf.contains("tags")));
    crawl(&Fixture::new(|metadata| {
        metadata.user_data = None;
        metadata.key_pair = None;
        metadata.network_interfaces[0].public = None;
        metadata.options = "InstanceMetadataTags=enabled".parse().unwrap();
    }));
    let with_two = crawl(&Fixture::new(|metadata| {
        let mut second = metadata.network_interfaces[0].clone();
        second.mac = [2, 0, 0, 0, 0, 1];
        second.device_number = 1;
        metadata.network_interfaces.push(second);
    }));
    assert!(with_two.contains("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/device-number"));
}

#[test]
fn leaves_end_without_a_new_line() {
    let fixture = plain();
    for leaf in crawl(&fixture).iter().filter(|leaf| leaf.starts_with("/latest/") && !leaf.ends_with("user-data")) {
        let ends = fixture.get(leaf).body.ends_with('\n');
        assert_eq!(ends, leaf.ends_with("openssh-key"), "{leaf}");
    }
}

#[test]
fn facts_agree() {
    let fixture = plain();
    let metadata = Metadata::example();
    let get = |path: &str| fixture.get(&format!("/2021-03-23/{path}")).body;
    let document: serde_json::Value = serde_json::from_str(&get("dynamic/instance-identity/document")).unwrap();
    assert_eq!(document["instanceId"], get("meta-data/instance-id"));
    assert_eq!(document["region"], get("meta-data/placement/region"));
    let mac = get("meta-data/mac");
    assert_eq!(get("meta-data/network/interfaces/macs/"), format!("{mac}/"));
    let of_mac = |leaf: &str| get(&format!("meta-data/network/interfaces/macs/{mac}/{leaf}"));
    assert_eq!(of_mac("subnet-ipv4-cidr-block"), "172.31.0.0/20");
    assert_eq!(of_mac("local-ipv4s"), get("meta-data/local-ipv4"));
    assert_eq!(of_mac(&format!("ipv4-associations/{}", get("meta-data/public-ipv4"))), get("meta-data/local-ipv4"));
    assert_eq!(get("meta-data/public-keys/0/openssh-key"), format!("{}\n", metadata.key_pair.unwrap().public_key));
    assert_eq!(get("meta-data/block-device-mapping/root"), "/dev/xvda");
}

#[test]
fn signatures_appear_with_their_keys() {
    let cell: Arc<OnceLock<Arc<IdentityKeys>>> = Arc::default();
    let provider: KeyProvider = {
        let cell = Arc::clone(&cell);
        Arc::new(move || cell.get().cloned())
    };
    let mut fixture = plain();
    fixture.service = Arc::new(Service::new(Metadata::example(), Some(provider), super::system_clock()));
    let identity = "/latest/dynamic/instance-identity";
    assert_eq!(fixture.get(identity).body, "document");
    assert_eq!(fixture.get(&format!("{identity}/pkcs7")).status, 404);
    crawl(&fixture);
    cell.set(Arc::new(IdentityKeys::generate().unwrap())).unwrap();
    assert_eq!(fixture.get(identity).body, "document\npkcs7\nrsa2048\nsignature");
    let signature = fixture.get(&format!("{identity}/signature")).body;
    assert_eq!(signature, fixture.get(&format!("{identity}/signature")).body);
    crawl(&fixture);
}
