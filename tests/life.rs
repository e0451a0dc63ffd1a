//! An instance's life with a stock Debian and its cloud-init: two stories, because every boot is dear. In the first it is launched in the
//! background, logged in to, gets a volume and loses it again, and becomes an AMI whose instance runs *its* user-data. In the second it
//! is rebooted, stopped and started.

mod common;

use common::{Lab, lab, text};

/// Run it; it must succeed. Answers standard output.
fn ok(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {:?}", output.status);
    text(&output.stdout).trim().to_owned()
}

/// Launch a Debian with user-data, and wait for that. A guest that hangs is found out.
fn launch(lab: &Lab, data: &str) -> String {
    let words = "run debian-12 -t t2.small --name web -d --wait user-data --timeout 8m -u".split(' ');
    ok(lab, &words.chain([data]).collect::<Vec<_>>())
}

/// Wait in the guest for something, and answer what it says.
fn guest(lab: &Lab, script: &str) -> String {
    ok(lab, &["exec", "web", script])
}

/// A guest's shell: until a command succeeds.
fn wait_for(command: &str) -> String {
    format!("for i in $(seq 120); do {command} && break; sleep 1; done; {command} || exit 99; ")
}

#[test]
fn an_instance_lives_as_at_ec2() {
    let Some(lab) = lab("an_instance_lives_as_at_ec2", "debian-12") else { return };
    let first = lab.file("first.sh", b"#!/bin/bash\necho first >> /root/runs\n");
    let second = lab.file(
        "second.sh",
        b"#!/bin/bash\ncat /root/runs\necho second >> /root/runs\nmount /dev/nvme1n1 /mnt && cat /mnt/note\nexit 5\n",
    );
    let id = launch(lab, &first);
    assert!(id.starts_with("i-"), "{id}");

    // ssh, exec and cp: no question asked, the command's own status, no known_hosts of the user touched.
    assert_eq!(guest(lab, "id -un; sudo cat /root/runs"), "admin\nfirst");
    assert_eq!(lab.run(&["exec", "web", "exit 9"]).status.code(), Some(9));
    let file = lab.file("to-copy", b"copied\n");
    ok(lab, &["cp", &file, "web:/tmp/copy"]);
    let back = lab.path("copied-back");
    ok(lab, &["cp", "web:/tmp/copy", back.to_str().unwrap()]);
    assert_eq!(std::fs::read(&back).unwrap(), b"copied\n");
    assert!(ok(lab, &["logs", "web"]).contains("Cloud-init v."));

    // Tags and metadata options change while it runs, and the guest sees it.
    ok(lab, &["modify", "web", "--metadata-options", "InstanceMetadataTags=enabled,HttpTokens=required"]);
    ok(lab, &["tag", "add", "web", "colour=blue"]);
    let imds = "T=$(curl -s -X PUT http://169.254.169.254/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 60'); \
                curl -s -H \"X-aws-ec2-metadata-token: $T\" http://169.254.169.254/latest/meta-data/tags/instance/colour; echo; \
                curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/instance-id";
    assert_eq!(guest(lab, imds), "blue\n401");

    // A volume with data: plugged in, written, snapshotted while it is written, unplugged ten times under load.
    ok(lab, &["volume", "create", "--size", "1G", "--name", "data"]);
    assert_eq!(ok(lab, &["volume", "attach", "data", "web"]), "/dev/sdf");
    let mounted = guest(
        lab,
        &(wait_for("test -b /dev/nvme1n1")
            + "sudo mkfs.ext4 -q /dev/nvme1n1 && sudo mount /dev/nvme1n1 /mnt && echo kept | sudo tee /mnt/note && sync && \
               cat /sys/block/nvme1n1/device/serial"),
    );
    let volume = ok(lab, &["volume", "describe", "data", "-o", "text", "--query", "VolumeId"]);
    assert!(mounted.starts_with("kept") && mounted.contains(&volume.replace('-', "")), "{mounted} {volume}");
    ok(lab, &["snapshot", "create", "data", "--name", "with-note"]);
    guest(lab, "echo later | sudo tee -a /mnt/note; sudo umount /mnt; sync");
    for round in 0..10 {
        ok(lab, &["volume", "detach", "data"]);
        guest(lab, &wait_for("test ! -e /dev/nvme1n1"));
        ok(lab, &["volume", "attach", "data", "web"]);
        let load = "sudo timeout 20 dd if=/dev/nvme1n1 of=/dev/null bs=1M >/dev/null 2>&1 & sleep 0.2; echo loaded";
        assert!(guest(lab, &(wait_for("test -b /dev/nvme1n1") + load)).contains("loaded"), "round {round}");
    }
    ok(lab, &["volume", "detach", "data"]);
    // What the snapshot holds is what was there then; and a larger volume from it grows into its size.
    ok(lab, &["volume", "create", "--snapshot", "with-note", "--size", "2G", "--name", "copy"]);
    ok(lab, &["volume", "attach", "copy", "web", "--device", "/dev/sdg"]);
    let seen = guest(
        lab,
        &(wait_for("test -b /dev/nvme1n1")
            + "sudo mount /dev/nvme1n1 /mnt && cat /mnt/note; cat /sys/block/nvme1n1/size; sudo umount /mnt"),
    );
    assert_eq!(seen, "kept\n4194304");
    // It grows while it is in use.
    ok(lab, &["volume", "resize", "copy", "3G"]);
    guest(lab, &wait_for("test $(cat /sys/block/nvme1n1/size) = 6291456"));

    // An AMI of it while it runs; its instance has its own identity and runs its own user-data.
    let image = ok(lab, &["image", "create", "--from", "web", "--name", "golden", "--no-reboot"]);
    assert!(image.starts_with("ami-"), "{image}");
    // What it writes after that is found, too, though it lies in another layer.
    guest(lab, "echo after the AMI | sudo tee -a /var/log/cloud-init-output.log");
    assert!(ok(lab, &["logs", "web"]).contains("after the AMI"));
    ok(lab, &["terminate", "web"]);
    let words = "run golden -t t2.small --name other -d --wait user-data --timeout 8m -u".split(' ');
    let test = lab.run(&words.chain([&*second]).collect::<Vec<_>>());
    assert_eq!(test.status.code(), Some(5), "the AMI's instance ran its own user-data");
    assert!(text(&test.stderr).contains("first"), "and found what the AMI had");
    assert!(text(&test.stderr).contains("kept"), "and what was on the volume that the AMI's instance had");
    // The volume outlived the instance.
    assert_eq!(ok(lab, &["volume", "describe", "copy", "-o", "text", "--query", "State"]), "available");
    // It moves to the other one, with what it holds. nvme1n1 is the volume that the AMI made.
    ok(lab, &["volume", "attach", "copy", "other"]);
    let mounted = wait_for("test -b /dev/nvme2n1") + "sudo mount /dev/nvme2n1 /media && cat /media/note";
    assert_eq!(ok(lab, &["exec", "other", &mounted]), "kept");
    ok(lab, &["terminate", "other"]);
    ok(lab, &["volume", "rm", "copy", "data"]);
    ok(lab, &["snapshot", "rm", "with-note"]);
    ok(lab, &["image", "rm", "golden"]);
}

