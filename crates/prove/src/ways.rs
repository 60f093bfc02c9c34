//! The ways through a session that are proved, each told without faults: what is commanded, and what must hold at the
//! end whatever happened on the way.

use crate::bench::{Bench, End};
use flipside_backend_sim::{GuestFault, LegFault, SimOptions};
use flipside_model::api::PowerAction;
use flipside_model::{
    Command, DiskName, DiskRole, Leg, OperationalState as O, ProblemCode, Side, UpgradeState as S,
};
use std::time::Duration;

mod actions;

/// How long the memory is copied when the server is away: longer than the guard keeps an intent that nobody needs.
const COPYING: Duration = Duration::from_secs(15);

/// A way through a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Split, merge, commit, finish.
    Commit,
    /// Split, merge, abort, finish.
    AbortInMerge,
    /// Split, abort, finish.
    AbortInSplit,
    /// An abort while the memory is copied.
    AbortWhileForking,
    /// An abort while the users move.
    AbortWhileMerging,
    /// The new software is unhealthy: the merge breaks, and is aborted (fault 45).
    UnhealthyThenAbort,
    /// A unit does not stop at first: the merge breaks, is retried after healing, and committed (fault 42).
    BrokenThenRetry,
    /// The Upgrade Side's machine dies in Split, and the session is aborted (fault 27).
    UpgradeDiesInSplit,
    /// The Production Side's machine dies in Split, and the abort boots it from its own legs (fault 25).
    ProductionDiesInSplit,
    /// The paused Production Side is gone when the merge is aborted, so it boots from its own legs (fault 26).
    ProductionDiesInMerge,
    /// A leg fails while nothing happens, is healed and compared as a whole (faults 16, 17).
    LegFails,
    /// The system is stopped and started between two sessions.
    StopAndStart,
    /// Two system disks and two data disks, committed.
    ManyDisks,
    /// A merge that keeps a checkpoint of the data, and an abort that takes them back to it (fault 46).
    DiscardData,
    /// The same, and an abort that keeps what was written since.
    KeepData,
    /// A merge that keeps a checkpoint of the data, committed.
    CommitWithCheckpoint,
    /// A custom action of every type and saved logs, committed (faults 56 to 60).
    CommitWithActions,
    /// The new software is tried on copies of the data, stopped and tried again, then merged and committed.
    RehearseAndCommit,
    /// The new software is tried on copies of the data, and the session is aborted while it runs.
    RehearseAndAbort,
}

impl Way {
    /// Every way.
    pub const ALL: [Way; 19] = [
        Way::Commit,
        Way::AbortInMerge,
        Way::AbortInSplit,
        Way::AbortWhileForking,
        Way::AbortWhileMerging,
        Way::UnhealthyThenAbort,
        Way::BrokenThenRetry,
        Way::UpgradeDiesInSplit,
        Way::ProductionDiesInSplit,
        Way::ProductionDiesInMerge,
        Way::LegFails,
        Way::StopAndStart,
        Way::ManyDisks,
        Way::DiscardData,
        Way::KeepData,
        Way::CommitWithCheckpoint,
        Way::CommitWithActions,
        Way::RehearseAndCommit,
        Way::RehearseAndAbort,
    ];

    /// The core ways, for pairs.
    pub const CORE: [Way; 3] = [Way::Commit, Way::AbortInMerge, Way::AbortInSplit];

