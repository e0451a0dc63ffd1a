//! The life of instances: launched, stopped, started, terminated, and killed. The guest is the payload of `common::payload`, so a
//! KVM in software does; processes, store, volumes and records are the real ones.

#[path = "common/home.rs"]
mod home;

use std::process::{Command, Stdio};

use home::{home, until};
use serde_json::Value;

#[test]
fn an_instance_lives_stops_starts_and_ends() {
    let Some(home) = home("an_instance_lives") else { return };
    let id = home.launch(&["--name", "web", "--tag", "env=dev"]);
    assert!(id.starts_with("i-") && id.len() == 19, "{id}");
    assert_eq!(home.state("web"), "running");
    assert!(home.ok(&["ls"]).contains("running"));
    let before = home.describe("web");
    assert!(home.process(&id) > 0);
    home.fails(&["modify", "web", "-t", "t2.micro"], 254, "IncorrectInstanceState");
    home.fails(&["start", "web"], 254, "IncorrectInstanceState");

    assert_eq!(home.ok(&["stop", "--force", "web"]), format!("{id}  running -> stopped"));
    let stopped = home.describe(&id);
    assert_eq!(stopped["State"]["Code"], 80);
    assert_eq!(stopped["StateReason"]["Code"], "Client.UserInitiatedShutdown");
    assert!(stopped["StateTransitionReason"].as_str().unwrap().starts_with("User initiated (20"));
    assert!(stopped["Amiable"]["ProcessId"].is_null());
    assert!(stopped["PublicIpAddress"].is_null() && stopped["PublicDnsName"].is_null());
    assert_eq!(home.ok(&["stop", "web"]), format!("{id}  stopped -> stopped"));
    home.fails(&["reboot", "web"], 254, "IncorrectInstanceState");

    home.ok(&["modify", "web", "-t", "t2.micro", "--termination-protection", "true"]);
    assert_eq!(home.ok(&["start", &id[..10]]), format!("{id}  stopped -> running"));
    let again = home.describe(&id);
    assert_eq!(again["InstanceType"], "t2.micro");
    let public = |instance: &Value| instance["PublicIpAddress"].as_str().unwrap().to_owned();
    assert_ne!(public(&before), public(&again));
    let filter = format!("ip-address={}", public(&again));
    assert_eq!(home.list(&["ls", "--filters", &filter], "Instances").len(), 1);
    assert_eq!(again["PublicDnsName"], format!("ec2-{}.compute-1.amazonaws.com", public(&again).replace('.', "-")));
    for kept in ["PrivateIpAddress", "NetworkInterfaceId", "RootVolumeId", "ReservationId"] {
        assert_eq!(before[kept], again[kept], "{kept}");
    }
    home.fails(&["terminate", &id], 254, "OperationNotPermitted");
    home.ok(&["modify", &id, "--termination-protection", "false"]);
    assert_eq!(home.volumes(), 2);
    assert_eq!(home.ok(&["terminate", "web"]), format!("{id}  running -> terminated"));
    assert_eq!(home.ok(&["terminate", &id]), format!("{id}  terminated -> terminated"));
    assert_eq!(home.volumes(), 0);
    assert!(!home.ok(&["ls"]).contains(&id));
    home.fails(&["start", &id], 254, "IncorrectInstanceState");
    home.fails(&["describe", "nobody"], 254, "InvalidInstanceID.NotFound");
}

#[test]
fn a_guest_that_powers_off_stops_or_terminates() {
    let Some(home) = home("a_guest_that_powers_off") else { return };
    let stops = home.launch(&[]);
    home.types(&stops, "p");
    home.ok(&["wait", "stopped", &stops, "--timeout", "60s"]);
    assert_eq!(home.describe(&stops)["StateReason"]["Code"], "Client.InstanceInitiatedShutdown");
    let ends = home.launch(&["--shutdown-behavior", "terminate"]);
    home.types(&ends, "p");
    home.ok(&["wait", "terminated", &ends, "--timeout", "60s"]);
    assert_eq!(home.describe(&ends)["StateReason"]["Code"], "Client.InstanceInitiatedShutdown");
}

