//! The server is killed everywhere, the Upgrade Side and the guard as well; what was acknowledged is there afterwards.

use crate::real::figures::Figures;
use crate::real::kills::Kills;
use crate::real::{self, Lab, NAME, processes, until};
use crate::{MARK, READY, RESYNC, SERVED, abort, split, taken_back};
use flipside_model::{MirrorStatus, OperationalState as O, Status, UpgradeState as S};
use std::time::Duration;

const SPLIT: [&str; 9] = [
    "prepare_split.check:act",
    "prepare_split.take_stock:acted",
    "split.start_upgrade:acted",
    "split.fork:act",
    "split.fork:acted",
    "split.wake:act",
    "split.hold:acted",
    "split.stop_apps:act",
    "split.close_data:acted",
];

const MERGE: [&str; 14] = [
    "prepare_merge.check:act",
    "prepare_merge.release:acted",
    "prepare_merge.mirrors:intent",
    "prepare_merge.flush:outcome",
    "merge.hold_door:act",
    "merge.stop_apps:acted",
    "merge.close_data:act",
    "merge.release:acted",
    "merge.attach:act",
    "merge.attach:acted",
    "merge.mount:acted",
    "merge.start_apps:act",
    "merge.health:act",
    "merge.open_door:acted",
];

const COMMIT: [&str; 5] = [
    "commit.decide:act",
    "commit.decide:outcome",
    "commit.end_production:act",
    "commit.end_production:acted",
    "commit.mirrors:act",
];

const ABORT_IN_MERGE: [&str; 11] = [
    "abort.cancel_fork:intent",
    "abort.hold_door:acted",
    "abort.stop_apps:acted",
    "abort.close_data:act",
    "abort.release:acted",
    "abort.attach:act",
    "abort.mount:act",
    "abort.start_apps:acted",
    "abort.open_door:acted",
    "abort.end_upgrade:acted",
    "abort.mirrors:act",
];

const FINISH: [&str; 2] = ["finish.guest:act", "finish.host:acted"];

// After an abort the guest has nothing left that would have to be removed.
const FINISH_ABORT: [&str; 2] = ["finish.guest:outcome", "finish.host:acted"];

/// Kills the server at all of these points of one command; every one must be passed.
#[track_caller]
fn everywhere(lab: &mut Lab, kills: &mut Kills, command: &[&str], points: &[&str], goal: S) {
    let left = kills.walk(lab, command, points, (goal, READY));
    assert!(
        left.is_empty() && kills.passed_by.is_empty(),
        "{left:?} {:?}",
        kills.passed_by
    );
}

/// After a cycle: in sync, and every acknowledged write is there.
#[track_caller]
fn all_is_there(lab: &Lab, marker: bool) {
    lab.is_in(S::Idle, READY);
    lab.duplex();
    let there = lab.try_sh(Some("production"), "test -e /var/opt/marker");
    assert_eq!(there.status, Some(i32::from(!marker)), "{}", there.err);
    assert_eq!(processes::machines(&lab.dir).len(), 1);
    lab.watcher().all_is_well();
}

/// Kills the server three times while legs are being rewritten, at moments that differ from run to run.
#[track_caller]
fn in_the_resync(lab: &mut Lab, kills: &mut Kills) {
    let copying = |status: &Status| {
        let mirrors = status.disks.iter().map(|disk| disk.mirror);
        mirrors
            .clone()
            .any(|m| matches!(m, MirrorStatus::Resync(_)))
    };
    let mut done = 0;
    while done < 3 {
        let seen = until(
            "a leg is being rewritten, or all is in sync",
            RESYNC,
            || {
                let status = lab.status();
                let all = status
                    .disks
                    .iter()
                    .all(|disk| disk.mirror == MirrorStatus::None);
                (copying(&status) || all).then_some(copying(&status))
            },
        );
        assert!(
            seen,
            "all was in sync after {done} kills: too little was changed"
        );
        let random = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .subsec_nanos();
        let wait = Duration::from_millis(u64::from(random / 1000 % 150));
        lab.note(&format!("{wait:?} later"));
        real::moment(wait);
        kills.now(lab, "while legs are rewritten");
        lab.serves(SERVED, "while the server is dead in a resynchronisation");
        kills.start_again(lab, None);
        done += 1;
    }
}

