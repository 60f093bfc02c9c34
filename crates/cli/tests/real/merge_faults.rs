//! Merges that cannot go on: users are served on exactly one side again, with every acknowledged write, whatever
//! stops the merge and wherever it stops.

use crate::real::figures::Figures;
use crate::real::kills::Kills;
use crate::real::{BOOT, Lab, NAME, client, processes, until};
use crate::{MARK, READY, RESYNC, SERVED, abort, merge, runs_the_old_software, split};
use flipside_model::{OperationalState as O, UpgradeState as S};
use std::time::Duration;

/// Seconds that a service gets to stop or to start in these tests.
const PATIENCE: u32 = 15;

/// What only a stop of the service would have to wait for.
const DROP_IN: &str = "/run/systemd/system/mini-writer.service.d";

/// The configuration of these tests: a service that hangs is not waited for that long.
fn impatient(lab: &Lab) -> String {
    let file = lab.dir.join("impatient.Config");
    let text = format!(
        "{}\n[timeouts]\nservice = {PATIENCE}\nhealth = {PATIENCE}\n",
        crate::real::CONFIG
    );
    std::fs::write(&file, text).expect("written");
    file.display().to_string()
}

/// A split with these time-outs.
fn split_impatient(lab: &Lab) {
    lab.ok(&["split", NAME, "--config", &impatient(lab)]);
    lab.is_in(S::Split, READY);
    lab.sh(None, MARK);
}

/// The merge, or its retry, fails; the text names what stood in its way.
#[track_caller]
fn merge_fails(lab: &Lab, says: &str) -> S {
    let again = lab.status().operational_state == O::Broken;
    let command = if again { "retry" } else { "merge" };
    let ended = lab.run(&[command, NAME, "--yes"]);
    assert_eq!(ended.status, Some(1), "{}{}", ended.out, ended.err);
    let status = lab.status();
    assert_eq!(status.operational_state, O::Broken, "{}", status.line());
    let problem = format!("{:?}", status.problem);
    assert!(problem.contains(says), "`{says}` is not in {problem}");
    status.upgrade_state
}

// Fault 43: a process keeps the data's file system busy. Users are served by Production again; the process is named.
fn busy_file_system(lab: &Lab) {
    lab.sh(
        Some("production"),
        "systemd-run --quiet --unit=holder sh -c 'exec sleep 3600 </srv/data/writes.log'",
    );
    let state = merge_fails(lab, "sleep");
    lab.serves(SERVED, "after a busy file system");
    assert!(matches!(state, S::PrepareMerge | S::Merge), "{state}");
    lab.sh(Some("production"), "systemctl stop holder.service");
}

// Fault 42: an application that does not stop.
fn application_does_not_stop(lab: &Lab) {
    let hangs = format!(
        "mkdir -p {DROP_IN} && printf '[Service]\\nExecStop=/bin/sleep 3600\\nTimeoutStopSec=infinity\\n' \
         >{DROP_IN}/hang.conf && systemctl daemon-reload"
    );
    lab.sh(Some("production"), &hangs);
    merge_fails(lab, "mini-writer.service");
    let heal = format!(
        "rm -r {DROP_IN}; systemctl daemon-reload; systemctl kill --signal=KILL mini-writer.service; \
         systemctl start mini-writer.service"
    );
    lab.sh(Some("production"), &heal);
    lab.serves(BOOT, "after an application that did not stop");
}

// Faults 42 and 43, and a retry that goes on where the merge was taken back.
#[test]
#[ignore = "a whole session with merges that fail, three minutes: `./dev test --full`"]
fn a_merge_that_fails_before_the_data_moves_is_taken_back() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    let first_boot = lab.boot_id();
    split_impatient(&lab);
    busy_file_system(&lab);
    assert_eq!(lab.boot_id(), first_boot);
    lab.nothing_is_lost();
    application_does_not_stop(&lab);
    assert_eq!(lab.boot_id(), first_boot);
    lab.nothing_is_lost();
    lab.ok(&["retry", NAME]);
    lab.is_in(S::Merge, READY);
    assert_eq!(lab.sh(Some("upgrade"), "cat /var/opt/marker").trim(), "new");
    abort(&lab, &mut figures);
    assert_eq!(lab.boot_id(), first_boot);
    lab.finish();
    lab.stop_and_compare();
}

