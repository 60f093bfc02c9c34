//! The mirror keeper: brings every stale leg back, whenever the session allows it.
//!
//! It wants one thing, all disks duplexed, and compares it with the book; so it goes on after a crash of the server by
//! itself. Direction is always authority to stale and is journaled first (invariant 11). A failing target never harms
//! the running side: it stays stale, is named in the log, and is tried again later.

use crate::context::{Cx, Exclusive, Step};
use crate::steps::checkpoint;
use crate::{devices, legs};
use flipside_model::{
    DiskName, DiskRole, Fact, LegBook, LegPair, LegRole, MachineId, OperationalState as O, Problem,
    ProblemCode, Severity, StaleReason, UpgradeState as S, planted,
};
use flipside_platform::{DiskSource, ResyncPhase, ResyncStart, ResyncView, RunState};
use flipside_session::SessionState;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Copying is limited to this many bytes per second: unthrottled it starved a writer (p50 57 ms), at 200 MB/s the
/// same writer saw p50 0.1 ms (qemu.md, pitfall 20).
const RATE: u64 = 200_000_000;

/// After a failed target, wait this long before the next try: long enough not to fill the log, short enough that a
/// replaced disk is found while the administrator still looks.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The guard continues a machine that a dead server left paused in the last round after this many milliseconds; the
/// pause itself was measured at 6 to 9 ms.
const LAST_PAUSE_MS: i64 = 2_000;

/// How long a merge waits for a resynchronisation of a data disk that is nearly done before it gives it up.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
struct Running {
    view: Option<ResyncView>,
    since: Instant,
    retry_at: Option<Instant>,
}

/// What is being resynchronised. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mirrors {
    running: Arc<Mutex<BTreeMap<DiskName, Running>>>,
}

