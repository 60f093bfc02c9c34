//! The ways through a session, what must be so at their end, and one fault on them.

use super::{Bench, unpanicked};
use flipside_backend_sim::{Fault, FaultKind, GuestConfig, glob};
use flipside_journal::Fault as DiskFault;
use flipside_model::{Command, Fact, ProblemCode, Record, UpgradeState as S};
use flipside_prove::run;
use std::io::ErrorKind;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Commit,
    AbortInMerge,
    AbortInSplit,
}

/// The ways of the product's own `prove` that have a checkpoint of the data or a rehearsal; mistakes with them are noticed
/// there.
pub const PRODUCT_WAYS: [flipside_prove::ways::Way; 5] = [
    flipside_prove::ways::Way::DiscardData,
    flipside_prove::ways::Way::KeepData,
    flipside_prove::ways::Way::CommitWithCheckpoint,
    flipside_prove::ways::Way::RehearseAndCommit,
    flipside_prove::ways::Way::RehearseAndAbort,
];

pub const WAYS: [Way; 3] = [Way::Commit, Way::AbortInMerge, Way::AbortInSplit];

/// What goes wrong on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hit {
    Nothing,
    /// The nth changing call.
    Call(u64, FaultKind),
    /// The same, and a server that dies stays away for a while.
    CallAndAway(u64, FaultKind),
    /// The nth call of the journal's storage.
    Journal(u64),
}

/// How long the server stays away: longer than anybody may be paused without it (invariant 23).
const AWAY: Duration = Duration::from_secs(10);

pub async fn story(bench: &mut Bench, way: Way, hit: &Hit) -> Result<(), String> {
    let installed = config(bench);
    let reached = walk(bench, way).await?;
    let wanted = if way == Way::Commit {
        S::Commit
    } else {
        S::Abort
    };
    if *hit == Hit::Nothing && reached != wanted {
        return Err(format!("nothing failed, and yet it ended in {reached}"));
    }
    if reached == S::Commit {
        commit_is_final(bench).await?;
    }
    let end = bench.reach(Command::Finish, S::Idle).await?;
    if end != S::Idle {
        return Err(format!("finished in {end}"));
    }
    whole_again(bench).await?;
    let expected = if reached == S::Commit { "2.0" } else { "1.0" };
    if bench.version().as_deref() != Some(expected) {
        return Err(format!(
            "serves {:?} after {reached}, not {expected}",
            bench.version()
        ));
    }
    nothing_is_left(bench, installed)?;
    if *hit == Hit::Nothing {
        as_fast_as_promised(bench)?;
    }
    Ok(())
}

/// Waits until every mirror is whole and the users are served, and looks whether that is the truth.
pub async fn whole_again(bench: &mut Bench) -> Result<(), String> {
    bench.duplex().await?;
    bench.served_within(Duration::from_secs(300)).await?;
    bench.check()?;
    for disk in &bench.spec.disks {
        if bench.world.differing_bytes(&disk.name) > 0 {
            return Err(format!("the legs of {} differ", disk.name));
        }
    }
    Ok(())
}

/// Returns what the guest keeps on the system disk that decides.
fn config(bench: &Bench) -> Option<GuestConfig> {
    let disk = &bench.spec.disks[0].name;
    let authority = bench.world.book().disks[disk].authority;
    bench.world.leg(disk, authority)?.config.as_deref().cloned()
}

/// FN-10, fault 73: neither a machine nor a gate nor a changed startup type stays behind.
fn nothing_is_left(bench: &Bench, installed: Option<GuestConfig>) -> Result<(), String> {
    if bench.world.machines().len() != 1 {
        return Err(format!("left over: {:?}", bench.world.machines()));
    }
    let now = config(bench);
    let what = |c: &GuestConfig| (c.units.clone(), c.hold.clone(), c.lifted);
    if now.as_ref().map(what) != installed.as_ref().map(what) {
        return Err(format!("left over in the guest: {:?}", now.map(|c| c.hold)));
    }
    if !bench.world.carried().is_empty() {
        return Err("a carrier was left over".to_owned());
    }
    Ok(())
}

/// SM-14, invariant 14: after the decision an abort is refused.
async fn commit_is_final(bench: &mut Bench) -> Result<(), String> {
    match bench.command(Command::Abort).await {
        Err(problem) if problem.code == ProblemCode::Refused => Ok(()),
        other => Err(format!("an abort after the commit: {other:?}")),
    }
}