#[test]
fn a_guest_that_resets_runs_on() {
    let Some(home) = home("a_guest_that_resets") else { return };
    let id = home.launch(&[]);
    let pid = home.process(&id);
    home.types(&id, "r");
    until("the guest greets a second time", || home.ok(&["console", &id]).matches('R').count() == 2);
    assert_eq!((home.state(&id).as_str(), home.process(&id)), ("running", pid));
}

#[test]
fn a_killed_process_leaves_a_stopped_instance() {
    let Some(home) = home("a_killed_process") else { return };
    let id = home.launch(&[]);
    home.kill(home.process(&id));
    until("the process is gone", || home.state(&id) == "stopped");
    assert_eq!(home.describe(&id)["StateReason"]["Code"], "Server.InternalError");
    assert_eq!(home.ok(&["start", &id]), format!("{id}  stopped -> running"));
    assert_eq!(home.ok(&["terminate", &id]), format!("{id}  running -> terminated"));
}

#[test]
fn several_are_launched_at_once() {
    let Some(home) = home("several_are_launched") else { return };
    let ids = home.launch(&["-n", "3"]);
    let ids: Vec<&str> = ids.lines().collect();
    let described: Vec<Value> = ids.iter().map(|id| home.describe(id)).collect();
    for (index, instance) in described.iter().enumerate() {
        assert_eq!(instance["AmiLaunchIndex"], index);
        assert_eq!(instance["ReservationId"], described[0]["ReservationId"]);
        assert_eq!(instance["State"]["Name"], "running");
    }
    assert_ne!(described[0]["PrivateIpAddress"], described[1]["PrivateIpAddress"]);
    let mut terminate = vec!["terminate"];
    terminate.extend(&ids);
    home.ok(&terminate);
}

#[test]
fn a_command_that_is_killed_takes_its_throw_away_instance_with_it() {
    let Some(home) = home("a_command_that_is_killed") else { return };
    let payload = home.payload.to_str().unwrap();
    let mut run = home
        .command(&["run", "tiny", "-t", "t2.nano", "--rm", "--kernel", payload])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut greeting = [0; 1];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut greeting).unwrap();
    assert_eq!(&greeting, b"R");
    until("its record says so", || home.ok(&["ls"]).contains("running"));
    run.kill().unwrap();
    run.wait().unwrap();
    until("the instance is gone", || !home.ok(&["ls"]).contains("i-"));
    assert_eq!(home.volumes(), 0);
}

#[test]
fn a_command_that_is_killed_leaves_its_instance_running() {
    let Some(home) = home("a_command_that_is_killed_leaves") else { return };
    let payload = home.payload.to_str().unwrap();
    let mut run = home
        .command(&["run", "tiny", "-t", "t2.nano", "--name", "kept", "--kernel", payload])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut greeting = [0; 1];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut greeting).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    until("its record says so", || home.state("kept") == "running");
    home.types("kept", "x");
    until("the guest answers", || home.ok(&["console", "kept"]).contains('x'));
    home.ok(&["terminate", "kept"]);
}