// Fault 45: the upgraded application does not start. Fault 46: what it wrote stays after the abort, for data moves and is
// not copied (the rule of the design).
#[test]
#[ignore = "two sessions, one with a merge that fails, three minutes: `./dev test --full`"]
fn an_upgrade_that_does_not_serve_is_taken_back() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    let first_boot = lab.boot_id();
    split_impatient(&lab);
    lab.sh(None, "chmod -x /usr/local/sbin/mini-writer");
    assert_eq!(merge_fails(&lab, "mini-writer.service"), S::Merge);
    abort(&lab, &mut figures);
    lab.serves(SERVED, "after an abort of a broken merge");
    assert_eq!(lab.boot_id(), first_boot);
    lab.finish();

    split(&lab, &mut figures);
    merge(&lab, &mut figures);
    lab.sh(Some("upgrade"), "echo format 2 >/srv/data/format; sync");
    abort(&lab, &mut figures);
    let format = lab.sh(Some("production"), "cat /srv/data/format");
    assert_eq!(format.trim(), "format 2", "data is moved, never copied");
    lab.finish();
    lab.stop_and_compare();
}

// Fault 28: the upgraded machine dies while users are on it. Production was only paused: the abort continues it.
#[test]
#[ignore = "two machines that die, three minutes: `./dev test --full`"]
fn an_upgraded_machine_that_dies_in_merge_is_taken_back() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    let first_boot = lab.boot_id();
    split(&lab, &mut figures);
    lab.sh(None, MARK);
    merge(&lab, &mut figures);
    let [_, upgrade] = processes::sides(&lab.dir);
    processes::kill(upgrade, &lab.dir);
    until("the loss is shown", RESYNC, || {
        (!lab.status().running).then_some(())
    });
    until("the loss is told, with the way out", RESYNC, || {
        let log = lab.ok(&["log", NAME, "--severity", "Error"]);
        log.contains("`flipside abort` brings the users back")
            .then_some(())
    });
    assert_eq!(
        lab.status().upgrade_state,
        S::Merge,
        "nothing happens by itself"
    );
    lab.ok(&["abort", NAME, "--yes"]);
    lab.serves(SERVED, "after the abort");
    assert_eq!(lab.boot_id(), first_boot, "Production was only paused");
    lab.finish();
    runs_the_old_software(&lab);
    lab.stop_and_compare();
}

// Fault 26: Production dies in the middle of a merge, together with the server. The session says so, users are served on one
// side in the end, and every acknowledged write is there.
#[test]
#[ignore = "a boot in an abort, three minutes: `./dev test --full`"]
fn production_that_dies_in_a_merge_costs_no_write() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut kills = Kills::default();
    lab.ok(&["split", NAME]);
    lab.sh(None, MARK);
    lab.server.kill();
    kills.start_again(&mut lab, Some("merge.close_data:act"));
    lab.run(&["merge", NAME, "--yes", "--no-wait"]);
    assert!(lab.server.until_dead(RESYNC, |_| None::<()>).is_none());
    lab.server.bury();
    let [production, _] = processes::sides(&lab.dir);
    processes::kill(production, &lab.dir);
    kills.start_again(&mut lab, None);
    // It goes on by itself where it can, and says what it cannot do.
    until("the operation has ended", Duration::from_secs(310), || {
        (lab.status().operational_state != O::Busy).then_some(())
    });
    let status = lab.status();
    lab.note(&format!("{}: {:?}", status.line(), status.problem));
    lab.ok(&["abort", NAME, "--yes"]);
    until("production serves again", BOOT, || {
        client::ask(lab.port, "/health", SERVED).ok()
    });
    lab.finish();
    runs_the_old_software(&lab);
    lab.stop_and_compare();
}
