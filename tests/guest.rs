//! The Debian AMI with its stock kernel and cloud-init, on a real KVM: what user-data sees, and what verdict comes back.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{lab, text};
use flate2::write::GzEncoder;

/// Asks the guest for everything that EC2 would show, a line each.
const LOOK: &str = r#"#!/bin/bash
echo $(( $(cat /var/lib/look-runs 2>/dev/null || echo 0) + 1 )) > /var/lib/look-runs
imds=http://169.254.169.254/latest
token=$(curl -s -X PUT $imds/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 60')
say() { echo "LOOK $1=[$2]"; }
say virt "$(systemd-detect-virt)"
say nproc "$(nproc)"
say topology "$(lscpu | awk -F: '/^(Thread|Core|Socket)/ {gsub(/ /,"",$2); printf "%s/", $2}')"
say memory "$(awk '/MemTotal/ {print $2}' /proc/meminfo)"
say model "$(cat /sys/class/nvme/nvme0/model | sed 's/ *$//')"
say serial "$(cat /sys/class/nvme/nvme0/serial)"
say root "$(findmnt -no SOURCE /)"
say hostname "$(hostname)"
say nic "$(ls -d /sys/class/net/e*)"
say mtu "$(cat /sys/class/net/e*/mtu)"
say dmi "$(cat /sys/class/dmi/id/{sys_vendor,product_name,board_asset_tag} | paste -sd' ')"
say uuid "$(head -c 3 /sys/class/dmi/id/product_uuid) $(cmp /sys/class/dmi/id/product_uuid /sys/class/dmi/id/product_serial && echo same)"
say v1 "$(curl -s $imds/meta-data/instance-id)"
say v2 "$(curl -s -H "X-aws-ec2-metadata-token: $token" $imds/meta-data/instance-type)"
say public "$(curl -s -H "X-aws-ec2-metadata-token: $token" $imds/meta-data/public-ipv4)"
say bad "$(curl -s -o /dev/null -w '%{http_code}' -H 'X-aws-ec2-metadata-token: x' $imds/meta-data/)"
say region "$(curl -s $imds/dynamic/instance-identity/document | python3 -c 'import json,sys; print(json.load(sys.stdin)["region"])')"
say signed "$(curl -s $imds/dynamic/instance-identity/rsa2048 | wc -c)"
say cloud "$(cloud-init query v1.cloud_name) $(cloud-init query v1.platform)"
say config "$(cat /etc/from-cloud-config)"
say hook "$(cat /var/lib/hook-runs)"
say dns "$(getent hosts ip-172-31-9-9.ec2.internal | awk '{print $1}')"
echo "deb [trusted=yes] http://169.254.169.250:PORT/ ./" > /etc/apt/sources.list
rm -f /etc/apt/sources.list.d/*
say apt "$(apt-get update 2>&1 | grep -c 'Get:.*Packages') $(apt-cache show amiable-test | grep -c ^Package)"
systemctl reboot
"#;

const CONFIG: &str = "#cloud-config\nwrite_files:\n  - path: /etc/from-cloud-config\n    content: written\n";

const HOOK: &str = "#cloud-boothook\n#!/bin/sh\necho $(( $(cat /var/lib/hook-runs 2>/dev/null || echo 0) + 1 )) > /var/lib/hook-runs\n";

/// In the second boot: tells how often the script ran, and powers off once cloud-init had its chance to run it again.
const EVERY_BOOT: &str = "#!/bin/sh\n[ -e /var/lib/look-runs ] || exit 0\nsystemd-run --no-block sh -c 'cloud-init status --wait; \
echo \"SECOND BOOT script=$(cat /var/lib/look-runs) hook=$(cat /var/lib/hook-runs)\" > /dev/console; systemctl poweroff'\n";

fn multipart(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut message = "Content-Type: multipart/mixed; boundary=\"==BOUNDARY==\"\nMIME-Version: 1.0\n\n".to_owned();
    for (kind, content) in parts {
        message += &format!("--==BOUNDARY==\nContent-Type: {kind}; charset=\"us-ascii\"\n\n{content}\n");
    }
    message += "--==BOUNDARY==--\n";
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(message.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// A Debian archive of one package on this machine's loopback, for as long as it lives.
struct Archive {
    port: u16,
    ended: Arc<AtomicBool>,
}

impl Archive {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || {
                    let mut request = Vec::new();
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        request.extend_from_slice(&buffer[..n]);
                        while let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
                            let head = String::from_utf8_lossy(&request[..end]).into_owned();
                            request.drain(..end + 4);
                            let answer = if head.starts_with("GET /./Packages ") {
                                let body = "Package: amiable-test\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.com>\nDescription: test\nFilename: ./x.deb\nSize: 1\nMD5sum: d41d8cd98f00b204e9800998ecf8427e\n\n";
                                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                            } else {
                                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()
                            };
                            if stream.write_all(answer.as_bytes()).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Archive { port, ended }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
    }
}

#[test]
fn one_boot_shows_ec2_and_a_reboot_does_not_run_user_data_again() {
    let Some(lab) = lab("one_boot_shows_ec2", "debian-12") else { return };
    let archive = Archive::new();
    let data = multipart(&[
        ("text/cloud-config", CONFIG),
        ("text/cloud-boothook", HOOK),
        ("text/x-shellscript", &LOOK.replace("PORT", &archive.port.to_string())),
        ("text/x-shellscript-per-boot", EVERY_BOOT),
    ]);
    let data = lab.file("everything.mime.gz", &data);
    let out = lab.run(&[
        "run",
        "debian-12",
        "-t",
        "t3.small",
        "-u",
        &data,
        "--host-loopback",
        "--name",
        "looked-at",
        "--timeout",
        "9m",
    ]);
    let console = text(&out.stdout);
    let log = text(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "the guest powers itself off");

    let seen = |name: &str| {
        let start = console.find(&format!("LOOK {name}=[")).unwrap_or_else(|| panic!("no {name} in the console"));
        let rest = &console[start..];
        let rest = &rest[rest.find('[').unwrap() + 1..];
        rest[..rest.find(']').unwrap()].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let instance = lab.amiable(&["describe", "looked-at", "-o", "json"]).output().unwrap();
    let instance: serde_json::Value = serde_json::from_slice(&instance.stdout).unwrap();
    let id = instance["InstanceId"].as_str().unwrap();

    assert_eq!(seen("virt"), "amazon");
    assert_eq!(seen("nproc"), "2");
    assert_eq!(seen("topology"), "2/1/1/", "threads per core, cores, sockets of a t3.small");
    let memory: u64 = seen("memory").parse().unwrap();
    assert!((1_900_000..=2_097_152).contains(&memory), "MemTotal {memory} kB of 2 GiB");
    assert_eq!(seen("model"), "Amazon Elastic Block Store");
    assert_eq!(seen("serial"), instance["RootVolumeId"].as_str().unwrap().replace('-', ""));
    assert_eq!(seen("root"), "/dev/nvme0n1p1");
    assert_eq!(seen("hostname"), "ip-172-31-0-10");
    assert_eq!(seen("nic"), "/sys/class/net/ens5");
    assert_eq!(seen("mtu"), "9001");
    assert_eq!(seen("dmi"), format!("Amazon EC2 t3.small {id}"));
    assert_eq!(seen("uuid"), "ec2 same");
    assert_eq!(seen("v1"), id);
    assert_eq!(seen("v2"), "t3.small");
    assert_eq!(seen("public"), "198.18.0.10");
    assert_eq!(seen("bad"), "401");
    assert_eq!(seen("region"), "us-east-1");
    assert!(seen("signed").parse::<u32>().unwrap() > 1000, "a PKCS #7 signature");
    assert_eq!(seen("cloud"), "aws ec2");
    assert_eq!(seen("config"), "written");
    assert_eq!(seen("hook"), "1");
    assert_eq!(seen("dns"), "172.31.9.9");
    assert_eq!(seen("apt"), "1 1", "apt-get update through NAT");
    assert!(console.contains("Datasource DataSourceEc2Local."), "cloud-init's own word");
    assert!(console.contains("SECOND BOOT script=1 hook=2"), "per instance and per boot");
    for stage in ["machine", "dhcp", "imds", "cloud-init-final", "user-data", "reboot", "power-off"] {
        assert!(log.contains(stage), "no stage {stage}");
    }

    let requests = text(&lab.amiable(&["imds-log", id]).output().unwrap().stdout);
    assert!(requests.contains("token PUT  /latest/api/token -> 200"), "{requests}");
    assert!(requests.contains("-> 401"));
    assert!(text(&lab.amiable(&["console", id]).output().unwrap().stdout).contains("LOOK virt=[amazon]"));
    assert!(lab.amiable(&["terminate", id]).status().unwrap().success());
}

#[test]
fn a_script_s_exit_status_is_the_test_s() {
    let Some(lab) = lab("a_script_s_exit_status", "debian-12") else { return };
    let script = lab.file("seven.sh", b"#!/bin/bash\necho before\necho last words >&2\nexit 7\n");
    let out = lab.run(&["test", &script, "-t", "t2.small", "--timings", "json", "--timeout", "8m"]);
    assert_eq!(out.status.code(), Some(7));
    let log = text(&out.stderr);
    assert!(log.contains("part-001 failed with exit status 7"));
    assert!(log.contains("| last words"));
    let timings: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        timings["Verdict"]["outcome"]["ExitCode"].as_i64().or(timings["Verdict"]["Outcome"]["ExitCode"].as_i64()),
        Some(7)
    );
    let kept = log.lines().find_map(|l| l.strip_prefix("full logs: ")).unwrap();
    let output = std::fs::read_to_string(format!("{kept}/guest-logs/cloud-init-output.log")).unwrap();
    assert!(output.contains("last words"));
    assert!(!text(&lab.amiable(&["ls"]).output().unwrap().stdout).contains("i-"), "nothing is left of a test");
}

/// Its cloud-init has all stages in one process, and systemd and kernel are two years younger.
#[test]
fn debian_13_gives_the_same_verdict() {
    let Some(lab) = lab("debian_13_gives_the_same_verdict", "debian-13") else { return };
    let script = lab
        .file("seven.sh", b"#!/bin/bash\n. /etc/os-release\necho \"$ID $VERSION_ID $(systemd-detect-virt)\"\nexit 7\n");
    let out = lab.run(&["test", &script, "--image", "debian-13", "-t", "t2.small", "--timeout", "8m"]);
    assert_eq!(out.status.code(), Some(7));
    let log = text(&out.stderr);
    assert!(log.contains("part-001 failed with exit status 7"));
    assert!(log.contains("its last lines:\n  | debian 13 amazon\n"), "{log}");
    assert!(log.contains("DataSourceEc2Local"));
}

#[test]
fn a_script_that_hangs_ends_with_124_and_what_it_did() {
    let Some(lab) = lab("a_script_that_hangs", "debian-12") else { return };
    let script = lab.file("hang.sh", b"#!/bin/bash\necho waiting for Godot\nsleep infinity\n");
    // Long enough to come to the script in an emulated host.
    let out = lab.run(&["test", &script, "-t", "t2.small", "--timeout", "240s"]);
    assert_eq!(out.status.code(), Some(124));
    let log = text(&out.stderr);
    assert!(log.contains("time-out; the guest was in: cloud-init-final"), "{log}");
    assert!(log.contains("waiting for Godot"));
    assert!(log.contains("last metadata request: "));
}
