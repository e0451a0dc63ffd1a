use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use super::catalogue::version_order;
use super::checksum::{Hasher, parse_manifest};
use super::test_server::{Page, Request, Server};
use super::*;

struct Rig {
    server: Server,
    dir: tempfile::TempDir,
    client: Client,
}

impl Rig {
    fn new() -> Rig {
        let client = Client { attempts: 3, pause: Duration::ZERO, ..Client::new() };
        Rig { server: Server::start(), dir: tempfile::tempdir().unwrap(), client }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("image.qcow2")
    }

    fn download(&self, url: &str, checksum: Option<Checksum>) -> Result<Downloaded, PullError> {
        let remote = Remote { url: url.into(), file_name: "image.qcow2".into(), checksum };
        self.client.download(&remote, &self.target(), &mut |_, _| ControlFlow::Continue(()))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn sum(bytes: &[u8]) -> Checksum {
    let mut hasher = Hasher::like(Some(&Checksum::Sha512([0; 64])));
    hasher.update(bytes);
    hasher.finish()
}

#[test]
fn a_file_arrives_whole_and_verified() {
    let rig = Rig::new();
    let bytes = content(1_000_000);
    let url = rig.server.put("/i", Page::ok(bytes.clone()));
    let mut seen = Vec::new();
    let remote = Remote { url, file_name: "i".into(), checksum: Some(sum(&bytes)) };
    let done = rig.client.download(&remote, &rig.target(), &mut |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    });
    assert_eq!(done.unwrap(), Downloaded { size: 1_000_000, checksum: sum(&bytes) });
    assert!(std::fs::read(rig.target()).unwrap() == bytes);
    assert_eq!(rig.names(), ["image.qcow2"]);
    assert_eq!((seen[0], *seen.last().unwrap()), ((0, Some(1_000_000)), (1_000_000, Some(1_000_000))));
}

#[test]
fn a_broken_transfer_goes_on_by_itself() {
    let rig = Rig::new();
    let bytes = content(500_000);
    let url = rig.server.put("/i", Page { cuts: vec![100_000, 50_000, 0], ..Page::ok(bytes.clone()) });
    rig.download(&url, Some(sum(&bytes))).unwrap();
    assert!(std::fs::read(rig.target()).unwrap() == bytes);
    let requests = rig.server.requests();
    let ranges: Vec<_> = requests.iter().map(|r| r.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-"), Some("bytes=150000-"), Some("bytes=150000-")]);
    assert!(requests[1..].iter().all(|r| r.if_range.as_deref() == Some("\"v1\"")));
}

#[test]
fn a_later_call_goes_on_where_an_earlier_one_stopped() {
    let rig = Rig::new();
    let bytes = content(500_000);
    let url = rig.server.put("/i", Page { cuts: vec![100_000, 0, 0, 0], ..Page::ok(bytes.clone()) });
    assert!(matches!(rig.download(&url, None), Err(PullError::BrokenOff { done: 100_000, .. })));
    assert_eq!(rig.names(), ["image.qcow2.part", "image.qcow2.part.from"]);
    rig.server.requests();
    rig.server.put("/i", Page::ok(bytes.clone()));
    assert_eq!(rig.download(&url, None).unwrap().size, 500_000);
    let expected = Request { path: "/i".into(), range: Some("bytes=100000-".into()), if_range: Some("\"v1\"".into()) };
    assert_eq!(rig.server.requests(), [expected]);
    assert!(std::fs::read(rig.target()).unwrap() == bytes);
    assert_eq!(rig.names(), ["image.qcow2"]);
}

#[test]
fn a_caller_can_stop_and_all_is_kept() {
    let rig = Rig::new();
    let bytes = content(2_000_000);
    let url = rig.server.put("/i", Page::ok(bytes.clone()));
    let remote = Remote { url: url.clone(), file_name: "i".into(), checksum: None };
    let stop = rig.client.download(&remote, &rig.target(), &mut |done, _| {
        if done > 300_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stop, Err(PullError::Interrupted)));
    let kept = std::fs::metadata(rig.dir.path().join("image.qcow2.part")).unwrap().len();
    assert!(kept > 300_000);
    rig.server.requests();
    rig.download(&url, Some(sum(&bytes))).unwrap();
    assert_eq!(rig.server.requests()[0].range, Some(format!("bytes={kept}-")));
}

#[test]
fn a_changed_file_comes_whole() {
    let rig = Rig::new();
    let url = rig.server.put("/i", Page { cuts: vec![10_000, 0, 0], ..Page::ok(content(50_000)) });
    rig.download(&url, None).unwrap_err();
    let new = content(60_000).split_off(7);
    rig.server.put("/i", Page { etag: Some("\"v2\""), ..Page::ok(new.clone()) });
    rig.download(&url, None).unwrap();
    assert!(std::fs::read(rig.target()).unwrap() == new);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let rig = Rig::new();
    let bytes = content(50_000);
    let page = Page { ranges: false, etag: None, cuts: vec![20_000, 30_000], ..Page::ok(bytes.clone()) };
    let url = rig.server.put("/i", page);
    rig.download(&url, Some(sum(&bytes))).unwrap();
    assert!(std::fs::read(rig.target()).unwrap() == bytes);
}

#[test]
fn pieces_of_two_files_are_found_out_by_the_checksum() {
    let rig = Rig::new();
    let (old, new) = (content(50_000), content(50_001).split_off(1));
    // No validator at all: only the checksum can tell.
    let page = |bytes: &[u8]| Page { etag: None, ..Page::ok(bytes) };
    let url = rig.server.put("/i", Page { cuts: vec![20_000, 0, 0], ..page(&old) });
    rig.download(&url, Some(sum(&new))).unwrap_err();
    rig.server.put("/i", page(&new));
    rig.download(&url, Some(sum(&new))).unwrap();
    assert!(std::fs::read(rig.target()).unwrap() == new);
    // Without a checksum such a part is not used.
    let url = rig.server.put("/j", Page { cuts: vec![20_000, 0, 0], ..page(&old) });
    rig.download(&url, None).unwrap_err();
    rig.server.put("/j", page(&new));
    rig.download(&url, None).unwrap();
    assert!(std::fs::read(rig.target()).unwrap() == new);
}

#[test]
fn a_complete_part_needs_no_more_bytes() {
    let rig = Rig::new();
    let bytes = content(5000);
    let url = rig.server.put("/i", Page::ok(bytes.clone()));
    std::fs::write(rig.dir.path().join("image.qcow2.part"), &bytes).unwrap();
    std::fs::write(rig.dir.path().join("image.qcow2.part.from"), format!("{url}\n\"v1\"")).unwrap();
    assert_eq!(rig.download(&url, None).unwrap().size, 5000);
    assert_eq!(rig.server.requests().len(), 1);
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let rig = Rig::new();
    let url = rig.server.put("/i", Page::ok(content(5000)));
    let error = rig.download(&url, Some(sum(b"other"))).unwrap_err();
    assert!(matches!(error, PullError::WrongChecksum { .. }));
    assert!(error.to_string().contains(&sum(&content(5000)).to_string()), "{error}");
    assert!(rig.names().is_empty());
}

#[test]
fn answers_of_the_server_are_told_apart() {
    let rig = Rig::new();
    let gone = format!("{}/gone", rig.server.url);
    assert!(matches!(rig.download(&gone, None), Err(PullError::NotFound { status: 404, .. })));
    assert_eq!(rig.server.requests().len(), 1, "a missing file is not asked for again");
    let url = rig.server.put("/busy", Page { failures: vec![503, 500], ..Page::ok("x") });
    rig.download(&url, None).unwrap();
    let url = rig.server.put("/down", Page { failures: vec![503; 9], ..Page::ok("x") });
    assert!(matches!(rig.download(&url, None), Err(PullError::Status { status: 503, .. })));
    let url = rig.server.put("/no", Page { status: 403, ..Page::ok("x") });
    assert!(matches!(rig.download(&url, None), Err(PullError::Status { status: 403, .. })));
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = rig.download(&format!("http://{free}/i"), None).unwrap_err();
    assert!(matches!(error, PullError::Connection { .. }), "{error:?}");
}

#[test]
fn redirects_and_sizes_are_bounded() {
    let rig = Rig::new();
    let url = rig.server.put("/loop", Page { status: 302, location: Some("/loop".into()), ..Page::ok("") });
    assert!(matches!(rig.download(&url, None), Err(PullError::Connection { .. })));
    assert!(rig.server.requests().len() <= 6);
    let small = Client { max_size: 4000, ..Client { attempts: 1, pause: Duration::ZERO, ..Client::new() } };
    let url = rig.server.put("/big", Page::ok(content(5000)));
    let remote = Remote { url, file_name: "i".into(), checksum: None };
    let result = small.download(&remote, &rig.target(), &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(result, Err(PullError::TooLarge { max: 4000, .. })));
    let url = rig.server.put("/text", Page::ok(vec![b'x'; (4 << 20) + 1]));
    assert!(matches!(rig.client.text(&url), Err(PullError::TooLarge { .. })));
}

#[test]
fn one_download_at_a_time() {
    let rig = Rig::new();
    let url = rig.server.put("/i", Page::ok(content(5000)));
    let part = std::fs::File::create(rig.dir.path().join("image.qcow2.part")).unwrap();
    part.lock().unwrap();
    assert!(matches!(rig.download(&url, None), Err(PullError::Busy(_))));
    drop(part);
    rig.download(&url, None).unwrap();
}

#[test]
fn the_newest_image_of_a_manifest_behind_a_redirect() {
    let rig = Rig::new();
    let image = catalogue::find("amazonlinux-2023").unwrap();
    let (old, new) = (sum(b"old"), sum(b"new"));
    let hex = |checksum: &Checksum| checksum.to_string()[7..].to_string();
    let name = |version: &str| format!("al2023-kvm-2023.{version}-kernel-6.1-x86_64.xfs.gpt.qcow2");
    let (newer, older) = (name("12.20260909.0"), name("9.20251231.0"));
    let manifest = format!("{}  {newer}\n{} *{older}\n{}  other.qcow2\n", hex(&new), hex(&old), hex(&old));
    rig.server.put("/os-images/2023.12/kvm/SHA256SUMS", Page::ok(manifest));
    let location = Some("/os-images/2023.12/kvm/SHA256SUMS".into());
    let url = rig.server.put("/os-images/latest/kvm/SHA256SUMS", Page { status: 302, location, ..Page::ok("") });
    let remote = image.newest_in_manifest(&rig.client, &url).unwrap();
    assert_eq!(remote.url, format!("{}/os-images/2023.12/kvm/{newer}", rig.server.url));
    assert_eq!((remote.file_name, remote.checksum), (newer, Some(new)));
    // Nothing that fits: say what was looked for.
    let url = rig.server.put("/SUMS", Page::ok("404 not found, but as 200"));
    let text = image.newest_in_manifest(&rig.client, &url).unwrap_err().to_string();
    assert!(text.contains("al2023-kvm-2023.") && text.contains("image import"), "{text}");
}

#[test]
fn the_newest_image_of_a_folder() {
    let rig = Rig::new();
    let image = catalogue::find("alpine-3.22").unwrap();
    let name = |version| format!("aws_alpine-3.22.{version}-x86_64-uefi-cloudinit-r0.vhd");
    let links: String = [name("9"), name("10"), name("2"), format!("{}.sha512", name("11")), "../".into()]
        .iter()
        .map(|name| format!("<a href=\"{name}\">{name}</a>\n"))
        .collect();
    let url = rig.server.put("/cloud/", Page::ok(links));
    let hex = sum(b"image").to_string()[7..].to_string();
    rig.server.put(&format!("/cloud/{}.sha512", name("10")), Page::ok(format!("{hex}\n")));
    let remote = image.newest_in_folder(&rig.client, &url, ".sha512").unwrap();
    assert_eq!(remote.url, format!("{}/cloud/{}", rig.server.url, name("10")));
    assert_eq!(remote.checksum, Some(sum(b"image")));
}

#[test]
fn manifests_of_all_kinds() {
    let sha256 = "ab".repeat(32);
    let sha512 = "cd".repeat(64);
    let text = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# a.qcow2: 1234 bytes\nSHA256 (a.qcow2) = {sha256}\n\
         {sha512}  b.img\n{sha256} *c.img\n{sha512}  ./d.img\n{sha256}  ../evil\n{sha256}  .hidden\n{sha256}  x/y\n\
         SHA512 (e.raw.xz) = {sha512}\nSHA256 (short) = abcd\n"
    );
    let parsed = parse_manifest(&text);
    let names: Vec<&str> = parsed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.qcow2", "b.img", "c.img", "d.img", "e.raw.xz"]);
    assert_eq!(parsed[0].1, Checksum::Sha256([0xab; 32]));
    assert_eq!(parsed[4].1, Checksum::Sha512([0xcd; 64]));
    assert_eq!(parse_manifest(&sha512), [(String::new(), Checksum::Sha512([0xcd; 64]))]);
}

#[test]
fn checksums_as_people_type_them() {
    let hex = "ab".repeat(32);
    assert_eq!(hex.parse(), Ok(Checksum::Sha256([0xab; 32])));
    assert_eq!(format!("sha256:{hex}").parse(), Ok(Checksum::Sha256([0xab; 32])));
    for bad in [format!("sha512:{hex}"), "xyz".into(), String::new(), format!("md5:{hex}")] {
        assert!(bad.parse::<Checksum>().is_err(), "{bad}");
    }
}

#[test]
fn versions_are_compared_as_numbers() {
    let mut names = ["a-3.22.10", "a-3.22.9", "a-3.22.9-r1", "a-3.3.1", "Rocky-9.latest", "Rocky-9-9.8"];
    names.sort_by(|a, b| version_order(a, b));
    assert_eq!(names, ["Rocky-9-9.8", "Rocky-9.latest", "a-3.3.1", "a-3.22.9", "a-3.22.9-r1", "a-3.22.10"]);
}

#[test]
fn the_catalogue_is_in_order() {
    let mut names: Vec<_> = catalogue::IMAGES.iter().map(|image| image.name).collect();
    for wanted in ["debian-12", "ubuntu-24.04", "amazonlinux-2023", "fedora-43", "rocky-9", "alpine-3.22"] {
        assert!(names.contains(&wanted));
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), catalogue::IMAGES.len());
    let text = catalogue::find("windows").unwrap_err().to_string();
    assert!(text.contains("\"windows\"") && text.contains("debian-12, "), "{text}");
}

#[test]
fn file_names_of_addresses() {
    let name = |url| Remote::from_url(url, None).map(|remote| remote.file_name).map_err(|error| error.to_string());
    assert_eq!(name("https://h/a/b%20c.qcow2?x=/y").as_deref(), Ok("b_20c.qcow2"));
    for bad in ["https://h", "https://h/", "https://h/a/..", "ftp://h/a", "/etc/passwd"] {
        assert!(name(bad).is_err(), "{bad}");
    }
}
