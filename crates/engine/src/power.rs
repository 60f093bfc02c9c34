//! Power: starting a system from its legs, and stopping it cleanly.

use crate::context::{Cx, Exclusive, POLL};
use crate::{devices, legs, media};
use flipside_model::{
    DiskName, Fact, Leg, LegBook, LegPair, LegRole, MachineId, OperationalState, Problem,
    ProblemCode, Severity, Side, StaleReason, UpgradeState, planted,
};
use flipside_platform::{DiskSource, RunState, StartMode, StartPlan};
use std::time::Duration;

/// How long a guest may take to shut down before the administrator is asked to decide: systemd's own limit for a unit
/// that does not stop is 90 s.
const SHUTDOWN: Duration = Duration::from_secs(150);

/// Prepares the book for a machine that boots: what only a bitmap in the old process knew is unknown now.
fn prepare_book(book: &mut LegBook) -> (MachineId, bool) {
    let unclean = !book.clean && !planted::is("unclean-end-trusted");
    if unclean {
        book.mark_unclean();
    }
    // Whoever boots writes to the disks: a checkpoint that nobody has decided about until here is none any more.
    legs::end_checkpoints(book, &LegRole::Stale(StaleReason::Unclean));
    for pair in book.disks.values_mut() {
        let other = pair.authority.other();
        if pair.get(other).role == LegRole::Stale(StaleReason::Session)
            && !planted::is("dead-bitmap-trusted")
        {
            pair.get_mut(other).role = LegRole::Stale(StaleReason::Unclean);
        }
    }
    book.last_machine = book.last_machine.next();
    book.clean = false;
    book.owner = Some(book.last_machine);
    book.pause_until_ms = None;
    (book.last_machine, unclean)
}

/// Boots a machine from the authority legs, gives it the network and lets the users in.
pub(crate) async fn boot(cx: &Cx) -> Result<MachineId, Problem> {
    cx.ports.network.ensure().await?;
    let held = cx.exclusive().await?;
    let before = cx.book().await?;
    if let Some(owner) = before.owner
        && cx.view(owner).await?.run.is_present()
    {
        return Err(Problem::new(
            ProblemCode::InUse,
            "the system's machine is running already",
        ));
    }
    let side = system_side(cx);
    let only_recorded = side == Side::Production && fork_was_only_recorded(cx).await?;
    let mut prepared = (MachineId(0), false);
    let mut prepare = |book: &mut LegBook| {
        if side == Side::Upgrade {
            // The decision may be recorded and not yet in the book.
            legs::decide(book);
        }
        if only_recorded {
            legs::nobody_has_the_others(book);
        }
        prepared = prepare_book(book);
    };
    let mut planned = before.clone();
    prepare(&mut planned);
    let opens = |disk: &DiskName, leg: Leg| {
        let pair = planned.disks.get(disk);
        pair.is_none_or(|pair| pair.live().contains(&leg))
    };
    devices::refuse_changed(cx, opens).await?;
    let book = cx.edit_book(&held, prepare).await?;
    let (machine, unclean) = prepared;
    if unclean && before.last_machine != MachineId(0) {
        let text = "the system did not end cleanly: it starts from the authority legs, the others are compared";
        cx.ledger.log(Severity::Warning, text)?;
    }
    cx.ledger.fact(Fact::Machine {
        side,
        machine: Some(machine),
    })?;
    start_linked(cx, side, machine, &book).await?;
    drop(held);
    Ok(machine)
}

/// Says whether the legs are recorded as taken apart and no other machine has any of them: the fork was never carried out, or
/// what came of it is gone.
async fn fork_was_only_recorded(cx: &Cx) -> Result<bool, Problem> {
    let waits = matches!(
        cx.view_of(Side::Upgrade).await?.run,
        RunState::Absent | RunState::Incoming
    );
    Ok(waits && !cx.facts().divided)
}

/// Which side a machine that boots belongs to: after the decision to commit only the new software may (SM-14).
fn system_side(cx: &Cx) -> Side {
    let facts = cx.facts();
    if facts.committed && facts.upgrade.is_some() {
        Side::Upgrade
    } else {
        Side::Production
    }
}

