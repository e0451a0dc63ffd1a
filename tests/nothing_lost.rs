//! A full disk, a reboot of the machine, a process that hangs, and two commands at once on one thing: nothing is lost, and what is
//! left can be gone on with. The guest is the payload of `common::payload`.

#[path = "common/home.rs"]
mod home;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use home::{Home, home, home_in, until};
use serde_json::Value;

/// Set for the part of the test that runs in a mount namespace of its own.
const INSIDE: &str = "AMIABLE_TEST_INSIDE";

#[test]
fn a_full_disk_breaks_nothing() {
    let name = "a_full_disk_breaks_nothing";
    if std::env::var_os(INSIDE).is_some() {
        return with_little_room(name);
    }
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]).args(arguments);
        command
    };
    if !unshare(&["true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: {name} needs a mount namespace, and this machine grants none (unshare --user --mount)");
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let status = unshare(&[itself.to_str().unwrap(), "--exact", name, "--nocapture"]).env(INSIDE, "1").status();
    assert!(status.unwrap().success());
}

/// A file that takes all room but this many pages.
fn leave_pages(folder: &Path, pages: u64) {
    let mut ballast = File::options().append(true).create(true).open(folder.join("ballast")).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
    ballast.set_len(ballast.metadata().unwrap().len() / 4096 * 4096 - pages * 4096).unwrap();
}

/// The ids of all that there is.
fn ids(home: &Home) -> BTreeSet<String> {
    let id = |list: Vec<Value>, name: &str| -> Vec<String> {
        list.iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
    };
    [
        id(home.list(&["ls"], "Instances"), "InstanceId"),
        id(home.list(&["volume", "ls"], "Volumes"), "VolumeId"),
        id(home.list(&["snapshot", "ls"], "Snapshots"), "SnapshotId"),
        id(home.list(&["image", "ls"], "Images"), "ImageId"),
    ]
    .concat()
    .into_iter()
    .collect()
}

fn with_little_room(name: &str) {
    let mount = |folder: &Path| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"]).arg(folder);
        assert!(mount.status().unwrap().success());
    };
    let Some(home) = home_in(name, mount) else { return };
    let web = home.launch(&["--name", "web"]);
    let root = home.describe("web")["RootVolumeId"].as_str().unwrap().to_owned();
    let data = home.ok(&["volume", "create", "--size", "1G", "--name", "data"]);
    let spare = home.ok(&["volume", "create", "--size", "1G", "--name", "spare"]);
    home.ok(&["volume", "attach", "data", "web"]);
    let payload = home.payload.to_str().unwrap();
    let run = ["run", "tiny", "-t", "t2.nano", "--detach", "--volume", "1G", "--kernel", payload];
    let (mut refused, mut size, mut there) = (0, 1, ids(&home));
    for pages in [0, 1, 2, 3, 6] {
        let larger = format!("{}G", size + 1);
        let image = format!("image-{pages}");
        let commands: &[&[&str]] = &[
            &run,
            &["snapshot", "create", &root],
            &["snapshot", "create", &spare],
            &["image", "create", "--from", &web, "--name", &image, "--no-reboot"],
            &["volume", "create", "--size", "1G"],
            &["volume", "resize", &data, &larger],
            &["volume", "attach", &spare, &web],
            &["volume", "detach", "--force", &spare],
            &["stop", "--force", &web],
            &["start", &web],
        ];
        for command in commands {
            leave_pages(&home.folder(), pages);
            let output = home.run(command);
            let before = std::mem::replace(&mut there, ids(&home));
            let told = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                size += u64::from(command[1] == "resize");
                continue;
            }
            // What was refused because it is so far already is no matter of room.
            let state = ["IncorrectInstanceState", "IncorrectState", "VolumeInUse"];
            if state.iter().any(|code| told.contains(code)) {
                continue;
            }
            refused += 1;
            assert_eq!(told.matches("error: ").count(), 1, "{command:?} with {pages} pages: {told}");
            assert!(told.contains("room") || told.contains("space"), "{command:?} with {pages} pages: {told}");
            assert_eq!(before, there, "half made with {pages} pages: {command:?}");
        }
    }
    println!("{refused} commands were refused");
    assert!(refused >= 6, "{refused}");

    // What there is can be deleted on a disk without any room, and that makes room.
    leave_pages(&home.folder(), 0);
    for snapshot in home.list(&["snapshot", "ls"], "Snapshots") {
        home.ok(&["snapshot", "rm", snapshot["SnapshotId"].as_str().unwrap()]);
    }
    home.ok(&["terminate", &web]);
    std::fs::remove_file(home.folder().join("ballast")).unwrap();
    // And everything goes on.
    let web = home.launch(&["--name", "web"]);
    let root = home.describe("web")["RootVolumeId"].as_str().unwrap().to_owned();
    home.ok(&["snapshot", "create", &root]);
    home.ok(&["image", "create", "--from", "web", "--name", "golden", "--no-reboot"]);
    home.ok(&["volume", "attach", &spare, "web"]);
    home.ok(&["volume", "detach", "--force", &spare]);
    home.ok(&["volume", "resize", &spare, "40G"]);
    home.ok(&["stop", "--force", &web]);
    home.ok(&["start", &web]);
    home.clean();
    for image in home.list(&["image", "ls"], "Images") {
        home.ok(&["image", "rm", image["ImageId"].as_str().unwrap()]);
    }
    // Without prune: nothing half made was left.
    assert_eq!(home.volumes(), 0);
    assert_eq!(std::fs::read_dir(home.folder().join("state/instances")).unwrap().count(), 0);
}

