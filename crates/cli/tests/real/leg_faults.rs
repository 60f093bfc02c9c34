//! Legs that fail in a session: what one leg does costs no user a request, the other leg is never touched for it, and
//! a leg that works again is brought into sync by itself.
//!
//! A node of QEMU's `blkdebug` refuses one sector of each leg of the system disk, in the gap between the partition table
//! and the first partition. A server that is started without it opens the legs as they are, as after a replaced cable.

use crate::real::figures::Figures;
use crate::real::{Extras, Lab, NAME, until};
use crate::{MARK, READY, RESYNC, SERVED, abort, merge, split};
use flipside_model::{MirrorStatus, Status, UpgradeState as S};
use serde_json::{Value, json};

/// Sectors of two different blocks of the resynchronisation; GRUB's image ends before them.
const BAD_ON_A: u64 = 1800;
const BAD_ON_B: u64 = 1950;

/// A sector of a third block, which leg B cannot read the first time.
const HARD_TO_READ_ON_B: u64 = 1670;

/// Every write of the bad sectors fails, however often it is tried.
fn chain() -> String {
    let rule = |how: &str, sector: u64, once: bool| json!({ "event": "none", "iotype": how, "errno": 5, "sector": sector, "once": once });
    let node = |rules: &[Value]| json!({ "driver": "blkdebug", "inject-error": rules });
    json!({
        "system0/A": node(&[rule("write", BAD_ON_A, false)]),
        "system0/B": node(&[
            rule("write", BAD_ON_B, false),
            rule("read", HARD_TO_READ_ON_B, true),
        ]),
    })
    .to_string()
}

fn extras(chain: Option<String>) -> Extras {
    Extras {
        chain,
        ..Extras::default()
    }
}

/// Starts the server again: legs that are opened from now on have this below them.
fn serve_with(lab: &mut Lab, chain: Option<String>) {
    lab.server.kill();
    lab.server.set_chain(chain);
    lab.server.start(None);
    until("the server names a state", SERVED * 4, || {
        lab.server.status().ok()
    });
}

/// Writes a sector of the system disk; says whether the guest was told that it is written.
fn writes(lab: &Lab, side: &str, sector: u64) -> bool {
    let line = format!(
        "disk=/dev/$(lsblk -no PKNAME $(findmnt -no SOURCE /) | head -1); \
         timeout 20 dd if=/dev/urandom of=$disk bs=512 seek={sector} count=1 oflag=direct conv=notrunc status=none"
    );
    lab.try_sh(Some(side), &line).status == Some(0)
}

fn mirror(status: &Status) -> MirrorStatus {
    let disk = status.disks.iter().find(|d| d.name.as_str() == "system0");
    disk.expect("the system disk").mirror
}

fn until_mirror(lab: &Lab, what: &str, wanted: impl Fn(&MirrorStatus) -> bool) {
    until(what, RESYNC, || {
        wanted(&mirror(&lab.status())).then_some(())
    });
}

/// What is logged of severity Error or Warning says this.
#[track_caller]
fn log_names(lab: &Lab, text: &str) {
    let log = lab.ok(&["log", NAME]);
    assert!(log.contains(text), "`{text}` is not in the log:\n{log}");
}

// Faults 16, 17 and 74 in Idle: a write that fails costs the leg, not the user; no session begins without its mirror.
fn in_idle(lab: &mut Lab) {
    let began = lab.client().settle();
    assert!(writes(lab, "production", BAD_ON_B), "the other leg has it");
    until_mirror(lab, "the lost leg is shown", |m| *m != MirrorStatus::None);
    lab.refused(&["split", NAME], 1, &[]);
    lab.is_in(S::Idle, flipside_model::OperationalState::Broken);
    log_names(lab, "system0");
    lab.client().settle();
    let failed = lab.client().failures_since(began);
    assert!(failed.is_empty(), "{failed:#?}");
    serve_with(lab, None);
    lab.duplex();
    lab.ok(&["retry", NAME]);
    lab.is_in(S::Idle, READY);
}