/// Starts a machine on the live legs and connects it. A start that was whole is not repeated.
async fn start_linked(
    cx: &Cx,
    side: Side,
    machine: MachineId,
    book: &LegBook,
) -> Result<(), Problem> {
    let legs = |(name, pair): (&DiskName, &LegPair)| (name.clone(), DiskSource::Legs(pair.live()));
    let plan = StartPlan {
        copy_limit: None,
        mode: StartMode::Boot {
            // Whose firmware variables go on: the last machine that was the system, not one that was taken back.
            after: cx.ledger.machine_before(side, machine),
        },
        disks: book.disks.iter().map(legs).collect(),
    };
    cx.ports.machine.start(machine, &plan).await?;
    media::restore(cx, side, machine).await?;
    cx.ports.machine.set_link(machine, true).await?;
    Ok(())
}

/// Says whether a machine is gone. One whose guest has panicked or shut itself down cannot be continued: it is ended, and
/// as good as gone (fault 40).
pub(crate) async fn gone(cx: &Cx, machine: MachineId) -> Result<bool, Problem> {
    Ok(match cx.view(machine).await?.run {
        RunState::Shutdown | RunState::Panicked => {
            let _held = cx.exclusive().await?;
            cx.ports.machine.end(machine).await?;
            true
        }
        run => !run.is_present(),
    })
}

/// After the decision to commit only the new software counts: if its machine has ended, it boots from its own legs and
/// is the system from then on (SM-14, fault 28). Does nothing while it runs.
pub(crate) async fn boot_committed(cx: &Cx) -> Result<(), Problem> {
    if system_side(cx) != Side::Upgrade {
        return Ok(());
    }
    let gone = match cx.book().await?.owner {
        None => true,
        Some(machine) => gone(cx, machine).await?,
    };
    if gone {
        let text = "the Upgrade Side's machine has ended; it boots from its own disks";
        cx.ledger.log(Severity::Warning, text)?;
        boot(cx).await?;
    }
    finish_start(cx).await
}

/// Starts a stopped system, or goes on where an earlier start was interrupted.
pub(crate) async fn on(cx: &Cx) -> Result<(), Problem> {
    let state = cx.state();
    let resting =
        state.upgrade == UpgradeState::Idle && state.operational != OperationalState::Busy;
    let mut run = cx.view_of(system_side(cx)).await?.run;
    if resting && matches!(run, RunState::Panicked | RunState::Shutdown) {
        clear_away(cx).await?;
        run = RunState::Absent;
    }
    if run.is_present() {
        if run == RunState::IoError && state.operational != OperationalState::Busy {
            go_on(cx).await?;
        }
        return if resting {
            finish_start(cx).await
        } else {
            Ok(())
        };
    }
    if cx.state().upgrade == UpgradeState::Commit && system_side(cx) == Side::Production {
        // Which software is to boot is what the commit has not recorded yet.
        return Err(Problem::new(
            ProblemCode::Refused,
            "the system cannot be started before the commit has been decided",
        )
        .advise("`flipside retry` goes on with the commit and starts the system"));
    }
    start_anew(cx).await
}

async fn start_anew(cx: &Cx) -> Result<(), Problem> {
    refuse_with_checkpoint(cx).await?;
    let machine = boot(cx).await?;
    cx.ports.network.open(machine).await?;
    cx.ledger.log(Severity::Success, "the system was started")?;
    Ok(())
}

/// Ends a machine that serves nobody and cannot be continued: its guest has panicked or shut itself down (fault 40), or it
/// was never started to the end.
async fn clear_away(cx: &Cx) -> Result<(), Problem> {
    let machine = cx.machine(system_side(cx))?;
    let held = cx.exclusive().await?;
    settle_power(cx, &held, machine, false).await?;
    let text = "the machine could not go on as it was; it is started anew";
    cx.ledger.log(Severity::Warning, text).map(|_| ())
}

/// As long as a checkpoint of the data is kept, it is not decided which data the system is to boot with.
async fn refuse_with_checkpoint(cx: &Cx) -> Result<(), Problem> {
    let book = cx.book().await?;
    if system_side(cx) == Side::Upgrade || book.disks.values().all(|p| p.checkpoint().is_none()) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemCode::Refused,
        "the system cannot be started while a checkpoint of its data is kept: whether what was written since the \
         merge stays has not been decided",
    )
    .advise(
        "`flipside abort` boots the Production Side and keeps it, `flipside abort --discard-data` discards it",
    ))
}