#[test]
fn volumes_come_and_go_and_make_images() {
    let Some(home) = home("volumes_come_and_go") else { return };
    home.launch(&["--name", "web", "--volume", "1G:/dev/sdh"]);
    let extra = home.ok(&["volume", "create", "--size", "2G", "--name", "data"]);
    home.fails(&["volume", "attach", "data", "web", "--device", "/dev/sdh"], 254, "already in use");
    home.fails(&["volume", "attach", "data", "web", "--device", "/dev/sda1"], 254, "not a valid EBS device name");
    assert_eq!(home.ok(&["volume", "attach", "data", "web"]), "/dev/sdf");
    home.fails(&["volume", "attach", "data", "web"], 254, "VolumeInUse");
    home.fails(&["volume", "rm", "data"], 254, "VolumeInUse");
    home.ok(&["volume", "resize", "data", "3G"]);
    home.fails(&["volume", "resize", "data", "1G"], 254, "cannot be smaller");
    let snapshot = home.ok(&["snapshot", "create", "data", "--name", "first"]);
    assert!(snapshot.starts_with("snap-"), "{snapshot}");
    let root = home.describe("web")["RootVolumeId"].as_str().unwrap().to_owned();
    home.fails(&["volume", "detach", &root], 254, "OperationNotPermitted");
    // This guest does not know of hot-plug.
    home.ok(&["volume", "detach", "--force", "data"]);
    home.fails(&["volume", "detach", "data"], 254, "IncorrectState");

    let image = home.ok(&["image", "create", "--from", "web", "--name", "golden", "--no-reboot"]);
    home.fails(&["image", "create", "--from", "web", "--name", "golden", "--no-reboot"], 254, "Duplicate");
    assert_eq!(home.state("web"), "running");
    let payload = home.payload.to_str().unwrap();
    let second = home.ok(&["run", "golden", "-t", "t2.nano", "-d", "--kernel", payload]);
    // Whatever was made of something outlives it.
    home.ok(&["image", "rm", "tiny"]);
    home.ok(&["terminate", "web"]);
    assert_eq!(home.ok(&["stop", "--force", &second]), format!("{second}  running -> stopped"));
    assert_eq!(home.ok(&["start", &second]), format!("{second}  stopped -> running"));
    home.ok(&["image", "copy", "golden", "--name", "silver"]);
    home.ok(&["image", "rm", "golden"]);
    let raw = home.directory.path().join("silver.raw");
    let sum = home.ok(&["image", "export", "silver", raw.to_str().unwrap()]);
    let check = Command::new("sha256sum").arg(&raw).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&check.stdout).trim(), sum);
    // Shared as a file, with its checksum.
    let shared = home.directory.path().join("silver.qcow2");
    let shared = shared.to_str().unwrap();
    let of_shared = home.ok(&["image", "export", "silver", shared, "--format", "qcow2"]);
    let import = ["image", "import", shared, "--name", "again", "--checksum"];
    home.fails(&[&import[..], &["0"]].concat(), 252, "not a checksum");
    home.fails(&[&import[..], &[&sum[..64]]].concat(), 255, "it is another file, or damaged");
    home.ok(&[&import[..], &[&of_shared[..64]]].concat());
    home.ok(&["terminate", &second]);
    home.ok(&["volume", "rm", &extra]);
    home.ok(&["snapshot", "rm", &snapshot]);
    home.ok(&["image", "rm", "silver"]);
    // The snapshots of the root volume are the last that need anything.
    let list: Value = serde_json::from_str(&home.ok(&["snapshot", "ls", "-o", "json"])).unwrap();
    for snapshot in list["Snapshots"].as_array().unwrap() {
        home.ok(&["snapshot", "rm", snapshot["SnapshotId"].as_str().unwrap()]);
    }
    assert_eq!(home.volumes(), 0);
    assert!(!image.is_empty());
}

