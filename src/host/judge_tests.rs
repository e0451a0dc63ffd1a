use super::*;
use crate::host::stage::Finished;

fn finished() -> Update {
    Update::Finished(Finished { version: "22.4.2".into(), datasource: "DataSourceEc2Local".into(), uptime: 1.0 })
}

fn judge() -> Judge {
    Judge::new(Duration::from_secs(3))
}

#[test]
fn the_result_is_looked_for_until_it_is_there() {
    let mut judge = judge();
    assert_eq!(judge.update(&Update::Synced), None);
    assert_eq!(judge.update(&finished()), None);
    let line = Update::Line("[  OK  ] Finished cloud-final.service".into());
    assert_eq!(judge.update(&line), Some(Step::Sync));
    assert_eq!(judge.update(&line), None);
    assert_eq!(judge.update(&Update::Synced), Some(Step::Look));
    assert_eq!(judge.looked(false), None);
    assert_eq!(judge.time_is_up(), Some(Step::Sync));
    assert_eq!(judge.update(&Update::Synced), Some(Step::Look));
    assert_eq!(judge.looked(true), Some(Step::Judge));
    assert_eq!(judge.until(), None);
}

#[test]
fn a_result_that_never_comes_is_judged_without() {
    let mut judge = judge();
    judge.update(&finished());
    let mut looks = 0;
    loop {
        assert_eq!(judge.time_is_up(), Some(Step::Sync));
        assert_eq!(judge.update(&Update::Synced), Some(Step::Look));
        looks += 1;
        if judge.looked(false) == Some(Step::Judge) {
            break;
        }
    }
    assert_eq!(looks, MOST_LOOKS);
}

#[test]
fn a_kernel_that_does_not_obey_is_given_up() {
    let mut judge = judge();
    judge.update(&finished());
    for _ in 0..MOST_ASKED {
        assert_eq!(judge.time_is_up(), Some(Step::Sync));
    }
    assert_eq!(judge.time_is_up(), Some(Step::GiveUp));
    assert_eq!((judge.until(), judge.time_is_up()), (None, None));
}

#[test]
fn a_restarted_guest_is_judged_anew() {
    let mut judge = judge();
    judge.update(&finished());
    let mark = crate::host::session::Mark { stage: Stage::Reboot, ms: 1.0, detail: None };
    judge.update(&Update::Stage(mark));
    assert_eq!(judge.until(), None);
    judge.update(&finished());
    assert_eq!(judge.time_is_up(), Some(Step::Sync));
}