/// Continues the system's machine when it stands still after an I/O error: what failed may be well again (fault 16). It
/// repeats the same write, and stops again if not.
async fn go_on(cx: &Cx) -> Result<(), Problem> {
    let machine = cx.machine(system_side(cx))?;
    let _held = cx.exclusive().await?;
    let owns = cx.book().await?.owner == Some(machine);
    if !owns || cx.view(machine).await?.run != RunState::IoError {
        return Ok(());
    }
    cx.ports.machine.resume(machine).await?;
    let text = "the machine stood still after an I/O error and was continued";
    cx.ledger.log(Severity::Information, text).map(|_| ())
}

/// Goes on with a start that the end of the server interrupted: the machine is there, and perhaps nobody is served.
async fn finish_start(cx: &Cx) -> Result<(), Problem> {
    let side = system_side(cx);
    let machine = cx.machine(side)?;
    if cx.ports.network.view().await?.open_to == Some(machine) {
        return Ok(());
    }
    let held = cx.exclusive().await?;
    let book = cx.book().await?;
    if book.owner != Some(machine) {
        return Ok(());
    }
    let view = cx.view(machine).await?;
    match (view.link_up, view.run) {
        (true, _) => {}
        // Its start was whole; since then the keeper may have given it legs that it was not started with.
        (false, RunState::Running) => cx.ports.machine.set_link(machine, true).await?,
        // It has never run, so nothing is lost with it.
        (false, _) => match start_linked(cx, side, machine, &book).await {
            // The keeper may have given this one other legs too.
            Err(problem) if problem.code == ProblemCode::Mismatch => {
                drop(held);
                clear_away(cx).await?;
                return start_anew(cx).await;
            }
            result => result?,
        },
    }
    drop(held);
    cx.ports.network.open(machine).await?;
    cx.ledger.log(Severity::Success, "the system was started")?;
    Ok(())
}

/// Stops a system: asks the guest to shut down, then ends its machine; with `kill` at once.
pub(crate) async fn off(cx: &Cx, kill: bool) -> Result<(), Problem> {
    let state = cx.state();
    if state.upgrade != UpgradeState::Idle || state.operational == OperationalState::Busy {
        return Err(Problem::new(
            ProblemCode::Refused,
            format!(
                "the system cannot be stopped in {} | {}",
                state.upgrade, state.operational
            ),
        )
        .advise(
            "end the session first: `flipside abort` or `flipside commit`, then `flipside finish`",
        ));
    }
    let Some(machine) = state.facts.production else {
        return Ok(());
    };
    let run = cx.view(machine).await?.run;
    if run.is_present() && run != RunState::Shutdown && !kill {
        shut_down(cx, machine).await?;
    }
    let held = cx.exclusive().await?;
    settle_power(cx, &held, machine, kill).await?;
    drop(held);
    cx.ports.network.shut().await?;
    cx.ledger.log(
        Severity::Success,
        if kill {
            "the system was ended"
        } else {
            "the system was stopped"
        },
    )?;
    Ok(())
}

async fn shut_down(cx: &Cx, machine: MachineId) -> Result<(), Problem> {
    if cx.ports.guest.shut_down(machine).await.is_err() {
        let _held = cx.exclusive().await?;
        cx.ports.machine.power_down(machine).await?;
    }
    let limit = tokio::time::Instant::now() + SHUTDOWN;
    loop {
        match cx.view(machine).await?.run {
            RunState::Shutdown | RunState::Absent => return Ok(()),
            _ if tokio::time::Instant::now() >= limit => {
                return Err(Problem::new(
                    ProblemCode::TimedOut,
                    format!(
                        "the guest did not shut down within {} s",
                        SHUTDOWN.as_secs()
                    ),
                )
                .advise(
                    "look at its console; `flipside system stop --force` ends it like a power cut",
                ));
            }
            _ => tokio::time::sleep(POLL * 5).await,
        }
    }
}

/// Ends the process of a machine that has shut down, and records a clean end if it was one.
pub(crate) async fn settle_power(
    cx: &Cx,
    held: &Exclusive<'_>,
    machine: MachineId,
    killed: bool,
) -> Result<(), Problem> {
    let run = cx.view(machine).await?.run;
    let clean = (run == RunState::Shutdown && !killed) || planted::is("every-end-is-clean");
    for disk in cx.mirrors.progress().into_keys() {
        if run.is_present() {
            cx.ports.disk.resync_cancel(machine, &disk).await?;
        }
    }
    cx.ports.machine.end(machine).await?;
    cx.edit_book(held, |book| {
        book.clean |= clean;
        book.owner = None;
    })
    .await?;
    cx.ledger.fact(Fact::Machine {
        side: Side::Production,
        machine: None,
    })?;
    Ok(())
}