// Faults 1, 33, 70 and 71.
#[test]
fn kill_everywhere_to_the_commit() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut kills = Kills::default();
    everywhere(&mut lab, &mut kills, &["split", NAME], &SPLIT, S::Split);
    // Enough for a resynchronisation that lasts: 200 MB a second are copied.
    lab.sh(
        None,
        &format!("{MARK}; head -c 250000000 /dev/urandom >/var/opt/much; sync"),
    );
    everywhere(
        &mut lab,
        &mut kills,
        &["merge", NAME, "--yes"],
        &MERGE,
        S::Merge,
    );
    assert_eq!(lab.sh(Some("upgrade"), "cat /var/opt/marker").trim(), "new");
    everywhere(
        &mut lab,
        &mut kills,
        &["commit", NAME, "--yes"],
        &COMMIT,
        S::Commit,
    );
    in_the_resync(&mut lab, &mut kills);
    everywhere(&mut lab, &mut kills, &["finish", NAME], &FINISH, S::Idle);
    all_is_there(&lab, true);
    lab.note(&format!("FIGURES {}", kills.told()));
    assert!(kills.at.len() >= 30, "{}", kills.at.len());
    lab.stop_and_compare();
}

// Faults 1 and 62.
#[test]
#[ignore = "two minutes; CI has the kills on the way to the commit: `./dev test --full`"]
fn kill_everywhere_to_the_abort() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut kills = Kills::default();
    let first_boot = lab.boot_id();
    lab.ok(&["split", NAME]);
    lab.sh(None, MARK);
    lab.ok(&["merge", NAME, "--yes"]);
    let abort = ["abort", NAME, "--yes"];
    everywhere(&mut lab, &mut kills, &abort, &ABORT_IN_MERGE, S::Abort);
    assert_eq!(lab.boot_id(), first_boot);
    everywhere(
        &mut lab,
        &mut kills,
        &["finish", NAME],
        &FINISH_ABORT,
        S::Idle,
    );
    all_is_there(&lab, false);

    // A merge that dies in its first half is taken back; then the session is aborted and costs no reboot either.
    lab.ok(&["split", NAME]);
    lab.sh(None, MARK);
    lab.server.kill();
    kills.start_again(&mut lab, Some("prepare_merge.release:acted"));
    lab.run(&["merge", NAME, "--yes", "--no-wait"]);
    assert!(lab.server.until_dead(RESYNC, |_| None::<()>).is_none());
    lab.server.bury();
    kills.at.push("prepare_merge.release:acted".to_owned());
    lab.serves(SERVED, "while the server is dead in PrepareMerge");
    kills.start_again(&mut lab, None);
    lab.is_in(S::PrepareMerge, O::Broken);
    let in_split = [
        "abort.end_upgrade:act",
        "abort.attach:act",
        "abort.mirrors:act",
    ];
    let left = kills.walk(&mut lab, &abort, &in_split, (S::Abort, READY));
    lab.note(&format!("left: {left:?}"));
    assert_eq!(lab.boot_id(), first_boot);
    lab.finish();
    all_is_there(&lab, false);
    lab.note(&format!("FIGURES {}", kills.told()));
    lab.stop_and_compare();
}

// Fault 27.
// The Upgrade Side's machine and the guard die as well, not only the server.
#[test]
#[ignore = "two minutes; CI has the kills on the way to the commit: `./dev test --full`"]
fn kill_the_upgrade_side_and_the_guard() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    let first_boot = lab.boot_id();
    split(&lab, &mut figures);
    lab.sh(None, MARK);
    let began = lab.client().settle();
    let [_, upgrade] = processes::sides(&lab.dir);
    processes::kill(upgrade, &lab.dir);
    until("the loss is shown", RESYNC, || {
        (lab.status().partner_state == Some(flipside_model::PartnerState::DcOff)).then_some(())
    });
    lab.serves(SERVED, "after the loss of the Upgrade Side");
    lab.refused(&["run", NAME, "--", "true"], 125, &[]);
    taken_back(&lab, began, &mut figures);
    assert_eq!(lab.boot_id(), first_boot);
    all_is_there(&lab, false);

    // Without its guard the system has no door; the server's next start brings both back.
    let guard = processes::guard(&lab.dir).expect("a guard");
    processes::kill(guard, &lab.dir);
    lab.server.kill();
    lab.server.start(None);
    lab.serves(SERVED, "with a new guard");
    assert!(processes::guard(&lab.dir).is_some_and(|new| new != guard));
    assert_eq!(lab.boot_id(), first_boot);
    // And it does not need a start: the next command that needs the door makes it.
    let guard = processes::guard(&lab.dir).expect("a guard");
    processes::kill(guard, &lab.dir);
    lab.ok(&["split", NAME]);
    lab.serves(SERVED, "with a guard that a split has made");
    abort(&lab, &mut figures);
    lab.finish();
    all_is_there(&lab, false);
    lab.stop_and_compare();
}