/// As after the machine was restarted: no process, and a boot id that is another one.
fn restart_the_machine(home: &Home, processes: &[i32]) {
    processes.iter().for_each(|process| home.kill(*process));
    for process in processes {
        until("it is gone", || !Path::new(&format!("/proc/{process}/cmdline")).exists() || is_zombie(*process));
    }
    for entry in std::fs::read_dir(home.folder().join("state/instances")).unwrap().flatten() {
        let lock = entry.path().join("lock");
        let signed = std::fs::read_to_string(&lock).unwrap();
        // A number that some other process has by now.
        let other = signed.lines().nth(1).unwrap().replace(|c: char| c.is_ascii_hexdigit(), "0");
        std::fs::write(&lock, format!("1\n{other}\n")).unwrap();
        assert!(entry.path().join("control").exists(), "a socket that nobody listens at");
    }
}

fn is_zombie(process: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[test]
fn a_reboot_of_the_machine_leaves_stopped_instances() {
    let Some(home) = home("a_reboot_of_the_machine") else { return };
    let runs = home.launch(&["--name", "web", "--volume", "1G"]);
    let stops = home.launch(&["--name", "stops"]);
    let ends = home.launch(&["--name", "ends"]);
    let lies = home.launch(&["--name", "lies"]);
    home.ok(&["stop", "--force", &lies]);
    let root = home.describe(&runs)["RootVolumeId"].as_str().unwrap().to_owned();
    home.killed("snapshot: recorded", &["snapshot", "create", &root]);
    let processes = [home.process(&runs), home.process(&stops), home.process(&ends)];
    // On their way somewhere when the power goes.
    processes.iter().for_each(|process| home.signal(*process, rustix::process::Signal::STOP));
    home.killed("stop: recorded", &["stop", &stops]);
    home.killed("terminate: recorded", &["terminate", &ends]);
    restart_the_machine(&home, &processes);

    let reason = |id: &str| home.describe(id)["StateReason"]["Message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(home.state(&runs), "stopped");
    assert_eq!(reason(&runs), "Server.InternalError: The machine was restarted while the instance ran");
    assert_eq!(home.state(&stops), "stopped");
    assert_eq!(reason(&stops), "Client.UserInitiatedShutdown: User initiated shutdown");
    assert_eq!(home.state(&ends), "terminated");
    assert_eq!(home.state(&lies), "stopped");
    for id in [&runs, &stops, &lies] {
        assert!(home.describe(id)["Amiable"]["ProcessId"].is_null());
        assert_eq!(home.ok(&["start", id]), format!("{id}  stopped -> running"));
    }
    home.ok(&["snapshot", "create", &root]);
    home.clean();
    home.age_and_prune();
}

#[test]
fn a_process_that_hangs_keeps_nobody_waiting() {
    let Some(home) = home("a_process_that_hangs") else { return };
    let ids: Vec<String> = (0..3).map(|_| home.launch(&[])).collect();
    for id in &ids {
        home.signal(home.process(id), rustix::process::Signal::STOP);
        home.killed("stop: recorded", &["stop", id]);
    }
    // The time for all three would be more than ten times this if each had been waited for as one that greets.
    let asked = Instant::now();
    let output = home.run(&["ls"]);
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    let (list, note) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(list.matches("stopping").count(), 3, "{list}");
    for id in &ids {
        assert!(note.contains(&format!("amiable stop --force {id}")), "{note}");
    }
    assert_eq!(home.ok(&["stop", "--force", &ids[0]]), format!("{}  stopping -> stopped", ids[0]));
    assert_eq!(home.ok(&["start", &ids[0]]), format!("{}  stopped -> running", ids[0]));
    assert_eq!(home.ok(&["terminate", &ids[1]]), format!("{}  stopping -> terminated", ids[1]));
    // One that comes back does what its record says, when it is reminded; this guest hears no power button, so with force.
    home.signal(home.process(&ids[2]), rustix::process::Signal::CONT);
    home.ok(&["stop", "--force", &ids[2]]);
    home.clean();
    assert_eq!(home.volumes(), 0);
}

/// Run commands at the same time. Answers their outputs in the same order.
fn at_once(home: &Home, commands: &[&[&str]]) -> Vec<Output> {
    let start = |arguments: &&[&str]| home.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let running: Vec<_> = commands.iter().map(|arguments| start(arguments).unwrap()).collect();
    let outputs: Vec<Output> = running.into_iter().map(|process| process.wait_with_output().unwrap()).collect();
    for (arguments, output) in commands.iter().zip(&outputs) {
        println!("$ amiable {} &\n{output:?}", arguments.join(" "));
    }
    outputs
}

/// One of them succeeded, and all others were refused with one of these codes.
fn one_won(outputs: &[Output], codes: &[&str]) -> usize {
    let winners: Vec<usize> = (0..outputs.len()).filter(|index| outputs[*index].status.success()).collect();
    assert_eq!(winners.len(), 1, "{outputs:?}");
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(254), "{told}");
        assert!(codes.iter().any(|code| told.contains(code)), "{told}");
    }
    winners[0]
}

