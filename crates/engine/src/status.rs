//! Composes the status that every client sees.

use crate::context::Cx;
use crate::monitor::Seen;
use flipside_model::{
    ActionRun, DiskStatus, HardwareState, LegBook, LegPair, LegRole, LegStatus, LogSelection,
    LogsSaved, MirrorStatus, StaleReason, Status, UpgradeState,
};
use flipside_session::{SessionState, Step, law};

/// Returns a percentage, 0 to 99: 100 is only said by `None`.
pub(crate) fn percent(done: u64, total: u64) -> u8 {
    let ratio = u128::from(done) * 100 / u128::from(total.max(1));
    u8::try_from(ratio.min(99)).unwrap_or(99)
}

pub(crate) fn compose(cx: &Cx, seen: &Seen, version: &str) -> Status {
    let state = cx.state();
    let facts = &state.facts;
    Status {
        system: cx.spec.name.clone(),
        running: seen.running,
        hardware_state: hardware(&state, seen),
        upgrade_state: state.upgrade,
        operational_state: state.operational,
        partner_state: seen.partner,
        session: state.session,
        config: state.config_name.clone(),
        allowed: law::allowed(&state),
        problem: state.problem.clone(),
        step: state
            .running
            .as_ref()
            .and_then(Step::find)
            .map(|s| s.title().to_owned()),
        progress: cx.progress(),
        warnings: state.findings.0,
        errors: state.findings.1,
        action: facts.action.as_ref().map(ActionRun::shown),
        not_saved: not_saved(&state),
        disks: seen
            .book
            .as_ref()
            .map(|book| disks(cx, &state, book))
            .unwrap_or_default(),
        pause_ms: facts.forked.map(|f| f.pause_us as f64 / 1000.0),
        outage_ms: facts.outage.map(|o| o.door_ms),
        outage_inside_ms: facts.outage.map(|o| o.inside_ms),
        checkpoint_ms: seen.book.as_ref().and_then(|book| checkpoint(&state, book)),
        accelerator: seen.accelerator.clone(),
        published: cx
            .spec
            .publish
            .iter()
            .map(|p| format!("{}:{}->{}", p.address, p.host_port, p.guest_port))
            .collect(),
        last_seq: state.last_seq,
        version: version.to_owned(),
    }
}

/// Since when the data are kept as they were, as long as that is so.
fn checkpoint(state: &SessionState, book: &LegBook) -> Option<i64> {
    let kept = book.disks.iter().filter(|(_, p)| p.checkpoint().is_some());
    kept.filter_map(|(disk, _)| state.facts.checkpoints.get(disk).copied())
        .max()
}

/// LB-11, CM-11: what a commit loses although it was to be saved.
fn not_saved(state: &SessionState) -> Vec<String> {
    let backup = &state.settings().log_backup;
    if state.upgrade != UpgradeState::Merge || backup.logs.is_empty() {
        return Vec::new();
    }
    if backup.directory.is_none() {
        let log = |log: &LogSelection| format!("{log}: no directory was given");
        return backup.logs.iter().map(log).collect();
    }
    let lost = |saved: &LogsSaved| {
        let copies = saved.lost().into_iter();
        copies
            .map(|c| format!("{}: {}", c.log, c.failure.as_deref().unwrap_or_default()))
            .collect()
    };
    state
        .facts
        .logs_saved
        .as_ref()
        .map(lost)
        .unwrap_or_default()
}

// SB-04 to SB-07; design section 7: Simplex only in Idle with a failed or absent leg, or nothing running.
fn hardware(state: &SessionState, seen: &Seen) -> HardwareState {
    let failed = seen.book.as_ref().is_some_and(|book| {
        book.disks
            .values()
            .any(|p| matches!(p.stale(), Some((_, StaleReason::Failed(_)))))
    });
    match state.upgrade {
        UpgradeState::Idle if !seen.running || failed => HardwareState::Simplex,
        UpgradeState::Split | UpgradeState::PrepareMerge if state.facts.divided => {
            HardwareState::ProductionSide
        }
        UpgradeState::Merge if state.operational != flipside_model::OperationalState::Ready => {
            HardwareState::ProductionSide
        }
        _ => HardwareState::FaultTolerant,
    }
}

fn disks(cx: &Cx, state: &SessionState, book: &LegBook) -> Vec<DiskStatus> {
    let progress = cx.mirrors.progress();
    cx.spec
        .disks
        .iter()
        .filter_map(|disk| {
            let pair = book.disks.get(&disk.name)?;
            let running = progress.get(&disk.name);
            let last = state.facts.resynced.get(&disk.name);
            let mirror = match (pair.duplexed(), running, pair.stale()) {
                (true, ..) => MirrorStatus::None,
                (false, Some((done, total, _)), _) => MirrorStatus::Resync(percent(*done, *total)),
                (false, None, Some((_, StaleReason::Failed(_)))) => MirrorStatus::Simplex,
                (false, None, Some(_)) => MirrorStatus::Resync(0),
                (false, None, None) => MirrorStatus::Simplex,
            };
            let (copied, union) = match (running, last) {
                (Some((done, total, _)), _) => (*done, *total),
                (None, Some(figures)) => (figures.copied_bytes, figures.union_bytes),
                (None, None) => (0, 0),
            };
            Some(DiskStatus {
                name: disk.name.clone(),
                role: cx.role(&disk.name),
                size: disk.size,
                mirror,
                resync_copied: copied,
                resync_union: union,
                legs: legs(pair),
            })
        })
        .collect()
}

pub(crate) fn legs(pair: &LegPair) -> Vec<LegStatus> {
    flipside_model::Leg::BOTH
        .iter()
        .map(|leg| {
            let entry = pair.get(*leg);
            let (role, reason) = match &entry.role {
                LegRole::Live => ("live", None),
                LegRole::Original => ("original", None),
                LegRole::Upgraded => ("upgraded", None),
                LegRole::Frozen => ("frozen", None),
                LegRole::Checkpoint => ("checkpoint", None),
                LegRole::Stale(reason) => ("stale", Some(why(reason))),
            };
            LegStatus {
                leg: *leg,
                path: entry.path.clone(),
                role: role.to_owned(),
                reason,
                authority: *leg == pair.authority,
            }
        })
        .collect()
}

fn why(reason: &StaleReason) -> String {
    match reason {
        StaleReason::Session => "left behind by the session".to_owned(),
        StaleReason::Failed(text) => format!("failed: {text}"),
        StaleReason::Unclean => "may lack writes: it is compared as a whole".to_owned(),
        StaleReason::New => "new".to_owned(),
    }
}
