//! Whole upgrades on real machines: a Debian guest under QEMU that is split, upgraded, merged, committed and aborted,
//! with users who never stop asking and a server that is killed everywhere.

#![allow(clippy::print_stdout)]

mod real;

use flipside_model::{LegStatus, MirrorStatus, OperationalState as O, Status, UpgradeState as S};
use real::figures::Figures;
use real::kills::Kills;
use real::legs::{Mode, by_machine};
use real::{Lab, NAME, processes, qmp, until};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// RDR copies at most this many times the union of what was changed.
const COPIED: f64 = 1.1;

/// What users write while it is copied: the union is counted when the copying begins. A handful of blocks.
const WRITTEN_MEANWHILE: f64 = 8.0 * 65_536.0;

/// A request is answered by then when nothing holds it, even on a busy host.
const SERVED: Duration = Duration::from_secs(5);

/// How far a guest's clock may be off, in seconds.
const CLOCK: f64 = 2.0;

/// How long a resynchronisation may take to begin or go on.
const RESYNC: Duration = Duration::from_secs(60);

const READY: O = O::Ready;

/// The marker that an upgrade leaves.
const MARK: &str = "echo new >/var/opt/marker; sync";

/// Splits, checks that nobody noticed, and that the sides are isolated.
#[track_caller]
fn split(lab: &Lab, figures: &mut Figures) -> Status {
    let began = lab.client().settle();
    lab.ok(&["split", NAME]);
    lab.client().settle();
    let status = lab.is_in(S::Split, READY);
    let failed = lab.client().failures_since(began);
    assert!(failed.is_empty(), "{failed:#?}");
    let pause = status.pause_ms.expect("a pause");
    lab.note(&format!(
        "split: pause {pause} ms, slowest request {} ms",
        lab.client().slowest_since(began)
    ));
    figures.pause.push(pause);
    isolated(lab, &status);
    clock_is_right(lab, "upgrade");
    status
}

#[track_caller]
fn merge(lab: &Lab, figures: &mut Figures) -> Status {
    let began = lab.client().settle();
    lab.ok(&["merge", NAME, "--yes"]);
    lab.client().settle();
    let status = lab.is_in(S::Merge, READY);
    let outage = status.outage_ms.expect("an outage");
    lab.note(&format!(
        "merge: outage {outage} ms ({:?} inside), slowest request {} ms, failed {:?}",
        status.outage_inside_ms,
        lab.client().slowest_since(began),
        lab.client().failures_since(began)
    ));
    figures.merge.push(outage);
    status
}