/// Without a fault nothing is compared as a whole, and nobody's clock is late (targets.md; design 3.7, 3.8).
fn as_fast_as_promised(bench: &Bench) -> Result<(), String> {
    let compared = bench.system().entries_after(0).into_iter().any(|e| {
        matches!(
            e.record,
            Record::Fact(Fact::Resyncing { compare: true, .. })
        )
    });
    if compared {
        return Err("a whole disk was compared although nothing had failed".to_owned());
    }
    let serving = bench.world.serving()?;
    if bench.world.clock_late(serving) {
        return Err(format!("the clock of {serving} is late"));
    }
    Ok(())
}

async fn walk(bench: &mut Bench, way: Way) -> Result<S, String> {
    if bench.reach(Command::Split, S::Split).await? == S::Abort {
        return Ok(S::Abort);
    }
    if way == Way::AbortInSplit {
        return bench.reach(Command::Abort, S::Abort).await;
    }
    bench.install("2.0")?;
    if bench.reach(Command::Merge, S::Merge).await? == S::Abort {
        return Ok(S::Abort);
    }
    match way {
        Way::Commit => bench.reach(Command::Commit, S::Commit).await,
        _ => bench.reach(Command::Abort, S::Abort).await,
    }
}

/// What a way has that could go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The names of its changing calls, in order.
    pub effects: Vec<String>,
    pub journal_calls: u64,
}

/// Runs a way with a fault; a panic (a hang, most often) is a failure like others.
pub fn try_way(way: Way, hit: &Hit) -> Result<Count, String> {
    unpanicked(|| run(|| walk_and_count(way, hit)))
}

async fn walk_and_count(way: Way, hit: &Hit) -> Result<Count, String> {
    let mut bench = Bench::new(1, 1).await;
    bench.power_on().await;
    bench.world.clear_trace();
    let journal = bench.disk.calls();
    match hit {
        Hit::Nothing => {}
        Hit::Call(n, kind) => bench.world.plan(Fault::nth_effect(*n, kind.clone())),
        Hit::CallAndAway(n, kind) => {
            bench.away = AWAY;
            bench.world.plan(Fault::nth_effect(*n, kind.clone()));
        }
        Hit::Journal(n) => {
            let kind = ErrorKind::Other;
            bench
                .disk
                .fail_call(journal + n, DiskFault { kind, written: 0 });
        }
    }
    let mut result = story(&mut bench, way, hit).await;
    // It may have ended just before the story did, and then nobody had to start it again.
    if matches!(hit, Hit::Journal(_)) && bench.lives == 1 && !bench.world.crashed() {
        result = result.and(Err(
            "the server went on after its disk had failed".to_owned()
        ));
    }
    let calls = bench.world.calls();
    let name = calls
        .iter()
        .find(|c| c.fault.is_some())
        .map_or("nothing", |c| c.name.as_str());
    result.map_err(|why| format!("at {name}: {why}"))?;
    Ok(Count {
        effects: calls
            .iter()
            .filter(|c| c.effect.is_some())
            .map(|c| c.name.clone())
            .collect(),
        journal_calls: bench.disk.calls() - journal,
    })
}

/// Runs a way with every hit of a kind at the calls whose name matches; hands each result to `judge` until that says
/// stop (`false`).
pub fn every(
    way: Way,
    hits: &Hits,
    calls: &str,
    mut judge: impl FnMut(&Hit, Result<Count, String>) -> bool,
) {
    let Ok(count) = try_way(way, &Hit::Nothing) else {
        return;
    };
    let matching = (1..)
        .zip(&count.effects)
        .filter(|(_, name)| glob(calls, name))
        .map(|(n, _)| n);
    let all: Vec<Hit> = match hits {
        Hits::Calls(kind) => matching.map(|n| Hit::Call(n, kind.clone())).collect(),
        Hits::CallsAndAway(kind) => matching
            .map(|n| Hit::CallAndAway(n, kind.clone()))
            .collect(),
        // Every record takes three calls; a seventh of them meets all three alike.
        Hits::Journal => (1..=count.journal_calls)
            .step_by(7)
            .map(Hit::Journal)
            .collect(),
    };
    for hit in all {
        let result = try_way(way, &hit);
        if !judge(&hit, result) {
            return;
        }
    }
}

/// A kind of hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hits {
    Calls(FaultKind),
    CallsAndAway(FaultKind),
    Journal,
}
