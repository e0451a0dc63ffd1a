use std::sync::mpsc;

use super::*;

fn run(events: Vec<Event>) -> (Vec<Update>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (sender, receiver) = mpsc::channel();
    let started = Instant::now();
    for event in events {
        sender.send(Seen { at: started + Duration::from_millis(5), event }).unwrap();
    }
    drop(sender);
    let mut session = Session::new(receiver, std::sync::Arc::new(|_| {}), dir.path(), started).unwrap();
    let mut updates = Vec::new();
    while let Some(update) = session.next(Duration::from_secs(5)) {
        updates.push(update);
    }
    (updates, dir)
}

fn console(text: &str) -> Event {
    Event::Console { data: text.into() }
}

fn stages(updates: &[Update]) -> Vec<Stage> {
    updates.iter().filter_map(|u| if let Update::Stage(m) = u { Some(m.stage) } else { None }).collect()
}

#[test]
fn stages_come_once_per_boot() {
    let boot = || {
        vec![
            Event::Stage { stage: Stage::Machine, detail: None },
            console("a\n"),
            console("b\nCloud-init v. 22.4.2 running 'init' at x\nCloud-init v. 22.4.2 running 'init' at y\n"),
        ]
    };
    let mut events = boot();
    events.push(Event::Stage { stage: Stage::Reboot, detail: None });
    events.extend(boot());
    events.push(Event::Ended { end: End::PowerOff });
    let (updates, dir) = run(events);
    let once = [Stage::Machine, Stage::Kernel, Stage::CloudInitNetwork];
    let mut expected = once.to_vec();
    expected.push(Stage::Reboot);
    expected.extend(once);
    expected.push(Stage::PowerOff);
    assert_eq!(stages(&updates), expected);
    assert!(matches!(updates.last(), Some(Update::Ended(End::PowerOff))));
    let recorded = std::fs::read_to_string(dir.path().join("stages.jsonl")).unwrap();
    assert_eq!(recorded.lines().count(), expected.len());
    assert!(recorded.starts_with(r#"{"stage":"machine","ms":5.0"#), "{recorded}");
}

#[test]
fn the_end_of_user_data_is_told_with_cloud_init_s_own_words() {
    let line = "Cloud-init v. 22.4.2 finished at x. Datasource DataSourceEc2Local.  Up 12.5 seconds\n";
    let (updates, _dir) = run(vec![console(&line[..20]), console(&line[20..]), Event::Ended { end: End::Stopped }]);
    assert!(updates.iter().any(|u| matches!(u, Update::Finished(f) if f.uptime == 12.5)));
    assert_eq!(stages(&updates), [Stage::Kernel, Stage::UserData]);
}

#[test]
fn an_instance_that_vanishes_is_a_failure() {
    let (updates, _dir) = run(vec![console("x")]);
    assert!(matches!(updates.last(), Some(Update::Ended(End::Failed { .. }))));
}