    /// Returns its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Way::Commit => "commit",
            Way::AbortInMerge => "abort-in-merge",
            Way::AbortInSplit => "abort-in-split",
            Way::AbortWhileForking => "abort-while-forking",
            Way::AbortWhileMerging => "abort-while-merging",
            Way::UnhealthyThenAbort => "unhealthy-then-abort",
            Way::BrokenThenRetry => "broken-then-retry",
            Way::UpgradeDiesInSplit => "upgrade-dies-in-split",
            Way::ProductionDiesInSplit => "production-dies-in-split",
            Way::ProductionDiesInMerge => "production-dies-in-merge",
            Way::LegFails => "leg-fails",
            Way::StopAndStart => "stop-and-start",
            Way::ManyDisks => "many-disks",
            Way::DiscardData => "discard-data",
            Way::KeepData => "keep-data",
            Way::CommitWithCheckpoint => "commit-with-checkpoint",
            Way::CommitWithActions => "commit-with-actions",
            Way::RehearseAndCommit => "rehearse-and-commit",
            Way::RehearseAndAbort => "rehearse-and-abort",
        }
    }

    /// Finds a way by its name.
    pub fn find(name: &str) -> Option<Way> {
        Way::ALL.into_iter().find(|w| w.name() == name)
    }

    /// Returns how many system and data disks it has.
    pub fn disks(self) -> (usize, usize) {
        if self == Way::ManyDisks {
            (2, 2)
        } else {
            (1, 1)
        }
    }

    /// Returns its kind of world.
    pub fn options(self) -> SimOptions {
        let mut options = SimOptions {
            copying_alone: COPYING,
            ..SimOptions::default()
        };
        match self {
            Way::UnhealthyThenAbort => {
                options.unhealthy_versions.insert("2.0".to_owned());
            }
            Way::CommitWithActions => actions::files(&mut options),
            // Calls take time, so that an abort finds something to interrupt.
            Way::AbortWhileForking | Way::AbortWhileMerging => {
                options.latency = Duration::from_millis(1);
                options.precopy_polls = 8;
            }
            _ => {}
        }
        options
    }
}

/// Tells a way from start to end, and checks the end.
pub async fn story(bench: &mut Bench, way: Way) -> Result<(), String> {
    let reached = walk(bench, way).await?;
    if reached != S::Idle {
        let end = bench.reach(Command::Finish, S::Idle).await?;
        if end != S::Idle {
            return Err(format!("finished in {end}"));
        }
    }
    let expected = if reached == S::Commit { "2.0" } else { "1.0" };
    all_is_well(bench, expected).await
}

/// The end of every way: Idle, every mirror whole and equal, one machine, which serves the software that the session
/// decided on (invariants 7, 8, 13, 14, 22).
pub async fn all_is_well(bench: &mut Bench, expected: &str) -> Result<(), String> {
    bench.duplex().await?;
    bench
        .until(Duration::from_secs(300), |b| b.world.client_ok())
        .await;
    bench.check()?;
    if bench.version().as_deref() != Some(expected) {
        return Err(format!("serves {:?}, not {expected}", bench.version()));
    }
    for disk in &bench.spec.disks {
        if bench.world.differing_bytes(&disk.name) > 0 {
            return Err(format!("the legs of {} differ", disk.name));
        }
    }
    if bench.world.scratch() != (false, None) {
        return Err(format!(
            "a scratch disk is left: {:?}",
            bench.world.scratch()
        ));
    }
    if bench.world.machines().len() != 1 {
        return Err(format!("left over: {:?}", bench.world.machines()));
    }
    Ok(())
}

fn install(bench: &Bench) -> Result<(), String> {
    let upgrade = bench
        .system()
        .machine_for(None)
        .map_err(|p| p.to_string())?;
    bench
        .world
        .install(upgrade, "2.0")
        .map_err(|e| e.to_string())
}

fn kill_production(bench: &Bench) -> Result<(), String> {
    let production = bench
        .system()
        .machine_for(Some(Side::Production))
        .map_err(|p| p.to_string())?;
    bench.world.kill_machine(production);
    Ok(())
}