/// All steps of `crates/session/src/step.rs`, by the command that takes them.
const ALL_SPLIT: [&str; 8] = [
    "prepare_split.check",
    "prepare_split.take_stock",
    "split.start_upgrade",
    "split.fork",
    "split.wake",
    "split.hold",
    "split.stop_apps",
    "split.close_data",
];
const ALL_MERGE: [&str; 13] = [
    "prepare_merge.check",
    "prepare_merge.release",
    "prepare_merge.mirrors",
    "prepare_merge.flush",
    "merge.hold_door",
    "merge.stop_apps",
    "merge.close_data",
    "merge.release",
    "merge.attach",
    "merge.mount",
    "merge.start_apps",
    "merge.health",
    "merge.open_door",
];
const ALL_COMMIT: [&str; 3] = ["commit.decide", "commit.end_production", "commit.mirrors"];
const ALL_ABORT: [&str; 11] = [
    "abort.cancel_fork",
    "abort.hold_door",
    "abort.stop_apps",
    "abort.close_data",
    "abort.release",
    "abort.attach",
    "abort.mount",
    "abort.start_apps",
    "abort.open_door",
    "abort.end_upgrade",
    "abort.mirrors",
];
const ALL_FINISH: [&str; 2] = ["finish.guest", "finish.host"];

#[test]
#[ignore = "kills the server at every crash point there is; it takes about an hour"]
fn kill_at_every_point() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut kills = Kills::default();
    let points = |steps: &[&str]| -> Vec<String> {
        let places = ["intent", "act", "acted", "outcome"];
        let each = |step: &&str| places.map(|place| format!("{step}:{place}"));
        steps.iter().flat_map(each).collect()
    };
    let mut splits = points(&ALL_SPLIT);
    let mut merges = points(&ALL_MERGE);
    let mut commits = points(&ALL_COMMIT);
    let mut aborts = points(&ALL_ABORT);
    let mut finishes = points(&ALL_FINISH);
    // Where a point is not passed the rest is left for the next cycle.
    while ![&splits, &merges, &commits, &aborts, &finishes]
        .iter()
        .all(|p| p.is_empty())
    {
        let mut walk = |lab: &mut Lab, command: &[&str], points: &mut Vec<String>, goal| {
            let named: Vec<&str> = points.iter().map(String::as_str).collect();
            *points = kills.walk(lab, command, &named, (goal, READY));
        };
        walk(&mut lab, &["split", NAME], &mut splits, S::Split);
        lab.sh(None, MARK);
        walk(&mut lab, &["merge", NAME, "--yes"], &mut merges, S::Merge);
        let committed = !commits.is_empty();
        if committed {
            walk(
                &mut lab,
                &["commit", NAME, "--yes"],
                &mut commits,
                S::Commit,
            );
        } else {
            walk(&mut lab, &["abort", NAME, "--yes"], &mut aborts, S::Abort);
        }
        walk(&mut lab, &["finish", NAME], &mut finishes, S::Idle);
        lab.duplex();
        let there = lab.try_sh(Some("production"), "rm /var/opt/marker; sync");
        assert_eq!(there.status == Some(0), committed, "{}", there.err);
        lab.watcher().all_is_well();
    }
    lab.note(&format!(
        "FIGURES {}; not passed: {:?}",
        kills.told(),
        kills.passed_by
    ));
    for place in ["intent", "outcome"] {
        let missed = kills.passed_by.iter().find(|point| point.ends_with(place));
        assert_eq!(missed, None, "every step is begun and ended");
    }
    lab.stop_and_compare();
}
