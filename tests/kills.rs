//! `kill -9` at every step of every action: what is left can be gone on with. The guest is the payload of `common::payload`.

#[path = "common/home.rs"]
mod home;

use home::home;
use serde_json::Value;

/// What is killed where, and in which state an instance may be found after that.
const RUN: &[(&str, &[&str])] = &[
    ("run: preparation asked for", &["gone"]),
    ("run: in the transaction", &["gone"]),
    ("run: recorded", &["gone"]),
    ("run: process spawned", &["gone"]),
    ("run: order given", &["running"]),
    ("process: prepared", &["gone"]),
    ("process: order read", &["gone"]),
    ("process: guest runs", &["gone"]),
    ("process: recorded as running", &["stopped"]),
];
const STOP: &[(&str, &[&str])] = &[("stop: recorded", &["stopped"])];
const TERMINATE: &[(&str, &[&str])] = &[("terminate: recorded", &["gone"])];
const END: &[&str] =
    &["process: guest ended", "process: end recorded", "terminate: record changed", "terminate: volumes removed"];

#[test]
fn a_kill_at_any_step_of_an_instance_s_life_loses_nothing() {
    let Some(home) = home("a_kill_at_any_step") else { return };
    let payload = home.payload.to_str().unwrap();
    let run = ["run", "tiny", "-t", "t2.nano", "--detach", "--kernel", payload];
    let mut points = 0;
    for (step, states) in RUN {
        home.killed(step, &run);
        if home.settles(step, states) == "stopped" {
            let list: Value = serde_json::from_str(&home.ok(&["ls", "-o", "json"])).unwrap();
            home.ok(&["start", list["Instances"][0]["InstanceId"].as_str().unwrap()]);
        }
        home.clean();
        points += 1;
    }
    for (step, states) in STOP {
        let id = home.launch(&[]);
        home.killed(step, &["stop", "--force", &id]);
        // The next command reminds the process; this guest does not hear the power button.
        home.ok(&["stop", "--force", &id]);
        home.settles(step, states);
        home.ok(&["start", &id]);
        home.clean();
        points += 1;
    }
    for (step, states) in TERMINATE {
        let id = home.launch(&[]);
        home.killed(step, &["terminate", &id]);
        home.settles(step, states);
        points += 1;
    }
    for step in END {
        // The process has the step's name from its launch, and comes there when it is terminated.
        let output = home.command(&run).env("AMIABLE_DIE_AT", step).output().unwrap();
        assert!(output.status.success());
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        home.run(&["terminate", &id]);
        home.settles(step, &["gone"]);
        assert_eq!(home.state(&id), "terminated");
        points += 1;
    }
    home.clean();
    home.age_and_prune();
    println!("{points} points");
}

#[test]
fn a_kill_at_any_step_of_a_volume_s_life_loses_nothing() {
    let Some(home) = home("a_kill_at_any_step_of_a_volume") else { return };
    let id = home.launch(&[]);
    let root = home.describe(&id)["RootVolumeId"].as_str().unwrap().to_owned();
    let data = home.ok(&["volume", "create", "--size", "1G"]);
    let mut points = 0;
    for step in ["attach: recorded", "attach: done by the process"] {
        home.killed(step, &["volume", "attach", &data, &id]);
        // The same command goes on with it.
        assert_eq!(home.ok(&["volume", "attach", &data, &id]), "/dev/sdf");
        home.ok(&["volume", "detach", "--force", &data]);
        points += 1;
    }
    for step in ["detach: recorded", "detach: done by the process"] {
        home.ok(&["volume", "attach", &data, &id]);
        home.killed(step, &["volume", "detach", "--force", &data]);
        home.ok(&["volume", "detach", "--force", &data]);
        home.fails(&["volume", "detach", "--force", &data], 254, "IncorrectState");
        points += 1;
    }
    for step in ["snapshot: recorded", "snapshot: taken", "snapshot: completed"] {
        for volume in [&root, &data] {
            home.killed(step, &["snapshot", "create", volume]);
            // Whether it came to be or not, the next one does, and the instance runs on.
            home.ok(&["snapshot", "create", volume]);
            assert_eq!(home.state(&id), "running");
            points += 1;
        }
    }
    for step in ["image: to be recorded", "image: recorded"] {
        home.killed(step, &["image", "create", "--from", &id, "--name", "made", "--no-reboot"]);
        if home.run(&["image", "describe", "made"]).status.success() {
            home.ok(&["image", "rm", "made"]);
        }
        home.ok(&["image", "create", "--from", &id, "--name", "made", "--no-reboot"]);
        home.ok(&["image", "rm", "made"]);
        points += 1;
    }
    for step in ["fold: merged", "fold: recorded"] {
        for volume in [&root, &data] {
            for _ in 0..2 {
                let snapshot = home.ok(&["snapshot", "create", volume]);
                home.ok(&["snapshot", "create", volume]);
                home.ok(&["snapshot", "rm", &snapshot]);
            }
            // Of the root volume, while it is in use.
            home.killed(step, &["prune"]);
            home.ok(&["snapshot", "create", volume]);
            home.ok(&["prune"]);
            points += 1;
        }
    }
    // All layers are still what they were: it starts again.
    home.ok(&["stop", "--force", &id]);
    home.ok(&["start", &id]);
    home.clean();
    home.age_and_prune();
    println!("{points} points");
}
