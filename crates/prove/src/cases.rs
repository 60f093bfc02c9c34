//! Lists the cases of each part from runs without faults: nothing is listed by hand, so nothing can be forgotten.

use crate::run::{Outcome, Plan, perform};
use crate::ways::Way;
use flipside_backend_sim::{BookCut, Call, Fault, FaultKind};
use flipside_platform::PortErrorKind;

/// As much as there is.
const ALL_KEPT: usize = 1 << 20;

/// A plan, and the call that its last fault must meet.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is run.
    pub plan: Plan,
    /// The call that is hit, with the step it is made in; none where no fault is planned.
    pub name: Option<String>,
}

/// A way and its run without faults.
pub struct Clean {
    /// The way.
    pub way: Way,
    /// The run.
    pub outcome: Outcome,
}

/// Runs every way without faults.
///
/// # Errors
/// The first way that fails without any fault.
pub fn clean_runs(ways: &[Way]) -> Result<Vec<Clean>, String> {
    let mut runs = Vec::new();
    for way in ways {
        let outcome = perform(&Plan::clean(*way));
        if let Some(why) = &outcome.failure {
            return Err(format!("{} fails without a fault: {why}", way.name()));
        }
        runs.push(Clean { way: *way, outcome });
    }
    Ok(runs)
}

/// Names a call with the step it is made in.
pub fn name_of(call: &Call) -> String {
    format!("{}/{}", call.label, call.name)
}

fn of_journal(call: &Call) -> bool {
    call.name.starts_with("journal.")
}

/// Returns the crashes at a call: before, torn at every place, after.
fn crashes(call: &Call) -> Vec<FaultKind> {
    let mut kinds = vec![FaultKind::CrashBefore];
    kinds.extend((1..call.parts).map(FaultKind::TornCrash));
    kinds.push(FaultKind::CrashAfter);
    kinds
}

/// Every crash point: each changing call of each way, before, torn and after (faults 1, 25 to 28, 70, 71).
pub fn crash(runs: &[Clean]) -> Vec<Case> {
    let mut cases = Vec::new();
    for run in runs {
        for call in &run.outcome.calls {
            let Some(effect) = call.effect else { continue };
            for kind in crashes(call) {
                cases.push(Case {
                    plan: Plan::clean(run.way).with(Fault::nth_effect(effect, kind)),
                    name: Some(name_of(call)),
                });
            }
        }
    }
    cases
}

/// The same with the power of the host gone; what the journal had not synced is lost, or all of it survives, and what the
/// leg book had not synced is lost, torn, emptied or survives (fault 6).
pub fn power(runs: &[Clean]) -> Vec<Case> {
    let mut cases = Vec::new();
    for mut case in crash(runs) {
        case.plan.power = true;
        let journal = case.name.as_ref().is_some_and(|n| n.contains("/journal."));
        if journal {
            let mut kept = case.clone();
            kept.plan.kept = ALL_KEPT;
            cases.push(kept);
        }
        if case
            .name
            .as_ref()
            .is_some_and(|n| n.ends_with("/legs.store"))
        {
            for book in BookCut::ALL.into_iter().filter(|b| *b != BookCut::Lost) {
                let mut kept = case.clone();
                kept.plan.book = book;
                cases.push(kept);
            }
        }
        cases.push(case);
    }
    cases
}

fn failures(call: &Call) -> Vec<FaultKind> {
    let full = FaultKind::FailWith(PortErrorKind::NoSpace);
    match (of_journal(call), call.effect) {
        // EIO, ENOSPC, EINTR; an append that is cut short; a sync that worked and says it did not (faults 11, 12).
        (true, _) => vec![
            FaultKind::FailBefore,
            full,
            FaultKind::FailWith(PortErrorKind::TimedOut),
            FaultKind::Torn(2),
            FaultKind::LostReply,
        ],
        (false, None) => vec![FaultKind::FailBefore, FaultKind::Hang { done: false }],
        (false, Some(_)) => {
            let mut kinds = vec![
                FaultKind::FailBefore,
                FaultKind::LostReply,
                FaultKind::Hang { done: false },
                FaultKind::Hang { done: true },
                FaultKind::Twice,
            ];
            for part in 1..call.parts {
                kinds.push(FaultKind::Torn(part));
                kinds.push(FaultKind::TornLost(part));
            }
            kinds
        }
    }
}

/// Fails the Nth call, for every N and every kind: journal, machines, guests, network, leg book (faults 11, 12, 30, 31).
pub fn fail_nth(runs: &[Clean]) -> Vec<Case> {
    fail_nth_once(runs, &Way::ALL)
}

/// The same with all kinds on some ways only, and one kind for each call of the others: another one for each call, in turn.
pub fn fail_nth_once(runs: &[Clean], wholly: &[Way]) -> Vec<Case> {
    let mut cases = Vec::new();
    for run in runs {
        for call in &run.outcome.calls {
            let mut kinds = failures(call);
            if !wholly.contains(&run.way) {
                let turn = usize::try_from(call.n).unwrap_or(0) % kinds.len();
                kinds = vec![kinds.swap_remove(turn)];
            }
            for kind in kinds {
                cases.push(Case {
                    plan: Plan::clean(run.way).with(Fault::nth(call.n, kind)),
                    name: Some(name_of(call)),
                });
            }
        }
    }
    cases
}

/// A second administrator's abort at every changing call (invariant 13, faults 62 and 63).
pub fn abort(runs: &[Clean]) -> Vec<Case> {
    let mut cases = Vec::new();
    for run in runs {
        for effect in run.outcome.calls.iter().filter_map(|c| c.effect) {
            let mut plan = Plan::clean(run.way);
            plan.abort_at = Some(effect);
            cases.push(Case { plan, name: None });
        }
    }
    cases
}

/// Lists one more crash for a case: at every changing call that follows its last one, by its trace (fault 2).
pub fn further(before: &Case, outcome: &Outcome, kinds: fn(&Call) -> Vec<FaultKind>) -> Vec<Case> {
    let hit = outcome
        .hits()
        .filter_map(|c| c.effect)
        .last()
        .unwrap_or(u64::MAX);
    let mut cases = Vec::new();
    for call in &outcome.calls {
        let Some(effect) = call.effect.filter(|e| *e > hit) else {
            continue;
        };
        for kind in kinds(call) {
            cases.push(Case {
                plan: before.plan.clone().with(Fault::nth_effect(effect, kind)),
                name: Some(name_of(call)),
            });
        }
    }
    cases
}

/// The crashes of a core pair: after the call, which is before the next one as well.
pub fn core_crashes(_: &Call) -> Vec<FaultKind> {
    vec![FaultKind::CrashAfter]
}

/// All crashes at a call.
pub fn all_crashes(call: &Call) -> Vec<FaultKind> {
    crashes(call)
}

/// Runs a case. A call that was not met is a failure: then the list would not be the truth.
pub fn hit(case: &Case) -> Outcome {
    let mut outcome = perform(&case.plan);
    let Some(name) = case.name.as_ref().filter(|_| outcome.failure.is_none()) else {
        return outcome;
    };
    let met = outcome.hits().last().map(name_of);
    if met.as_ref() != Some(name) {
        outcome.failure = Some(format!("{name} was to be hit, and {met:?} was"));
    }
    outcome
}