async fn walk(bench: &mut Bench, way: Way) -> Result<S, String> {
    if matches!(
        way,
        Way::DiscardData | Way::KeepData | Way::CommitWithCheckpoint
    ) {
        return with_checkpoint(bench, way).await;
    }
    match way {
        Way::RehearseAndCommit | Way::RehearseAndAbort => return rehearsed(bench, way).await,
        Way::LegFails => return leg_fails(bench).await,
        Way::StopAndStart => return stop_and_start(bench).await,
        Way::CommitWithActions => return actions::walk(bench).await,
        Way::AbortWhileForking => {
            return abort_while(bench, Command::Split, "machine.fork_poll.*").await;
        }
        _ => {}
    }
    if bench.reach(Command::Split, S::Split).await? == S::Abort {
        return Ok(S::Abort);
    }
    if way == Way::UpgradeDiesInSplit {
        let upgrade = bench
            .system()
            .machine_for(None)
            .map_err(|p| p.to_string())?;
        bench.world.kill_machine(upgrade);
    }
    if way == Way::ProductionDiesInSplit {
        kill_production(bench)?;
    }
    if matches!(
        way,
        Way::AbortInSplit | Way::UpgradeDiesInSplit | Way::ProductionDiesInSplit
    ) {
        return bench.reach(Command::Abort, S::Abort).await;
    }
    install(bench)?;
    match way {
        Way::AbortWhileMerging => {
            return abort_while(bench, Command::Merge, "guest.close_data.*").await;
        }
        Way::UnhealthyThenAbort => return unhealthy(bench).await,
        Way::BrokenThenRetry => {
            broken_once(bench).await?;
            let reached = bench.reach_from(None, Command::Merge, S::Merge).await?;
            if reached == S::Abort {
                return Ok(S::Abort);
            }
            return bench.reach(Command::Commit, S::Commit).await;
        }
        _ => {}
    }
    if bench.reach(Command::Merge, S::Merge).await? == S::Abort {
        return Ok(S::Abort);
    }
    if way == Way::ProductionDiesInMerge {
        kill_production(bench)?;
    }
    match way {
        Way::AbortInMerge | Way::ProductionDiesInMerge => {
            bench.reach(Command::Abort, S::Abort).await
        }
        _ => bench.reach(Command::Commit, S::Commit).await,
    }
}

/// How long users write to the upgraded software before it is taken back: a few dozen writes.
const TESTED: Duration = Duration::from_secs(1);

/// Keeps a checkpoint at the merge; what is written after it is discarded, or the checkpoint is.
async fn with_checkpoint(bench: &mut Bench, way: Way) -> Result<S, String> {
    bench.config.checkpoint = true;
    if way == Way::CommitWithCheckpoint {
        bench.config.carry = vec![SPOOL.to_owned()];
        spool(bench, "old", Some(b"delivered later"))?;
        spool(bench, "both", Some(b"before"))?;
    }
    bench.discards = way == Way::DiscardData;
    if bench.reach(Command::Split, S::Split).await? == S::Abort {
        return Ok(S::Abort);
    }
    install(bench)?;
    if way == Way::CommitWithCheckpoint {
        users_spool(bench)?;
    }
    if bench.reach(Command::Merge, S::Merge).await? == S::Abort {
        return Ok(S::Abort);
    }
    tokio::time::sleep(TESTED).await;
    bench.check()?;
    if way == Way::CommitWithCheckpoint {
        let reached = bench.reach(Command::Commit, S::Commit).await?;
        if reached == S::Commit {
            is_carried(bench)?;
        }
        return Ok(reached);
    }
    let reached = bench.reach(Command::Abort, S::Abort).await?;
    // Somebody else's abort may have been first, and keeps what was written.
    let asked = bench.system().state().facts.discard_data;
    if asked != bench.world.discarded(&data0()) {
        return Err(format!("asked to discard data: {asked}, but it is not so"));
    }
    if asked != bench.discards && !bench.not_alone {
        return Err(format!(
            "the abort believes that data are to be discarded: {asked}"
        ));
    }
    Ok(reached)
}

/// Tries the new software on copies of the data while the users write to the data themselves.
async fn rehearsed(bench: &mut Bench, way: Way) -> Result<S, String> {
    bench.config.rehearsal = true;
    if bench.reach(Command::Split, S::Split).await? == S::Abort {
        return Ok(S::Abort);
    }
    install(bench)?;
    rehearse(bench, true).await?;
    if way == Way::RehearseAndAbort {
        return bench.reach(Command::Abort, S::Abort).await;
    }
    rehearse(bench, false).await?;
    rehearse(bench, true).await?;
    if bench.reach(Command::Merge, S::Merge).await? == S::Abort {
        return Ok(S::Abort);
    }
    bench.reach(Command::Commit, S::Commit).await
}

