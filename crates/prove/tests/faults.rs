//! A taste of what `./dev prove` does: one way through a session, with a fault at every changing call.
//!
//! `./dev prove` enumerates every way, call and fault for each change (`.ci/run`); this finds a break of the harness, or of
//! the engine, while one works on it with `cargo nextest`. Afterwards: Idle, Ready, every mirror whole, every acknowledged
//! write there, and the software that the way through the session demands; all invariants are checked all the time
//! (reliability.md sections 1 and 2; SM-16, SM-20, invariants 13 to 16).

use flipside_backend_sim::FaultKind;
use flipside_prove::cases::{self, Case, Clean, clean_runs};
use flipside_prove::ways::Way;

/// The shortest way that divides a system and brings it together again.
const WAY: Way = Way::AbortInSplit;

fn all_pass(cases: Vec<Case>) {
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let failure = cases::hit(case).failure?;
            Some(format!("./dev prove --run '{}': {failure}", case.plan))
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

fn clean() -> Vec<Clean> {
    let runs = clean_runs(&[WAY]).expect("without a fault");
    assert!(runs[0].outcome.effects() > 50, "too short a way");
    runs
}

/// Leaves the cases with a fault like this.
fn only(mut cases: Vec<Case>, kind: &FaultKind) -> Vec<Case> {
    cases.retain(|case| case.plan.faults.iter().any(|f| f.kind == *kind));
    assert!(cases.len() > 50, "{kind:?} hits hardly anything");
    cases
}

// Fault 1.
#[test]
fn a_crash_after_every_call() {
    all_pass(only(cases::crash(&clean()), &FaultKind::CrashAfter));
}

// Faults 30 and 31.
#[test]
fn a_lost_answer_of_every_call() {
    all_pass(only(cases::fail_nth(&clean()), &FaultKind::LostReply));
}

// Fault 2: a crash in the recovery from a crash, and one more in the recovery from that.
#[test]
fn a_third_crash_in_the_recovery_from_a_second() {
    let first = only(cases::crash(&clean()), &FaultKind::CrashAfter).remove(20);
    let second = and_one_more(&first);
    let third = and_one_more(&second);
    assert_eq!(third.plan.faults.len(), 3);
    all_pass(vec![first, second, third]);
}

/// Returns the case with one more crash, in the middle of what follows its last one.
fn and_one_more(case: &Case) -> Case {
    let further = cases::further(case, &cases::hit(case), cases::core_crashes);
    assert!(further.len() > 10, "nothing follows {}", case.plan);
    further[further.len() / 2].clone()
}