// Fault 18: the only leg of the Upgrade Side fails. Production serves, the abort brings the leg back.
fn in_split(lab: &mut Lab, figures: &mut Figures) {
    serve_with(lab, Some(chain()));
    let began = lab.client().settle();
    split(lab, figures);
    assert!(!writes(lab, "upgrade", BAD_ON_B), "there is no other leg");
    lab.serves(SERVED, "while the Upgrade Side's leg fails");
    assert!(
        writes(lab, "production", BAD_ON_B),
        "Production's own leg is whole"
    );
    lab.is_in(S::Split, READY);
    serve_with(lab, None);
    abort(lab, figures);
    lab.finish();
    let failed = lab.client().failures_since(began);
    assert!(failed.is_empty(), "{failed:#?}");
}

// Faults 17 and 72 in Commit: the good leg cannot be read once, then the leg that is to be rewritten fails. The upgraded side
// serves on one leg, the resynchronisation is tried again, and what is not in sync is never said to be.
fn in_commit(lab: &mut Lab, figures: &mut Figures) {
    serve_with(lab, Some(chain()));
    split(lab, figures);
    lab.sh(None, MARK);
    assert!(
        writes(lab, "upgrade", BAD_ON_A),
        "the other leg is bad there"
    );
    merge(lab, figures);
    let began = lab.client().settle();
    lab.ok(&["commit", NAME, "--yes"]);
    until("a failed resynchronisation is logged", RESYNC, || {
        let log = lab.ok(&["log", NAME, "--severity", "Warning"]);
        log.contains("system0").then_some(())
    });
    assert_ne!(mirror(&lab.status()), MirrorStatus::None);
    lab.note(&lab.ok(&["log", NAME, "--severity", "Warning"]));
    lab.serves(SERVED, "while the other leg cannot be rewritten");
    serve_with(lab, None);
    let status = lab.finish();
    assert_eq!(mirror(&status), MirrorStatus::None);
    lab.client().settle();
    let failed = lab.client().failures_since(began);
    assert!(failed.is_empty(), "{failed:#?}");
}

// Faults 18 and 19 in Merge, 17 in Abort: the only leg below the system that users are on fails, so it stands still. The abort
// gives them Production back with every write that was acknowledged, and the leg that cannot be rewritten is not said to be
// in sync before it is.
fn in_merge(lab: &mut Lab, figures: &mut Figures) {
    serve_with(lab, Some(chain()));
    split(lab, figures);
    lab.sh(None, MARK);
    merge(lab, figures);
    assert!(!writes(lab, "upgrade", BAD_ON_B), "there is no other leg");
    until("the failing system is told of", RESYNC, || {
        let log = lab.ok(&["log", NAME, "--severity", "Error"]);
        log.contains("m2").then_some(())
    });
    lab.ok(&["abort", NAME, "--yes"]);
    lab.is_in(S::Abort, READY);
    lab.serves(SERVED, "after the abort");
    let began = lab.client().settle();
    serve_with(lab, None);
    let status = lab.finish();
    assert_eq!(mirror(&status), MirrorStatus::None);
    lab.client().settle();
    let failed = lab.client().failures_since(began);
    assert!(failed.is_empty(), "{failed:#?}");
    let marker = lab.try_sh(Some("production"), "test -e /var/opt/marker");
    assert_eq!(marker.status, Some(1), "the upgrade was taken back");
}

#[test]
#[ignore = "three sessions and a resynchronisation, six minutes: `./dev test --full`"]
fn a_leg_that_fails_in_any_state_costs_no_request() {
    let Some(mut lab) = Lab::booted_with(|_| extras(Some(chain()))) else {
        return;
    };
    let mut figures = Figures::default();
    in_idle(&mut lab);
    in_split(&mut lab, &mut figures);
    in_merge(&mut lab, &mut figures);
    in_commit(&mut lab, &mut figures);
    lab.stop_and_compare();
}