/// Asks until the applications of the rehearsal run, or do not, and lets what runs write.
async fn rehearse(bench: &mut Bench, start: bool) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..8 {
        if bench.system.is_none() {
            bench.revive().await?;
        }
        let system = bench.system().clone();
        let result = tokio::select! {
            biased;
            () = bench.world.await_crash() => None,
            result = system.rehearse(start) => Some(result),
        };
        bench.check()?;
        if bench.world.crashed() {
            bench.bury();
            continue;
        }
        match result {
            Some(Ok(status)) if status.running.is_empty() != start => {
                written_on_copies(bench, start)?;
                return bench.check();
            }
            Some(Ok(status)) => last = format!("asked for {start}, and it is {status:?}"),
            // A session that somebody aborted, or a side that did not survive, is for the next command.
            Some(Err(problem)) if problem.code == ProblemCode::Refused => return Ok(()),
            Some(Err(problem)) => last = problem.to_string(),
            None => {}
        }
    }
    Err(format!("no rehearsal: {last}"))
}

/// The applications write, and no user ever sees it; what runs has its data mounted.
fn written_on_copies(bench: &Bench, running: bool) -> Result<(), String> {
    let upgrade = bench.system().machine_for(Some(Side::Upgrade));
    let upgrade = upgrade.map_err(|p| p.to_string())?;
    if !bench.world.on_overlays(upgrade) {
        return Err("the rehearsal does not run on copies".to_owned());
    }
    for _ in 0..if running { 20 } else { 0 } {
        bench.world.guest_write(upgrade, &data0());
    }
    Ok(())
}

/// A spool on the system disk that is carried over.
const SPOOL: &str = "/var/spool/app";

/// Writes a file of the spool on the Production Side.
fn spool(bench: &Bench, name: &str, bytes: Option<&[u8]>) -> Result<(), String> {
    let production = bench.system().machine_for(Some(Side::Production));
    let production = production.map_err(|p| p.to_string())?;
    let path = format!("{SPOOL}/{name}");
    let written = bench.world.write_file(production, &path, bytes);
    written.map_err(|e| e.to_string())
}

/// What happens to the spool while the system is divided: files come, go, and change on both sides.
fn users_spool(bench: &Bench) -> Result<(), String> {
    spool(bench, "new", Some(b"a mail"))?;
    spool(bench, "old", None)?;
    spool(bench, "both", Some(b"production's"))?;
    let upgrade = bench.system().machine_for(Some(Side::Upgrade));
    let upgrade = upgrade.map_err(|p| p.to_string())?;
    let path = format!("{SPOOL}/both");
    let written = bench.world.write_file(upgrade, &path, Some(b"upgraded"));
    written.map_err(|e| e.to_string())
}

/// After the commit the spool holds what came, not what went, and what the upgrade itself had changed (design 3.5).
fn is_carried(bench: &Bench) -> Result<(), String> {
    let serving = bench.world.serving()?;
    let read = |name: &str| bench.world.read_file(serving, &format!("{SPOOL}/{name}"));
    let (new, old, both) = (read("new"), read("old"), read("both"));
    if new.as_deref() != Some(b"a mail") {
        return Err(format!(
            "a file of the Production Side was not carried over: {new:?}"
        ));
    }
    if old.is_some() {
        return Err("a file that had been removed on the Production Side came back".to_owned());
    }
    if both.as_deref() != Some(b"upgraded") {
        return Err(format!(
            "a file of the Upgrade Side was overwritten: {both:?}"
        ));
    }
    Ok(())
}