#[test]
fn volumes_have_types_and_an_instance_their_limits() {
    let Some(home) = home("volumes_have_types") else { return };
    fn create<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["volume", "create", "--size"], arguments].concat()
    }
    home.fails(&create(&["8G", "--volume-type", "io1"]), 254, "must contain the parameter iops");
    home.fails(&create(&["8G", "--volume-type", "gp2", "--iops", "3000"]), 254, "not supported for gp2");
    home.fails(&create(&["8G", "--volume-type", "st1"]), 254, "too small; minimum is 125GiB");
    home.fails(&create(&["8G", "--volume-type", "gp4"]), 252, "expected gp2");
    home.ok(&create(&["125G", "--volume-type", "st1", "--name", "slow"]));
    let id = home.launch(&["--limits", "--name", "web", "--root-size", "8G", "--iops", "4000", "--throughput", "200"]);
    let root = home.describe("web")["RootVolumeId"].as_str().unwrap().to_owned();
    let describe = |volume: &str| -> Value {
        serde_json::from_str(&home.ok(&["volume", "describe", volume, "-o", "json"])).unwrap()
    };
    let volume = describe(&root);
    assert_eq!(
        (&volume["VolumeType"], &volume["Iops"], &volume["Throughput"]),
        (&"gp3".into(), &4000.into(), &200.into())
    );
    assert_eq!((&describe("slow")["VolumeType"], &describe("slow")["Iops"]), (&"st1".into(), &Value::Null));
    home.ok(&["volume", "attach", "slow", "web"]);
    home.ok(&["volume", "resize", "slow", "200G"]);
    home.ok(&["snapshot", "create", "slow"]);
    home.ok(&["volume", "detach", "--force", "slow"]);
    home.ok(&["stop", "--force", &id]);
    home.ok(&["start", &id]);
    home.clean();
}

#[test]
fn instance_store_disks_leave_no_files() {
    let Some(home) = home("instance_store_disks") else { return };
    let payload = home.payload.to_str().unwrap();
    // 1 x 75 GB; 1 x 150 GB: files as sparse as any.
    let id = home.ok(&["run", "tiny", "-t", "m5d.large", "-d", "--volume", "1G", "--kernel", payload]);
    let open = |id: &str| {
        let open = std::fs::read_dir(format!("/proc/{}/fd", home.process(id))).unwrap().flatten();
        let stores = open.filter(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|path| path.to_str().is_some_and(|path| path.contains("-store")))
        });
        stores.map(|fd| std::fs::metadata(fd.path()).unwrap().len()).collect::<Vec<_>>()
    };
    assert_eq!(open(&id), [75_000_000_000]);
    assert_eq!(home.volumes(), 4, "two volumes of two files");
    home.ok(&["stop", "--force", &id]);
    // A type with more disks than there are slots behind the volumes' makes them move.
    home.ok(&["modify", &id, "-t", "m5d.xlarge"]);
    home.ok(&["start", &id]);
    assert_eq!(open(&id), [150_000_000_000]);
    home.kill(home.process(&id));
    until("it is gone", || home.state(&id) == "stopped");
    assert_eq!(home.volumes(), 4);
    home.ok(&["terminate", &id]);
    assert_eq!(home.volumes(), 0);
}