#[track_caller]
fn abort(lab: &Lab, figures: &mut Figures) {
    let moved = lab.status().upgrade_state == S::Merge;
    let began = lab.client().settle();
    lab.ok(&["abort", NAME, "--yes"]);
    lab.client().settle();
    let status = lab.is_in(S::Abort, READY);
    let failed = lab.client().failures_since(began);
    if moved {
        let outage = status.outage_ms.expect("an outage");
        lab.note(&format!(
            "abort: outage {outage} ms, slowest request {} ms, failed {failed:?}",
            lab.client().slowest_since(began),
        ));
        figures.abort.push(outage);
    } else {
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

/// The clock of a side is right, also of one that was paused or forked.
#[track_caller]
fn clock_is_right(lab: &Lab, side: &str) {
    let host = || {
        let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
        since.as_secs_f64()
    };
    let before = host();
    let said = lab.sh(Some(side), "date +%s.%N");
    let after = host();
    let guest: f64 = said.trim().parse().expect("seconds");
    assert!(
        guest > before - CLOCK && guest < after + CLOCK,
        "the clock of the {side} side is off: {guest} is not between {before} and {after}"
    );
}

/// Every command that the state does not allow is refused with status 3, says what is allowed, and changes nothing.
#[track_caller]
fn only_what_is_allowed(lab: &Lab) {
    // The mirrors go on meanwhile and write records of their own; a refusal that wrote one would do so every time.
    let quiet = (0..4).any(|_| refusals_write_nothing(lab));
    assert!(quiet, "a refusal wrote a record");
}

/// Tries every command that is not allowed; says whether no record was written meanwhile.
#[track_caller]
fn refusals_write_nothing(lab: &Lab) -> bool {
    let before = lab.status();
    let all = flipside_model::Command::ALL;
    for verb in all.into_iter().filter(|c| !before.allowed.contains(c)) {
        let verb = verb.verb();
        let said = lab.refused(&[verb, NAME, "--yes"], 3, &["is refused in"]);
        for allowed in &before.allowed {
            assert!(said.contains(&format!("`{allowed}`")), "{verb}: {said}");
        }
    }
    let after = lab.status();
    assert_eq!(after.line(), before.line());
    after.last_seq == before.last_seq
}

fn path_of(status: &Status, disk: &str, of: impl Fn(&LegStatus) -> bool) -> PathBuf {
    let disk = status.disks.iter().find(|d| d.name.as_str() == disk);
    let legs = &disk.expect("the disk").legs;
    legs.iter().find(|l| of(l)).expect("the leg").path.clone()
}

/// What the Upgrade Side may have open in Split: its own leg of the system disk, and nothing else.
fn expected_in_split(status: &Status) -> (PathBuf, BTreeSet<PathBuf>) {
    let upgrade = path_of(status, "system0", |leg| !leg.authority);
    let production = status
        .disks
        .iter()
        .flat_map(|disk| disk.legs.iter())
        .map(|leg| leg.path.clone())
        .filter(|path| *path != upgrade)
        .collect();
    (upgrade, production)
}

/// In Split the Upgrade Side has no path to a leg of Production, nor to the users.
#[track_caller]
fn isolated(lab: &Lab, status: &Status) {
    let (upgrade, production) = expected_in_split(status);
    let machines = by_machine(&lab.dir);
    let [(_, old), (_, new)] = machines.iter().collect::<Vec<_>>()[..] else {
        panic!("there are two machines in Split: {machines:?}");
    };
    assert_eq!(new.keys().collect::<Vec<_>>(), [&upgrade], "{machines:?}");
    assert!(!old.contains_key(&upgrade), "{machines:?}");
    for disk in ["system0", "data0"] {
        let live = path_of(status, disk, |leg| leg.authority);
        assert!(production.contains(&live));
        assert_eq!(old.get(&live), Some(&Mode::Write), "{machines:?}");
    }
    // The card of the production network has no carrier there, whatever the guest does with it.
    let show: serde_json::Value =
        serde_json::from_str(&lab.ok(&["system", "show", NAME, "--json"])).expect("JSON");
    let mac = show["spec"]["mac"].as_str().expect("an address");
    let look = format!(
        "for n in /sys/class/net/*; do if [ \"$(cat $n/address)\" = {mac} ]; then ip link set ${{n##*/}} up; \
         echo carrier $(cat $n/carrier); fi; done"
    );
    assert_eq!(lab.sh(Some("upgrade"), &look).trim(), "carrier 0");
    assert_eq!(lab.sh(Some("production"), &look).trim(), "carrier 1");
    // The application does not run there, and cannot be started behind its gate.
    let active = lab.try_sh(
        Some("upgrade"),
        "systemctl start mini-writer.service; systemctl is-active mini-writer.service",
    );
    assert_ne!(active.out.trim(), "active", "{}", active.err);
}

/// The same in QEMU's own words: the server is killed, so that its monitor is free to be asked.
#[track_caller]
fn isolated_as_qemu_says(lab: &mut Lab, kills: &mut Kills) {
    let status = lab.status();
    let (upgrade, production) = expected_in_split(&status);
    kills.now(lab, "in Split");
    lab.serves(SERVED, "while the server is dead in Split");
    let folders = processes::folders(&lab.dir);
    let [old, new] = folders.values().collect::<Vec<_>>()[..] else {
        panic!("there are two machines in Split: {folders:?}");
    };
    let theirs = qmp::legs(new, &lab.dir);
    assert_eq!(theirs, BTreeSet::from([upgrade.clone()]));
    let ours = qmp::legs(old, &lab.dir);
    assert!(!ours.contains(&upgrade), "{ours:?}");
    assert!(ours.is_subset(&production), "{ours:?}");
    assert!(ours.contains(&path_of(&status, "system0", |leg| leg.authority)));
    kills.start_again(lab, None);
    lab.is_in(S::Split, READY);
}

#[track_caller]
fn copied_only_what_changed(lab: &Lab, status: &Status) {
    for disk in &status.disks {
        lab.note(&format!(
            "{}: {} bytes copied, {} had changed",
            disk.name, disk.resync_copied, disk.resync_union
        ));
        assert!(disk.resync_union > 0, "{}: nothing changed", disk.name);
        assert!(
            disk.resync_copied as f64 <= COPIED * disk.resync_union as f64 + WRITTEN_MEANWHILE,
            "{}: {} bytes were copied of {}",
            disk.name,
            disk.resync_copied,
            disk.resync_union
        );
    }
}

// The first upgrade of the issue, start to end, in the order of the guide: SM-07, SP-02, MG-04, CM-08, FN-10.
#[test]
#[ignore = "not yet green from start to end on a loaded machine: `./dev test --full`"]
fn commit_cycle() {
    let Some(mut lab) = Lab::booted() else { return };
    let (mut figures, mut kills) = (Figures::default(), Kills::default());
    what_the_check_refuses(&lab);
    only_what_is_allowed(&lab);
    let first_boot = lab.boot_id();
    split(&lab, &mut figures);
    let in_split = Instant::now();
    only_what_is_allowed(&lab);
    lab.refused(
        &["restart", NAME, "--side", "production"],
        3,
        &["never restarted"],
    );
    isolated_as_qemu_says(&mut lab, &mut kills);
    lab.sh(None, MARK);
    let before = lab.sh(None, "cat /proc/sys/kernel/random/boot_id");
    assert_eq!(before.trim(), first_boot, "the split is a fork, not a boot");
    lab.ok(&["restart", NAME, "--side", "upgrade"]);
    lab.upgrade_side_is_up_again(before.trim());
    isolated(&lab, &lab.status());
    assert_eq!(lab.sh(None, "cat /var/opt/marker").trim(), "new");
    let there = lab.try_sh(Some("production"), "test -e /var/opt/marker");
    assert_eq!(
        there.status,
        Some(1),
        "the marker is on the other side only"
    );
    lab.client().settle();
    let failed = lab.client().failures_since(in_split);
    assert!(failed.is_empty(), "in Split: {failed:#?}");

    merge(&lab, &mut figures);
    only_what_is_allowed(&lab);
    assert_ne!(
        lab.boot_id(),
        first_boot,
        "the users are on the other machine"
    );
    lab.ok(&["commit", NAME, "--yes"]);
    lab.is_in(S::Commit, READY);
    only_what_is_allowed(&lab);
    let status = lab.finish();
    copied_only_what_changed(&lab, &status);
    assert_eq!(
        lab.sh(Some("production"), "cat /var/opt/marker").trim(),
        "new"
    );
    assert_eq!(processes::machines(&lab.dir).len(), 1);
    lab.note(&kills.told());
    lab.stop_and_compare();
    figures.tell(&lab);
}

/// A service that does not exist or does not run is an error of the check, which leaves no session.
#[track_caller]
fn what_the_check_refuses(lab: &Lab) {
    for (service, says) in [
        ("no-such-thing.service", "no-such-thing"),
        ("rsync.service", "rsync"),
    ] {
        let file = lab.dir.join("wrong.Config");
        let text = format!("version = 1\ntitle = \"x\"\nservices = [\"{service}\"]\n");
        std::fs::write(&file, text).expect("written");
        let file = file.display().to_string();
        lab.refused(&["check", NAME, "--config", &file], 1, &["readiness check"]);
        let log = lab.ok(&["log", NAME, "--severity", "Error"]);
        assert!(log.contains(says), "{log}");
        // `split` checks first: an Error leaves Idle | Broken and no session.
        lab.refused(&["split", NAME, "--config", &file], 1, &["readiness check"]);
        let status = lab.is_in(S::Idle, O::Broken);
        assert_eq!((status.session, status.errors > 0), (None, true));
        assert_eq!(processes::machines(&lab.dir).len(), 1);
    }
    lab.ok(&["check", NAME, "--config", &lab.config()]);
    lab.is_in(S::Idle, READY);
}

// AB-04, AB-05, AB-14: no reboot, no new software, no lost write.
#[test]
#[ignore = "not yet green from start to end on a loaded machine: `./dev test --full`"]
fn abort_cycle() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    let first_boot = lab.boot_id();
    for round in 0..2 {
        split(&lab, &mut figures);
        lab.sh(None, MARK);
        if round == 0 {
            let before = lab.sh(None, "cat /proc/sys/kernel/random/boot_id");
            lab.ok(&["restart", NAME, "--side", "upgrade"]);
            lab.upgrade_side_is_up_again(before.trim());
        }
        merge(&lab, &mut figures);
        assert_eq!(lab.sh(Some("upgrade"), "cat /var/opt/marker").trim(), "new");
        // Some users write while they are on the Upgrade Side.
        let moved = Instant::now();
        until("the users have written after the merge", SERVED * 4, || {
            (lab.client().acknowledged_since(moved) >= 5).then_some(())
        });
        abort(&lab, &mut figures);
        only_what_is_allowed(&lab);
        assert_eq!(
            lab.boot_id(),
            first_boot,
            "Production continues without a boot"
        );
        clock_is_right(&lab, "production");
        let status = lab.finish();
        copied_only_what_changed(&lab, &status);
        let there = lab.try_sh(Some("production"), "test -e /var/opt/marker");
        assert_eq!(there.status, Some(1), "the marker was taken back");
    }
    // Abort in Split costs no request.
    let began = lab.client().settle();
    split(&lab, &mut figures);
    lab.sh(None, MARK);
    abort(&lab, &mut figures);
    lab.finish();
    lab.client().settle();
    let failed = lab.client().failures_since(began);
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(lab.boot_id(), first_boot);
    assert_eq!(processes::machines(&lab.dir).len(), 1);
    lab.stop_and_compare();
    figures.tell(&lab);
}

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

#[test]
#[ignore = "not yet green from start to end on a loaded machine: `./dev test --full`"]
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

#[test]
#[ignore = "not yet green from start to end on a loaded machine: `./dev test --full`"]
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

// The Upgrade Side's machine and the guard die as well, not only the server.
#[test]
#[ignore = "not yet green from start to end on a loaded machine: `./dev test --full`"]
fn kill_the_upgrade_side_and_the_guard() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    let first_boot = lab.boot_id();
    split(&lab, &mut figures);
    lab.sh(None, MARK);
    let began = lab.client().settle();
    let machines = processes::machines(&lab.dir);
    let upgrade = machines.values().last().expect("two machines");
    processes::kill(*upgrade, &lab.dir);
    until("the loss is shown", RESYNC, || {
        (lab.status().partner_state == Some(flipside_model::PartnerState::DcOff)).then_some(())
    });
    lab.serves(SERVED, "after the loss of the Upgrade Side");
    lab.refused(&["run", NAME, "--", "true"], 125, &[]);
    abort(&lab, &mut figures);
    lab.finish();
    lab.client().settle();
    let failed = lab.client().failures_since(began);
    assert!(failed.is_empty(), "{failed:#?}");
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