#[test]
fn two_commands_at_once_on_one_thing_agree() {
    let Some(home) = home("two_commands_at_once") else { return };
    let payload = home.payload.to_str().unwrap();
    for round in 0..5 {
        let run: &[&str] = &[
            "run",
            "tiny",
            "-t",
            "t2.nano",
            "-d",
            "--private-ip",
            "172.31.0.77",
            "--kernel",
            payload,
            "--name",
            "web",
        ];
        let ran = at_once(&home, &[run, run, run]);
        let winner = one_won(&ran, &["InvalidIPAddress.InUse"]);
        let web = String::from_utf8_lossy(&ran[winner].stdout).trim().to_owned();
        let other = home.launch(&[]);

        let data = home.ok(&["volume", "create", "--size", "1G"]);
        let attach: [&[&str]; 2] = [&["volume", "attach", &data, &web], &["volume", "attach", &data, &other]];
        one_won(&at_once(&home, &attach), &["VolumeInUse"]);
        // Both detach it, or one comes too late.
        let detach: &[&str] = &["volume", "detach", "--force", &data];
        let detached = at_once(&home, &[detach, detach]);
        assert!(detached.iter().any(|output| output.status.success()));
        assert!(home.list(&["volume", "ls"], "Volumes").iter().any(|volume| volume["State"] == "available"));
        let attach: [&[&str]; 2] = [
            &["volume", "attach", &data, &web, "--device", "/dev/sdf"],
            &["volume", "attach", &data, &web, "--device", "/dev/sdf"],
        ];
        assert!(at_once(&home, &attach).iter().any(|output| output.status.success()));

        let stop: &[&str] = &["stop", "--force", &web];
        assert!(at_once(&home, &[stop, stop]).iter().all(|output| output.status.success()));
        let start: &[&str] = &["start", &web];
        one_won(&at_once(&home, &[start, start, start]), &["IncorrectInstanceState"]);
        assert_eq!(home.state(&web), "running");
        let snapshot: &[&str] = &["snapshot", "create", &data];
        assert!(at_once(&home, &[snapshot, snapshot]).iter().all(|output| output.status.success()));
        let image: &[&str] = &["image", "create", "--from", &web, "--name", "golden", "--no-reboot"];
        one_won(&at_once(&home, &[image, image]), &["InvalidAMIName.Duplicate"]);
        home.ok(&["image", "rm", "golden"]);

        // Whoever is first: in the end it is terminated, and its volume is free.
        let terminate: &[&str] = &["terminate", &web];
        let order = if round % 2 == 0 { [stop, terminate] } else { [terminate, stop] };
        let ended = at_once(&home, &order);
        assert!(ended[(round + 1) % 2].status.success());
        assert_eq!(home.state(&web), "terminated");
        home.clean();
        assert_eq!(home.volumes(), 0);
    }
}

#[test]
fn doctor_tells_what_is_left_and_what_mends_it() {
    let Some(home) = home("doctor_tells") else { return };
    let id = home.launch(&[]);
    let process = home.process(&id);
    let data = home.ok(&["volume", "create", "--size", "1G"]);
    assert!(home.run(&["doctor"]).stdout.windows(4).any(|word| word == b"none"));
    std::fs::remove_file(home.folder().join(format!("data/volumes/{data}.map"))).unwrap();
    // Its lock and its socket are gone, as if its folder had been deleted: the record says that it is dead, and it is not.
    std::fs::remove_file(home.folder().join(format!("state/instances/{id}/lock"))).unwrap();
    assert_eq!(home.state(&id), "stopped");
    let told = String::from_utf8(home.run(&["doctor"]).stdout).unwrap();
    for mend in [format!("kill -9 {process}"), format!("amiable volume rm {data}")] {
        assert!(told.contains(&mend), "{told}");
    }
    // Two processes never have one volume.
    home.fails(&["start", &id], 255, "in use by process");
    home.kill(process);
    until("it is gone", || !Path::new(&format!("/proc/{process}/cmdline")).exists() || is_zombie(process));
    home.ok(&["volume", "rm", &data]);
    assert_eq!(home.ok(&["start", &id]), format!("{id}  stopped -> running"));
    home.ok(&["terminate", &id]);
    let told = String::from_utf8(home.run(&["doctor"]).stdout).unwrap();
    assert!(told.lines().any(|line| line.contains("leftovers") && line.ends_with("none")), "{told}");
}
