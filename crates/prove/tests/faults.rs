//! Every changing call of every path, hit by every fault once.
//!
//! The server crashes before and after it, it fails, hangs, loses its answer, or is done twice, or half. A careful
//! administrator goes on (start the server, retry, abort if that does not help). Afterwards: Idle, Ready, every mirror
//! whole, every acknowledged write there, and exactly one software, the one that the way through the session demands.
//! All invariants are checked all the time (reliability.md sections 1 and 2; SM-16, SM-20, invariants 13 to 16).

use flipside_backend_sim::{Fault, FaultKind};
use flipside_prove::ways::{Way, story};
use flipside_prove::{Bench, run};

/// Runs a way with a fault; returns the number of changing calls it made.
fn try_way(way: Way, fault: Option<(u64, FaultKind)>) -> Result<u64, String> {
    run(|| async {
        let mut bench = Bench::new(1, 1).await;
        bench.power_on().await;
        bench.world.clear_trace();
        if let Some((n, kind)) = fault {
            bench.world.plan(Fault::nth_effect(n, kind));
        }
        let result = story(&mut bench, way).await;
        let calls = bench.world.calls();
        let hit = calls
            .iter()
            .find(|c| c.fault.is_some())
            .map(|c| c.name.clone());
        let effects = calls.iter().filter_map(|c| c.effect).max().unwrap_or(0);
        result
            .map(|()| effects)
            .map_err(|why| format!("at {}: {why}", hit.unwrap_or_else(|| "nothing".to_owned())))
    })
}

fn every_call(kind: &FaultKind) {
    let mut failures = Vec::new();
    let mut runs = 0;
    for way in Way::CORE {
        let effects = try_way(way, None).expect("without a fault");
        for n in 1..=effects {
            runs += 1;
            if let Err(why) = try_way(way, Some((n, kind.clone()))) {
                failures.push(format!("{way:?} {kind:?} call {n} {why}"));
            }
        }
    }
    eprintln!("{kind:?}: {runs} runs, {} failures", failures.len());
    assert!(
        failures.is_empty(),
        "{} of {runs} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn crash_before_every_call() {
    every_call(&FaultKind::CrashBefore);
}

#[test]
fn crash_after_every_call() {
    every_call(&FaultKind::CrashAfter);
}

#[test]
fn failure_of_every_call() {
    every_call(&FaultKind::FailBefore);
}

#[test]
fn lost_answer_of_every_call() {
    every_call(&FaultKind::LostReply);
}

#[test]
fn hang_of_every_call() {
    every_call(&FaultKind::Hang { done: false });
}

#[test]
fn hang_after_every_call() {
    every_call(&FaultKind::Hang { done: true });
}

#[test]
fn every_call_twice() {
    every_call(&FaultKind::Twice);
}

#[test]
fn every_call_torn_and_crashed() {
    for parts in 1..=3 {
        every_call(&FaultKind::TornCrash(parts));
    }
}

#[test]
fn every_call_torn_and_failed() {
    for parts in 1..=3 {
        every_call(&FaultKind::Torn(parts));
    }
}