impl Mirrors {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<DiskName, Running>) -> T) -> T {
        f(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says whether nothing is being copied.
    pub(crate) fn idle(&self) -> bool {
        self.with(|running| running.values().all(|r| r.view.is_none()))
    }

    /// Returns how far each disk is: bytes done, bytes in all, seconds since it began.
    pub(crate) fn progress(&self) -> BTreeMap<DiskName, (u64, u64, f64)> {
        self.with(|running| {
            running
                .iter()
                .filter_map(|(disk, r)| {
                    let view = r.view.as_ref()?;
                    Some((
                        disk.clone(),
                        (
                            view.done_bytes,
                            view.total_bytes,
                            r.since.elapsed().as_secs_f64(),
                        ),
                    ))
                })
                .collect()
        })
    }
}

/// Says whether the keeper may touch the disks: never while an operation moves them.
fn allowed(state: &SessionState) -> bool {
    matches!(
        (state.upgrade, state.operational),
        (S::Idle, _) | (S::Finish, _) | (S::Split | S::Merge | S::Commit | S::Abort, O::Ready)
    )
}

/// One look at every stale leg; called again and again. Returns whether anything is left to do.
pub(crate) async fn tick(cx: &Cx) -> Result<bool, Problem> {
    if !allowed(&cx.state()) {
        return Ok(false);
    }
    let held = cx.exclusive().await?;
    if !allowed(&cx.state()) {
        return Ok(false);
    }
    let book = cx.book().await?;
    let Some(machine) = book.owner else {
        return Ok(false);
    };
    if book.disks.values().any(|p| p.stale().is_some()) {
        mend_roots(cx, &held, machine, &book).await?;
    }
    let mut open = false;
    for (disk, pair) in &book.disks {
        if pair.stale().is_none() {
            cx.mirrors.with(|running| running.remove(disk));
            continue;
        }
        open = true;
        if let Err(problem) = advance(cx, &held, machine, disk, pair).await {
            give_up(cx, &held, machine, disk, &problem).await?;
        }
    }
    Ok(open)
}

/// Ends swaps of a root that the end of the server interrupted, before anything lets the machine run on without it.
///
/// The job that began the swap may have ended with the server (a full compare does), so nobody else would: the root gets
/// the legs that the book calls live, and the resynchronisation begins again.
async fn mend_roots(
    cx: &Cx,
    held: &Exclusive<'_>,
    machine: MachineId,
    book: &LegBook,
) -> Result<(), Problem> {
    let view = cx.view(machine).await?;
    let torn: Vec<&DiskName> = view
        .disks
        .iter()
        .filter(|(_, d)| d.source == DiskSource::Placeholder)
        .map(|(name, _)| name)
        .collect();
    let stands = matches!(
        view.run,
        RunState::Running | RunState::Paused | RunState::IoError
    );
    if torn.is_empty() || !stands {
        return Ok(());
    }
    if view.run == RunState::Running {
        cx.ports.machine.pause(machine).await?;
    }
    for disk in torn {
        let Some(pair) = book.disks.get(disk) else {
            continue;
        };
        cx.ports.disk.resync_cancel(machine, disk).await?;
        cx.ports.disk.set_legs(machine, disk, &pair.live()).await?;
        let text = format!("an interrupted swap of `{disk}` was finished");
        cx.ledger.log(Severity::Information, text)?;
    }
    cx.ports.machine.resume(machine).await?;
    cx.edit_book(held, |book| book.pause_until_ms = None)
        .await?;
    Ok(())
}

async fn advance(
    cx: &Cx,
    held: &Exclusive<'_>,
    machine: MachineId,
    disk: &DiskName,
    pair: &LegPair,
) -> Result<(), Problem> {
    let waiting = cx
        .mirrors
        .with(|running| running.get(disk).and_then(|r| r.retry_at));
    if waiting.is_some_and(|at| Instant::now() < at) {
        return Ok(());
    }
    let view = cx.ports.disk.resync_poll(machine, disk).await?;
    match &view.phase {
        ResyncPhase::None => return start(cx, held, machine, disk, pair).await,
        ResyncPhase::Copying => {}
        ResyncPhase::Nearly => return finish(cx, held, machine, disk).await,
        ResyncPhase::Failed(_) if planted::is("failed-job-is-success") => {
            return record_in_sync(cx, held, disk, true).await;
        }
        ResyncPhase::Failed(why) => {
            return Err(Problem::new(ProblemCode::Failed, why.clone()).about(disk.as_str()));
        }
    }
    cx.mirrors.with(|running| {
        let entry = running.entry(disk.clone()).or_insert_with(|| Running {
            view: None,
            since: Instant::now(),
            retry_at: None,
        });
        entry.view = Some(view);
        entry.retry_at = None;
    });
    cx.ledger.touch();
    Ok(())
}

async fn start(
    cx: &Cx,
    held: &Exclusive<'_>,
    machine: MachineId,
    disk: &DiskName,
    pair: &LegPair,
) -> Result<(), Problem> {
    let view = cx.view(machine).await?;
    if !matches!(view.run, RunState::Running | RunState::Paused) {
        return Ok(());
    }
    let Some(plugged) = view.disks.get(disk) else {
        return Ok(());
    };
    let from = pair.authority;
    if matches!(&plugged.source, DiskSource::Legs(legs) if legs.len() == 2) {
        // Finished before the record of it was written.
        return legs::reconcile(cx, held, machine).await;
    }
    if plugged.source != DiskSource::Legs(vec![from]) {
        return Ok(());
    }
    devices::refuse_changed(cx, |changed, _| changed == disk).await?;
    let by_bitmap =
        matches!(pair.stale(), Some((_, StaleReason::Session))) && plugged.dirty_bytes.is_some();
    let how = if by_bitmap {
        ResyncStart::Bitmap
    } else {
        ResyncStart::Compare
    };
    if how == ResyncStart::Compare {
        cx.edit_book(held, |book| legs::distrust_bitmap(book, disk))
            .await?;
    }
    let compare = how == ResyncStart::Compare;
    cx.ledger.fact(Fact::Resyncing {
        disk: disk.clone(),
        from,
        to: from.other(),
        compare,
    })?;
    let (source, target) = if planted::is("resync-direction-swapped") {
        (from.other(), from)
    } else {
        (from, from.other())
    };
    cx.ports
        .disk
        .resync_start(machine, disk, source, target, how, RATE)
        .await?;
    let view = ResyncView {
        phase: ResyncPhase::Copying,
        done_bytes: 0,
        total_bytes: 1,
    };
    cx.mirrors.with(|running| {
        running.insert(
            disk.clone(),
            Running {
                view: Some(view),
                since: Instant::now(),
                retry_at: None,
            },
        )
    });
    cx.ledger.touch();
    Ok(())
}

async fn finish(
    cx: &Cx,
    held: &Exclusive<'_>,
    machine: MachineId,
    disk: &DiskName,
) -> Result<(), Problem> {
    // The target has been open for a while: what has its name now must still be it.
    devices::refuse_changed(cx, |changed, _| changed == disk).await?;
    let until = cx.ports.clock.now_ms() + LAST_PAUSE_MS;
    cx.edit_book(held, |book| book.pause_until_ms = Some(until))
        .await?;
    if planted::is("live-before-proved") {
        record_in_sync(cx, held, disk, true).await?;
    }
    let figures = cx.ports.disk.resync_finish(machine, disk).await;
    let in_sync = figures.is_ok() || planted::is("failed-finish-is-success");
    match cx.view(machine).await {
        Ok(view) if view.run == RunState::Paused && !planted::is("owner-left-paused") => {
            // An earlier life of the server had paused it for the last round: the owner always goes on.
            cx.ports.machine.resume(machine).await?;
        }
        // What was proved is recorded all the same; the pause stays announced, so that the guard would end it.
        Err(_) if in_sync => {
            cx.edit_book(held, |book| target_is_live(book, disk))
                .await?;
            cx.mirrors.with(|running| running.remove(disk));
            cx.ledger.fact(Fact::Resynced(figures?))?;
            return Ok(());
        }
        view => drop(view?),
    }
    record_in_sync(cx, held, disk, in_sync).await?;
    cx.ledger.fact(Fact::Resynced(figures?))?;
    cx.mirrors.with(|running| running.remove(disk));
    Ok(())
}

/// Records that the last pause is over and, if so, that the target is equal now.
async fn record_in_sync(
    cx: &Cx,
    held: &Exclusive<'_>,
    disk: &DiskName,
    in_sync: bool,
) -> Result<(), Problem> {
    cx.edit_book(held, |book| {
        book.pause_until_ms = None;
        if in_sync {
            target_is_live(book, disk);
        }
    })
    .await?;
    Ok(())
}

fn target_is_live(book: &mut LegBook, disk: &DiskName) {
    if let Some(pair) = book.disks.get_mut(disk) {
        let target = pair.authority.other();
        pair.get_mut(target).role = LegRole::Live;
    }
}

/// The target failed: the running side goes on, the target stays stale (fault 17).
async fn give_up(
    cx: &Cx,
    held: &Exclusive<'_>,
    machine: MachineId,
    disk: &DiskName,
    problem: &Problem,
) -> Result<(), Problem> {
    if let Err(error) = cx.ports.disk.resync_cancel(machine, disk).await {
        cx.ledger.write(flipside_model::Record::problem(
            Severity::Warning,
            &error.into(),
        ))?;
    }
    if cx.view(machine).await?.run == RunState::IoError {
        cx.ports.machine.resume(machine).await?;
    }
    cx.edit_book(held, |book| legs::distrust_bitmap(book, disk))
        .await?;
    let text =
        format!("the resynchronisation of `{disk}` stopped and is tried again later: {problem}");
    cx.ledger.write(flipside_model::Record::Log {
        severity: Severity::Warning,
        text,
        detail: None,
        component: Some(disk.as_str().to_owned()),
        advice: Some("look at the leg that is rewritten: `flipside system show`".to_owned()),
    })?;
    let retry_at = Some(Instant::now() + RETRY_AFTER);
    cx.mirrors.with(|running| {
        running.insert(
            disk.clone(),
            Running {
                view: None,
                since: Instant::now(),
                retry_at,
            },
        )
    });
    Ok(())
}

/// Starts the resynchronisation of every stale leg; ready when all have begun (CM-08).
pub(crate) async fn start_all(cx: &Cx) -> Result<(), Problem> {
    let held = cx.exclusive().await?;
    let book = cx.book().await?;
    let Some(machine) = book.owner else {
        return Err(
            Problem::new(ProblemCode::Mismatch, "no machine owns the disks")
                .advise("`flipside retry`; if it stays so, look at the activity log"),
        );
    };
    mend_roots(cx, &held, machine, &book).await?;
    for (disk, pair) in &book.disks {
        if pair.stale().is_none() {
            continue;
        }
        if let Err(problem) = advance(cx, &held, machine, disk, pair).await {
            give_up(cx, &held, machine, disk, &problem).await?;
        }
    }
    Ok(())
}

/// Ends what is being copied before disks move: finished if it is nearly done, given up otherwise.
pub(crate) async fn settle(cx: &Cx) -> Result<(), Problem> {
    let limit = Instant::now() + SETTLE;
    while !cx.mirrors.idle() && Instant::now() < limit {
        let held = cx.exclusive().await?;
        let book = cx.book().await?;
        let Some(machine) = book.owner else { break };
        mend_roots(cx, &held, machine, &book).await?;
        for (disk, pair) in book.disks.iter().filter(|(_, p)| p.stale().is_some()) {
            if let Err(problem) = advance(cx, &held, machine, disk, pair).await {
                give_up(cx, &held, machine, disk, &problem).await?;
            }
        }
        if book.disks.values().all(|p| p.stale().is_none()) {
            cx.mirrors.with(BTreeMap::clear);
        }
        drop(held);
        tokio::time::sleep(crate::context::POLL).await;
    }
    let held = cx.exclusive().await?;
    let Some(machine) = cx.book().await?.owner else {
        return Ok(());
    };
    for disk in cx.mirrors.progress().into_keys() {
        cx.ports.disk.resync_cancel(machine, &disk).await?;
        cx.ledger.log(
            Severity::Information,
            format!("the resynchronisation of `{disk}` goes on after the merge"),
        )?;
    }
    cx.mirrors.with(BTreeMap::clear);
    drop(held);
    Ok(())
}

/// Brings every data disk into sync, as long as the stage has time: a checkpoint is about to need both legs.
pub(crate) async fn settle_whole(cx: &Cx) -> Step {
    loop {
        let held = cx.exclusive().await?;
        let book = cx.book().await?;
        let waiting: Vec<_> = cx
            .disks(DiskRole::Data)
            .into_iter()
            .filter_map(|disk| book.disks.get(&disk).map(|pair| (disk, pair.clone())))
            .filter(|(_, pair)| pair.stale().is_some())
            .collect();
        let (Some(machine), false) = (book.owner, waiting.is_empty()) else {
            break;
        };
        mend_roots(cx, &held, machine, &book).await?;
        for (disk, pair) in &waiting {
            if let Err(problem) = advance(cx, &held, machine, disk, pair).await {
                give_up(cx, &held, machine, disk, &problem).await?;
            }
        }
        drop(held);
        if let Err(halt) = cx.safe_point("waiting for the data mirrors, which a checkpoint needs") {
            settle(cx).await?;
            return Err(halt);
        }
        tokio::time::sleep(crate::context::POLL).await;
    }
    settle(cx).await?;
    checkpoint::refuse_simplex(cx, &cx.book().await?)?;
    Ok(())
}

#[cfg(test)]
#[path = "mirrors_tests.rs"]
mod tests;
