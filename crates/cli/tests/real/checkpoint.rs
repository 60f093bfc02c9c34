//! The data checkpoint at a merge, on real machines: an upgraded application changes the format of its data, and an abort
//! takes them back, or keeps them.

use crate::real::figures::Figures;
use crate::real::legs::by_machine;
use crate::real::{CONFIG, Lab, NAME};
use crate::{READY, RESYNC, SERVED, abort};
use flipside_model::{DiskRole, MirrorStatus, OperationalState as O, Status, UpgradeState as S};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What the data looks like before the merge, and what the upgraded application makes of it.
const BEFORE: &str = "echo format 1 >/srv/data/format; sync";
const AFTER: &str =
    "echo format 2 >/srv/data/format; head -c 3000000 /dev/urandom >/srv/data/new; sync";

fn split_with_checkpoint(lab: &Lab) {
    let file = lab.dir.join("checkpoint.Config");
    std::fs::write(&file, format!("{CONFIG}checkpoint = true\n")).expect("written");
    lab.sh(Some("production"), BEFORE);
    lab.ok(&["split", NAME, "--config", &file.display().to_string()]);
    lab.is_in(S::Split, READY);
    // In Split nothing has moved: there is nothing to take back, and the refusal says so.
    lab.refused(
        &["abort", NAME, "--yes", "--discard-data"],
        3,
        &["has moved no data", "flipside abort"],
    );
}

/// Merges, and looks whether the second leg of the data rests: nobody has it open, and the status says what it is.
#[track_caller]
fn merge(lab: &Lab) -> Status {
    lab.ok(&["merge", NAME, "--yes"]);
    lab.client().settle();
    let status = lab.is_in(S::Merge, READY);
    lab.note(&format!("merge: outage {:?} ms", status.outage_ms));
    let data = status.disks.iter().find(|d| d.role == DiskRole::Data);
    let data = data.expect("a data disk");
    assert_eq!(data.mirror, MirrorStatus::Simplex);
    let kept = data.legs.iter().find(|l| l.role == "checkpoint");
    let kept = kept.expect("a leg keeps the data").path.clone();
    let open: BTreeSet<PathBuf> = by_machine(&lab.dir)
        .into_values()
        .flat_map(std::collections::BTreeMap::into_keys)
        .collect();
    assert!(!open.contains(&kept), "{} is open", kept.display());
    assert!(status.checkpoint_ms.is_some());
    assert!(lab.ok(&["status", NAME]).contains("--discard-data"));
    status
}

/// Closes the session and waits for the mirrors.
#[track_caller]
fn close(lab: &mut Lab) {
    lab.ok(&["finish", NAME]);
    lab.ok(&["wait", NAME, "--duplex", "--timeout", "300"]);
    lab.stop_and_compare();
}

// DK-28, fault 46, second half: the bytes of the merge are back, nothing that was acknowledged before it is lost, both legs
// are equal in the end, and no whole disk was compared for it.
#[test]
#[ignore = "a whole session, two minutes: `./dev test --full`"]
fn an_abort_that_discards_data_restores_the_bytes_of_the_merge() {
    let Some(mut lab) = Lab::booted() else { return };
    let first_boot = lab.boot_id();
    split_with_checkpoint(&lab);
    lab.client().settle();
    let before = lab.client().acknowledged();
    assert!(!before.is_empty(), "users have written");
    merge(&lab);
    lab.sh(Some("upgrade"), AFTER);
    lab.ok(&["abort", NAME, "--yes", "--discard-data"]);
    lab.is_in(S::Abort, O::Ready);
    lab.serves(SERVED, "after the abort");
    assert_eq!(lab.boot_id(), first_boot, "Production was only paused");
    let format = lab.sh(Some("production"), "cat /srv/data/format; ls /srv/data");
    assert!(format.starts_with("format 1\n"), "{format}");
    assert!(!format.contains("new"), "{format}");
    let file = lab.sh(Some("production"), "cat /srv/data/writes.log");
    let held: BTreeSet<&str> = file.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    let lost: Vec<&String> = before
        .iter()
        .filter(|k| !held.contains(k.as_str()))
        .collect();
    assert!(lost.is_empty(), "acknowledged before the merge: {lost:?}");
    crate::real::until("the resync of the data is told", RESYNC, || {
        let log = lab.ok(&["log", NAME]);
        log.contains("data0: resynchronisation from leg")
            .then_some(())
    });
    let log = lab.ok(&["log", NAME]);
    assert!(
        log.contains("the data are taken back to the checkpoint"),
        "{log}"
    );
    close(&mut lab);
}

// DK-28: with a checkpoint a plain abort still keeps what was written, and a commit does.
#[test]
#[ignore = "two sessions, three minutes: `./dev test --full`"]
fn a_checkpoint_that_is_not_asked_for_changes_nothing() {
    let Some(mut lab) = Lab::booted() else { return };
    let mut figures = Figures::default();
    split_with_checkpoint(&lab);
    merge(&lab);
    lab.sh(Some("upgrade"), AFTER);
    abort(&lab, &mut figures);
    let format = lab.sh(Some("production"), "cat /srv/data/format");
    assert_eq!(format.trim(), "format 2", "data is moved, never copied");
    lab.finish();
    split_with_checkpoint(&lab);
    merge(&lab);
    lab.sh(Some("upgrade"), AFTER);
    lab.ok(&["commit", NAME, "--yes"]);
    lab.is_in(S::Commit, O::Ready);
    lab.finish();
    let format = lab.sh(Some("production"), "cat /srv/data/format");
    assert_eq!(format.trim(), "format 2");
    lab.stop_and_compare();
}
