//! Security groups before a real guest: what they keep out, what goes on, and what holds at once.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine;
use common::{Lab, lab, text};
use serde_json::Value;

/// Echoes what comes to port 81, and tells again and again whether it gets out, and what the metadata service says.
const SCRIPT: &str = r#"
net-up >/dev/null 2>&1
(while true; do nc -l -p 81 -e cat; done) &
while true; do
    [ "$(timeout 3 nc 169.254.169.250 PORT 2>/dev/null </dev/null)" = outside ] && out=yes || out=no
    echo "ROUND out=$out groups=$(wget -q -O - http://169.254.169.254/latest/meta-data/security-groups | tr '\n' ,)."
    usleep 200000
done
"#;

impl Lab {
    fn said(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        assert!(out.status.success(), "{arguments:?}");
        text(&out.stdout).trim().to_owned()
    }

    /// Wait until the guest's second next report contains `words`: the next one may have begun before.
    fn until(&self, words: &str) {
        let rounds = || {
            let console = text(&self.amiable(&["console", "walled"]).output().unwrap().stdout);
            console.lines().filter(|line| line.starts_with("ROUND")).map(str::to_owned).collect::<Vec<_>>()
        };
        let (seen, limit) = (rounds().len(), Instant::now() + Duration::from_secs(120));
        while !rounds().iter().skip(seen + 1).any(|line| line.contains(words)) {
            assert!(Instant::now() < limit, "the guest never said {words}");
        }
    }
}

fn is_silent(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let silent =
        stream.read(&mut [0; 1]).is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    silent
}

fn echoes(mut stream: &TcpStream, word: &[u8; 4]) {
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, word);
}

#[test]
fn groups_filter_a_guest_s_network() {
    let Some(lab) = lab("groups_filter_a_guest_s_network", "tiny") else { return };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || server.incoming().flatten().try_for_each(|mut stream| stream.write_all(b"outside\n")));
    let script = SCRIPT.replace("PORT", &port.to_string());
    let run = format!("tiny.run={}", base64::engine::general_purpose::STANDARD.encode(script));
    lab.said(&["security-group", "create", "wall"]);
    let launch = ["run", "tiny", "-t", "t2.nano", "-d", "--name", "walled", "-p", "0:81", "--host-loopback"];
    lab.said(&[&launch[..], &["--security-group", "wall", "--append", &run]].concat());
    let described: Value = serde_json::from_str(&lab.said(&["describe", "walled", "-o", "json"])).unwrap();
    let published = described["Amiable"]["Published"].as_array().unwrap();
    let host = published.iter().find(|port| port["GuestPort"] == 81).unwrap()["Host"].as_str().unwrap();
    let host: SocketAddr = host.parse().unwrap();
    lab.until("out=yes groups=wall.");

    // It waits as before a filter, and enters when a rule lets it in.
    let mut first = TcpStream::connect(host).unwrap();
    first.write_all(b"one\n").unwrap();
    assert!(is_silent(&first));
    let notice = lab.said(&["describe", "walled", "--query", "Amiable.Notices[-1]", "-o", "text"]);
    let (_, command) = notice.split_once("try: amiable ").unwrap();
    lab.said(&command.split(' ').collect::<Vec<_>>());
    echoes(&first, b"one\n");
    // Once inside it stays; others don't come in.
    lab.said(&["security-group", "revoke", "wall", "--protocol", "tcp", "--port", "81", "--cidr", "127.0.0.1/32"]);
    first.write_all(b"two\n").unwrap();
    echoes(&first, b"two\n");
    let mut second = TcpStream::connect(host).unwrap();
    second.write_all(b"let me in\n").unwrap();
    assert!(is_silent(&second));

    // Out of the guest the same; the metadata service is always there.
    lab.said(&["security-group", "revoke", "wall", "--egress", "--protocol", "all", "--cidr", "0.0.0.0/0"]);
    lab.until("out=no groups=wall.");
    let way_out = ["--protocol", "tcp", "--port", &port.to_string(), "--cidr", "169.254.169.250/32"];
    lab.said(&[&["security-group", "authorize", "wall", "--egress"][..], &way_out].concat());
    lab.until("out=yes groups=wall.");
    lab.said(&["modify", "walled", "--security-group", "default"]);
    lab.until("out=yes groups=default.");
    lab.said(&["terminate", "walled"]);
    lab.said(&["security-group", "rm", "wall"]);
}
