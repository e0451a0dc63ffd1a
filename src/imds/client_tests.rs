//! Real clients against the service: curl, botocore (with it boto3 and the AWS CLI) and cloud-init. A socket of
//! 127.0.0.1 carries the bytes that the instance's network carries otherwise.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{Access, Connection, LogEntry, Metadata, Service, system_clock};

/// The service behind a listening socket, until it is dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    log: Arc<Mutex<Vec<LogEntry>>>,
}

impl Server {
    fn start(metadata: Metadata) -> Self {
        let log: Arc<Mutex<Vec<LogEntry>>> = Arc::default();
        let sink = Arc::clone(&log);
        let service =
            Service::new(metadata, None, system_clock()).with_log(move |entry| sink.lock().unwrap().push(entry));
        let service = Arc::new(service);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let service = Arc::clone(&service);
                std::thread::spawn(move || serve(stream, service));
            }
        });
        Self { address, stop, thread: Some(thread), log }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn entries(&self) -> Vec<LogEntry> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: TcpStream, service: Arc<Service>) {
    let mut connection = Connection::new(service);
    let mut buffer = [0u8; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let mut bytes = &buffer[..length];
        loop {
            let mut reply = Vec::new();
            let outcome = connection.receive(std::mem::take(&mut bytes), &mut reply);
            if stream.write_all(&reply).is_err() || outcome.close {
                return;
            }
            if !outcome.pending {
                break;
            }
        }
    }
}

/// Run a Python program, if Python has the module that it needs.
fn python(test: &str, module: &str, program: &str, server: &Server) -> Option<String> {
    let has = |code: &str| {
        let status = Command::new("python3").args(["-c", code]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !has(&format!("import {module}")) {
        eprintln!("SKIPPED: {test} needs python3 with {module}");
        return None;
    }
    let output = Command::new("python3")
        .args(["-c", program])
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "PYTHONPATH")))
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url("/"))
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{test}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

fn required() -> Metadata {
    let mut metadata = Metadata::example();
    metadata.options = "HttpTokens=required,InstanceMetadataTags=enabled".parse().unwrap();
    metadata
}

#[test]
fn botocore_finds_region_and_metadata() {
    let server = Server::start(required());
    let program = r#"
from botocore.session import get_session
from botocore.credentials import InstanceMetadataProvider
from botocore.utils import IMDSFetcher, IMDSRegionProvider, InstanceMetadataFetcher
import os
base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
print(IMDSRegionProvider(get_session()).provide())
fetcher = IMDSFetcher(timeout=5, num_attempts=1, base_url=base)
token = fetcher._fetch_metadata_token()
print(len(token))
retry = lambda response: False
for path in ["latest/meta-data/instance-type", "latest/meta-data/public-keys/", "latest/user-data"]:
    response = fetcher._get_request(path, retry, token=token)
    print(response.status_code, response.text.strip())
provider = InstanceMetadataProvider(InstanceMetadataFetcher(timeout=5, num_attempts=1, base_url=base))
print(provider.load())
"#;
    let Some(output) = python("botocore_finds_region_and_metadata", "botocore", program, &server) else { return };
    assert_eq!(
        output, "us-east-1\n56\n200 t3.micro\n200 0=mykey\n200 #!/bin/sh\necho hello\nNone\n",
        "an instance without a role has no credentials"
    );
    let entries = server.entries();
    assert!(entries.iter().all(|entry| entry.access != Access::V1), "{entries:#?}");
    assert!(entries.iter().any(|entry| entry.user_agent.as_deref().is_some_and(|name| name.contains("otocore"))));
}

#[test]
fn botocore_gets_no_metadata_when_the_endpoint_is_off() {
    let mut metadata = Metadata::example();
    metadata.options = "HttpEndpoint=disabled".parse().unwrap();
    let server = Server::start(metadata);
    let program = r#"
from botocore.session import get_session
from botocore.utils import IMDSRegionProvider
print(IMDSRegionProvider(get_session()).provide())
"#;
    let test = "botocore_gets_no_metadata_when_the_endpoint_is_off";
    let Some(output) = python(test, "botocore", program, &server) else { return };
    assert_eq!(output, "None\n");
    assert!(server.entries().iter().all(|entry| entry.status == 403));
}