#[test]
fn lists_are_filtered_and_tags_change() {
    let Some(home) = home("lists_are_filtered") else { return };
    let web = home.launch(&["--name", "web", "--tag", "env=dev"]);
    let other = home.launch(&["--name", "db"]);
    let volume = home.ok(&["volume", "create", "--size", "1G", "--name", "data"]);
    let ids = |filters: &[&str]| {
        let ls = [&["ls"], filters].concat();
        home.list(&ls, "Instances").iter().map(|i| i["InstanceId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["--filters", "Name=tag:env,Values=d*,test"]), std::slice::from_ref(&web));
    assert_eq!(
        ids(&["--filters", "Name=tag:Name,Values=db", "Name=instance-type,Values=t2.*"]),
        std::slice::from_ref(&other)
    );
    home.fails(&["ls", "--filters", "colour=red"], 254, "The filter 'colour' is invalid (InvalidParameterValue)");
    home.fails(&["ls", "--filters", "colour"], 2 + 250, "for a filter");
    assert_eq!(home.ok(&["tag", "add", "db", "env=prod", "team="]), "Name=db\nenv=prod\nteam=");
    assert_eq!(ids(&["--filter", "tag:env=prod"]), std::slice::from_ref(&other));
    assert_eq!(home.ok(&["tag", "rm", "db", "team", "env"]), "Name=db");
    home.ok(&["tag", "add", &volume, "env=prod"]);
    assert_eq!(home.list(&["volume", "ls", "--filters", "tag:env=prod"], "Volumes").len(), 1);
    home.ok(&["tag", "add", "tiny", "env=prod"]);
    assert_eq!(home.list(&["image", "ls", "--filters", "tag:env=prod", "name=t*"], "Images").len(), 1);
    home.fails(&["tag", "add", "nobody", "a=b"], 254, "InvalidID");

    // The metadata options change while it runs; a tag whose key the metadata can't show is refused then.
    home.ok(&["modify", "web", "--metadata-options", "HttpTokens=required,InstanceMetadataTags=enabled"]);
    let options = home.describe("web")["MetadataOptions"].clone();
    assert_eq!((&options["HttpTokens"], &options["HttpPutResponseHopLimit"]), (&"required".into(), &1.into()));
    assert_eq!(ids(&["--filters", "metadata-options.http-tokens=required"]), std::slice::from_ref(&web));
    home.fails(&["tag", "add", "web", "a b=c"], 254, "is not a valid tag key");
    home.fails(&["modify", "web", "--metadata-options", "HttpTokens=maybe"], 254, "InvalidParameterValue");
    home.ok(&["terminate", "web", "db"]);
    assert_eq!(ids(&[]), [""; 0]);
    assert_eq!(ids(&["--all"]).len(), 2);
    assert_eq!(ids(&["--filters", "instance-state-name=terminated", "tag:Name=web"]), [web]);
}

#[test]
fn an_image_has_all_volumes_of_its_instance() {
    let Some(home) = home("an_image_has_all_volumes") else { return };
    home.launch(&["--name", "web", "--volume", "1G:/dev/sdh"]);
    let data = home.ok(&["volume", "create", "--size", "2G"]);
    home.ok(&["volume", "attach", &data, "web", "--device", "/dev/sdj"]);
    home.ok(&["image", "create", "--from", "web", "--name", "golden", "--no-reboot"]);
    let image: Value = serde_json::from_str(&home.ok(&["image", "describe", "golden", "-o", "json"])).unwrap();
    let mapping = image["BlockDeviceMappings"].as_array().unwrap();
    assert_eq!(mapping.iter().map(|m| m["Ebs"]["VolumeSize"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(mapping[1]["Ebs"]["DeleteOnTermination"], true);
    assert_eq!(mapping[2]["Ebs"]["DeleteOnTermination"], false);
    home.ok(&["terminate", "web"]);
    home.ok(&["volume", "rm", &data]);
    for snapshot in home.list(&["snapshot", "ls"], "Snapshots") {
        home.ok(&["snapshot", "rm", snapshot["SnapshotId"].as_str().unwrap()]);
    }
    // What it is made of is its own by now; a copy has it too.
    home.ok(&["image", "copy", "golden", "--name", "copy"]);
    home.ok(&["image", "rm", "golden"]);
    home.ok(&["prune"]);
    let payload = home.payload.to_str().unwrap();
    let id = home.ok(&["run", "copy", "-t", "t2.nano", "-d", "--volume", "3G:/dev/sdh", "--kernel", payload]);
    let sizes = |id: &str| {
        let own = home.list(&["volume", "ls", "--filters", &format!("attachment.instance-id={id}")], "Volumes");
        let of = |v: &Value| (v["Attachments"][0]["Device"].as_str().unwrap().to_owned(), v["Size"].as_u64().unwrap());
        own.iter().map(of).collect::<std::collections::BTreeMap<_, _>>()
    };
    let expected = [("/dev/sdh", 3), ("/dev/sdj", 2), ("/dev/xvda", 1)];
    assert_eq!(sizes(&id), expected.map(|(device, size)| (device.to_owned(), size)).into());
    home.ok(&["stop", "--force", &id]);
    home.ok(&["start", &id]);
    home.ok(&["terminate", &id]);
    home.ok(&["image", "rm", "copy"]);
    // The volume that does not go with its instance.
    assert_eq!(home.list(&["volume", "ls"], "Volumes").len(), 1);
    home.clean();
    assert_eq!(home.volumes(), 0);
}
