//! Power: starting a system from its legs, and stopping it cleanly.

use crate::context::{Cx, Exclusive, POLL};
use flipside_model::{
    Fact, LegBook, LegRole, MachineId, OperationalState, Problem, ProblemCode, Severity, Side,
    StaleReason, UpgradeState,
};
use flipside_platform::{DiskSource, RunState, StartMode, StartPlan};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a guest may take to shut down before the administrator is asked to decide: systemd's own limit for a unit
/// that does not stop is 90 s.
const SHUTDOWN: Duration = Duration::from_secs(150);

/// Prepares the book for a machine that boots: what only a bitmap in the old process knew is unknown now.
fn prepare_book(book: &mut LegBook) -> (MachineId, bool) {
    let unclean = !book.clean;
    if unclean {
        book.mark_unclean();
    }
    for pair in book.disks.values_mut() {
        let other = pair.authority.other();
        if pair.get(other).role == LegRole::Stale(StaleReason::Session) {
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
    let faults = cx.ports.host.check_legs().await?;
    if let Some((component, text)) = faults.into_iter().next() {
        return Err(Problem::new(ProblemCode::Mismatch, text)
            .about(component)
            .advise("put the original file or device back; flipside never uses a leg that it does not know"));
    }
    let mut prepared = (MachineId(0), false);
    let book = cx
        .edit_book(&held, |book| prepared = prepare_book(book))
        .await?;
    let (machine, unclean) = prepared;
    // Whose firmware variables go on: the last machine that was the system, not one that was taken back.
    let previous = cx.ledger.last_production();
    if unclean && before.last_machine != MachineId(0) {
        let text = "the system did not end cleanly: it starts from the authority legs, the others are compared";
        cx.ledger.log(Severity::Warning, text)?;
    }
    let disks: BTreeMap<_, _> = book
        .disks
        .iter()
        .map(|(name, pair)| (name.clone(), DiskSource::Legs(pair.live())))
        .collect();
    cx.ledger.fact(Fact::Machine {
        side: Side::Production,
        machine: Some(machine),
    })?;
    let plan = StartPlan {
        mode: StartMode::Boot { after: previous },
        disks,
    };
    cx.ports.machine.start(machine, &plan).await?;
    cx.ports.machine.set_link(machine, true).await?;
    drop(held);
    Ok(machine)
}

/// Starts a stopped system.
pub(crate) async fn on(cx: &Cx) -> Result<(), Problem> {
    if cx.view_of(Side::Production).await?.run.is_present() {
        return Ok(());
    }
    let machine = boot(cx).await?;
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
    let clean = run == RunState::Shutdown && !killed;
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