#[test]
fn cloud_init_crawls_everything() {
    let server =
        Server::start(Metadata { options: "InstanceMetadataTags=enabled".parse().unwrap(), ..Metadata::example() });
    let program = r#"
import json, os
from cloudinit.sources.helpers import ec2
base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
arguments = dict(metadata_address=base, retries=0)
metadata = ec2.get_instance_metadata("2021-03-23", **arguments)
identity = ec2.get_instance_identity("2021-03-23", **arguments)
data = ec2.get_instance_userdata("2021-03-23", **arguments)
print(json.dumps([metadata, identity, data.decode()]))
"#;
    let test = "cloud_init_crawls_everything";
    let Some(output) = python(test, "cloudinit.sources.helpers.ec2", program, &server) else { return };
    let json: serde_json::Value = serde_json::from_str(output.lines().next_back().unwrap()).unwrap();
    let example = Metadata::example();
    let mac = crate::ec2::ids::format_mac(example.network_interfaces[0].mac);
    for (pointer, value) in [
        ("/0/instance-id", example.instance_id.as_str()),
        ("/0/public-keys/mykey", example.key_pair.as_ref().unwrap().public_key.as_str()),
        (&format!("/0/network/interfaces/macs/{mac}/subnet-ipv4-cidr-block"), "172.31.0.0/20"),
        ("/0/tags/instance/Name", "example"),
        ("/1/document/region", "us-east-1"),
        ("/2", "#!/bin/sh\necho hello\n"),
    ] {
        let found = json.pointer(pointer);
        // cloud-init makes a list of a value with a new line in it.
        let found = found.map(|found| found.get(0).unwrap_or(found));
        assert_eq!(found.and_then(|found| found.as_str()), Some(value), "{pointer} in {json:#}");
    }
    assert!(server.entries().iter().all(|entry| entry.status == 200), "{:#?}", server.entries());
}

/// What scripts do.
#[test]
fn curl_with_and_without_token() {
    let server = Server::start(Metadata::example());
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl").args(["-sS", "--noproxy", "*", "--max-time", "20"]).args(arguments).output();
        output.ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(version_1) = curl(&[&server.url("/latest/meta-data/instance-id")]) else {
        eprintln!("SKIPPED: curl_with_and_without_token needs curl");
        return;
    };
    assert_eq!(version_1, Metadata::example().instance_id);
    let token =
        curl(&["-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 21600", &server.url("/latest/api/token")])
            .unwrap();
    assert_eq!(token.len(), 56, "{token}");
    let header = format!("X-aws-ec2-metadata-token: {token}");
    let url = server.url("/latest/meta-data/placement/availability-zone");
    assert_eq!(curl(&["-H", &header, &url]).unwrap(), "us-east-1a");
    let code = |arguments: &[&str]| curl(&[&["-o", "/dev/null", "-w", "%{http_code}"], arguments].concat()).unwrap();
    assert_eq!(code(&["-H", "X-aws-ec2-metadata-token: x", &url]), "401");
    assert_eq!(code(&[&server.url("/latest/meta-data/nowhere")]), "404");
    assert_eq!(code(&["-X", "PUT", &server.url("/latest/api/token")]), "400");
    assert_eq!(code(&["-X", "PUT", "--data-binary", "@/proc/self/cmdline", &server.url("/latest/api/token")]), "400");
    assert_eq!(code(&["-I", &url]), "200");
    // Two requests over one connection.
    let doubled = curl(&["-w", "[%{num_connects}]", &url, &url]).unwrap();
    assert_eq!(doubled, "us-east-1a[1]us-east-1a[0]");
    assert_eq!(curl(&["-0", &url]).unwrap(), "us-east-1a");
}
