use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::imds::{LogEntry, Metadata, system_clock};

fn service() -> Arc<Service> {
    Arc::new(Service::new(Metadata::example(), None, system_clock()))
}

fn exchange(bytes: &[u8]) -> (String, Outcome) {
    let mut reply = Vec::new();
    let outcome = Connection::new(service()).receive(bytes, &mut reply);
    (String::from_utf8(reply).unwrap(), outcome)
}

const GET: &[u8] = b"GET /latest/meta-data/system HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn head_of_a_response() {
    let (reply, outcome) = exchange(GET);
    assert_eq!(outcome, Outcome::default());
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "nitro");
    let lines: Vec<_> = head.lines().collect();
    assert_eq!(lines[0], "HTTP/1.1 200 OK");
    for line in [
        "Content-Type: text/plain",
        "Content-Length: 5",
        "Server: EC2ws",
        "Accept-Ranges: none",
        "Last-Modified: Fri, 20 Nov 2026 22:25:12 GMT",
    ] {
        assert!(lines.contains(&line), "{line} in {head}");
    }
    assert!(head.contains("\r\nDate: ") && !head.contains("Connection:"));
}

#[test]
fn any_cut_gives_the_same_answer() {
    let whole = exchange(GET).0;
    let body = |reply: &str| reply.split_once("\r\n\r\n").unwrap().1.to_owned();
    for cut in 0..GET.len() {
        let mut connection = Connection::new(service());
        let mut reply = Vec::new();
        connection.receive(&GET[..cut], &mut reply);
        assert!(reply.is_empty(), "answered after {cut} bytes");
        connection.receive(&GET[cut..], &mut reply);
        assert_eq!(body(&String::from_utf8(reply).unwrap()), body(&whole));
    }
    let mut connection = Connection::new(service());
    let mut reply = Vec::new();
    for byte in GET {
        assert!(reply.is_empty());
        connection.receive(std::slice::from_ref(byte), &mut reply);
    }
    assert!(reply.ends_with(b"nitro"));
}

#[test]
fn pipelining_and_bodies() {
    let mut bytes = b"\r\nPUT /latest/api/token HTTP/1.1\r\nContent-Length: 5\r\n\
        X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\nhello"
        .to_vec();
    bytes.extend_from_slice(GET);
    bytes.extend_from_slice(b"HEAD /latest/meta-data/system HTTP/1.1\r\n\r\n");
    bytes.extend_from_slice(GET);
    let (reply, outcome) = exchange(&bytes);
    assert_eq!(reply.matches("HTTP/1.1 200 OK").count(), 4, "{reply}");
    assert_eq!(reply.matches("nitro").count(), 2, "HEAD has no body");
    assert_eq!(outcome, Outcome { hop_limit: Some(1), ..Outcome::default() });
}

#[test]
fn keep_alive_by_version_and_header() {
    for (request, close, line) in [
        ("GET / HTTP/1.1\r\n\r\n", false, None),
        ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", true, Some("Connection: close")),
        ("GET / HTTP/1.0\r\n\r\n", true, Some("Connection: close")),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, Some("Connection: keep-alive")),
        ("PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", true, Some("Connection: close")),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", true, Some("Connection: close")),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", true, Some("Connection: close")),
    ] {
        let (reply, outcome) = exchange(request.as_bytes());
        assert_eq!(outcome.close, close, "{request}");
        match line {
            Some(line) => assert!(reply.contains(line), "{reply}"),
            None => assert!(!reply.contains("Connection"), "{reply}"),
        }
    }
}

#[test]
fn garbage_is_refused_and_the_connection_closed() {
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_HEAD));
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\x00\x00\x00",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        many_headers.as_bytes(),
        long.as_bytes(),
    ] {
        let (reply, outcome) = exchange(garbage);
        assert!(reply.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{garbage:?}: {reply}");
        assert!(outcome.close);
    }
    let mut connection = Connection::new(service());
    let mut reply = Vec::new();
    connection.receive(b"\0\r\n\r\n", &mut reply);
    reply.clear();
    assert!(connection.receive(GET, &mut reply).close && reply.is_empty(), "nothing is answered after the end");
}

#[test]
fn a_flood_of_requests_waits_for_the_reader() {
    let flood = b"GET /latest/user-data HTTP/1.1\r\n\r\n".repeat(1200);
    let mut metadata = Metadata::example();
    metadata.user_data = Some(vec![b'x'; 16_384]);
    let mut connection = Connection::new(Arc::new(Service::new(metadata, None, system_clock())));
    let (mut answers, mut calls) = (0, 0);
    let mut bytes = flood.as_slice();
    loop {
        let mut reply = Vec::new();
        let outcome = connection.receive(std::mem::take(&mut bytes), &mut reply);
        assert!(reply.len() < MAX_REPLY + 20_000, "{}", reply.len());
        answers += reply.windows(15).filter(|window| window == b"HTTP/1.1 200 OK").count();
        calls += 1;
        assert!(!outcome.close);
        if !outcome.pending {
            break;
        }
    }
    assert_eq!(answers, 1200);
    assert!(calls > 100);
    let mut reply = Vec::new();
    let outcome = connection.receive(&flood.repeat(4), &mut reply);
    assert!(outcome.close && !outcome.pending, "more than the bound without reading");
}

#[test]
fn log_has_clean_bounded_texts() {
    let entries: Arc<Mutex<Vec<LogEntry>>> = Arc::default();
    let sink = Arc::clone(&entries);
    let service =
        Service::new(Metadata::example(), None, system_clock()).with_log(move |entry| sink.lock().unwrap().push(entry));
    let mut connection = Connection::new(Arc::new(service));
    let long = format!("GET /{} HTTP/1.1\r\nUser-Agent: a\x1bb\x7f\r\n\r\n", "a".repeat(2000));
    let mut reply = Vec::new();
    connection.receive(&[GET, long.replace('\x1b', "\t").replace('\x7f', "").as_bytes(), b"\0\n"].concat(), &mut reply);
    let entries = entries.lock().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!((entries[0].path.as_str(), entries[0].status, entries[0].bytes), ("/latest/meta-data/system", 200, 5));
    assert_eq!(entries[1].path.len(), 512);
    assert_eq!(entries[1].user_agent.as_deref(), Some("a\u{fffd}b"));
    assert_eq!((entries[2].method.as_str(), entries[2].status), ("-", 400));
    let json = serde_json::to_string(&entries[0]).unwrap();
    assert!(json.contains("\"access\":\"v1\""), "{json}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let mut connection = Connection::new(service());
        let mut reply = Vec::new();
        for chunk in chunks {
            connection.receive(&chunk, &mut reply);
        }
    }

    #[test]
    fn damaged_requests_never_panic(at in 0usize..120, byte: u8, cut in 0usize..120, times in 1usize..4) {
        let mut bytes = b"PUT /latest/api/token?x=%20 HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\
            Content-Length: 4\r\nX-Forwarded-For: a\r\n\r\nabcd".to_vec();
        if let Some(target) = bytes.get_mut(at) {
            *target = byte;
        }
        let bytes = bytes.repeat(times);
        let cut = cut.min(bytes.len());
        let mut connection = Connection::new(service());
        let mut reply = Vec::new();
        connection.receive(&bytes[..cut], &mut reply);
        connection.receive(&bytes[cut..], &mut reply);
    }
}