/// Commands something, aborts it in the middle of a call, and goes on until the abort is done.
async fn abort_while(bench: &mut Bench, command: Command, call: &str) -> Result<S, String> {
    let seen = bench.world.called();
    let mut taken = bench.send(command).await;
    for _ in 0..10 {
        // It was not taken down: the administrator reads why and asks again.
        if !matches!(&taken, Err(problem) if problem.code != ProblemCode::Refused) {
            break;
        }
        taken = bench.send(command).await;
    }
    match taken {
        Ok(true) => {}
        Ok(false) => return bench.reach(Command::Abort, S::Abort).await.or(Ok(S::Idle)),
        Err(problem) => return Err(problem.to_string()),
    }
    loop {
        if bench.world.crashed() {
            bench.bury();
            break;
        }
        if bench.world.called_since(seen, call) {
            break;
        }
        if bench.status().operational_state != O::Busy {
            break;
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    abort_or_idle(bench).await
}

/// Aborts until the session is aborted; a session that had not begun is Idle all the same.
async fn abort_or_idle(bench: &mut Bench) -> Result<S, String> {
    if bench.system.is_none() {
        bench.revive().await?;
        bench.settled().await;
        if bench.system.is_none() {
            bench.revive().await?;
        }
    }
    if bench.status().upgrade_state == S::Idle {
        bench.reach(Command::Check, S::Idle).await?;
        return Ok(S::Idle);
    }
    bench.reach(Command::Abort, S::Abort).await
}

/// The merge must break, and the abort must give the users back their old software.
async fn unhealthy(bench: &mut Bench) -> Result<S, String> {
    if let Ok(End::State(_, O::Ready, _)) = bench.command(Command::Merge).await {
        return Err("an unhealthy merge is Ready".to_owned());
    }
    abort_or_idle(bench).await
}

/// A unit does not stop: the merge breaks with users served by the old software again; then the cause is mended.
async fn broken_once(bench: &mut Bench) -> Result<(), String> {
    let fault = GuestFault::WillNotStop("db.service".to_owned());
    bench.world.guest_fault(None, fault);
    let end = bench.command(Command::Merge).await;
    if let Ok(End::State(_, O::Ready, _)) = end {
        return Err("a merge is Ready although a unit did not stop".to_owned());
    }
    bench.world.clear_guest_faults();
    bench.check()
}

fn data0() -> DiskName {
    DiskName::numbered(DiskRole::Data, 0)
}

async fn leg_fails(bench: &mut Bench) -> Result<S, String> {
    bench.world.fail_leg(&data0(), Leg::A, LegFault::Write);
    bench
        .until(Duration::from_secs(60), |b| !b.world.book().duplexed())
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.check()?;
    bench.world.heal_leg(&data0(), Leg::A);
    bench.duplex().await?;
    // Leg B leads now, and a session from there must work as well (SM-25).
    if bench.reach(Command::Split, S::Split).await? == S::Abort {
        return Ok(S::Abort);
    }
    bench.reach(Command::Abort, S::Abort).await
}

async fn stop_and_start(bench: &mut Bench) -> Result<S, String> {
    for (action, running) in [(PowerAction::Stop, false), (PowerAction::Start, true)] {
        power(bench, action, running).await?;
    }
    power(bench, PowerAction::Kill, false).await?;
    power(bench, PowerAction::Start, true).await?;
    bench.duplex().await?;
    bench.reach(Command::Check, S::Idle).await
}

/// Asks for power until it is as wanted.
pub(crate) async fn power(
    bench: &mut Bench,
    action: PowerAction,
    running: bool,
) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..8 {
        if bench.system.is_none() {
            bench.revive().await?;
        }
        let system = bench.system().clone();
        let result = tokio::select! {
            biased;
            () = bench.world.await_crash() => None,
            result = system.power(action) => Some(result),
        };
        bench.check()?;
        match result {
            Some(Ok(())) if !bench.world.crashed() => {
                if bench.world.client_ok() == running || !running {
                    return Ok(());
                }
                // It boots: users are served as soon as the guest is up.
                tokio::time::sleep(Duration::from_secs(10)).await;
                if bench.world.client_ok() {
                    return Ok(());
                }
                last = format!("{:?}", bench.world.serving());
            }
            Some(Err(problem)) => last = problem.to_string(),
            _ => {}
        }
        if bench.world.crashed() {
            bench.bury();
        }
    }
    Err(format!("no {action:?}: {last}"))
}