#[test]
fn an_instance_is_rebooted_stopped_and_started() {
    let Some(lab) = lab("an_instance_is_rebooted", "debian-12") else { return };
    let first = lab.file("first.sh", b"#!/bin/bash\necho first >> /root/runs\n");
    launch(lab, &first);
    ok(lab, &["volume", "create", "--size", "1G", "--name", "data"]);
    ok(lab, &["volume", "attach", "data", "web"]);
    // Reboot: the same instance, the same process, the volume still there; user-data does not run again.
    let boot = guest(lab, "cat /proc/sys/kernel/random/boot_id");
    let address = ok(lab, &["describe", "web", "-o", "text", "--query", "PrivateIpAddress"]);
    ok(lab, &["reboot", "web"]);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(600);
    loop {
        let again = lab.run(&["exec", "web", "cat /proc/sys/kernel/random/boot_id"]);
        if again.status.success() && text(&again.stdout).trim() != boot {
            break;
        }
        assert!(std::time::Instant::now() < limit, "the guest did not come back");
        // The guest is asked again; it tells nobody that its SSH server is up but by answering.
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    assert_eq!(guest(lab, "sudo cat /root/runs; test -b /dev/nvme1n1 && echo there"), "first\nthere");

    // An AMI of it, with a stop and a start in between.
    let image = ok(lab, &["image", "create", "--from", "web", "--name", "golden"]);
    assert!(image.starts_with("ami-"), "{image}");
    assert_eq!(ok(lab, &["describe", "web", "-o", "text", "--query", "State.Name"]), "running");
    assert_eq!(ok(lab, &["describe", "web", "-o", "text", "--query", "PrivateIpAddress"]), address);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(600);
    while !lab.run(&["exec", "web", "true"]).status.success() {
        assert!(std::time::Instant::now() < limit, "the guest did not come back");
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    assert_eq!(guest(lab, "sudo cat /root/runs; test -b /dev/nvme1n1 && echo there"), "first\nthere");
    ok(lab, &["terminate", "web"]);
    ok(lab, &["volume", "rm", "data"]);
    ok(lab, &["image", "rm", "golden"]);
}
