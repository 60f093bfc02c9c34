//! Forks the running system: memory is copied while it runs, then all legs are taken apart in one instant.
//!
//! The book is written *before* the switch: from then on the second legs count as left behind, so that no crash can
//! leave a leg recorded in sync that missed a write (invariant 9). If the switch does not happen, the machine's own
//! block graph proves that both legs are still written, and the record is corrected (`legs::reconcile`).

use super::{Action, Seen};
use crate::context::{Cx, Exclusive, Halt, POLL, Step};
use crate::{devices, legs};
use async_trait::async_trait;
use flipside_model::{
    DiskName, DiskRole, Fact, Leg, LegBook, LegRole, MachineId, Problem, ProblemCode, Progress,
    Side, planted,
};
use flipside_platform::RunState;
use std::collections::BTreeMap;

/// How long the guard waits before it continues a Production Side that a dead server left paused in the switch, in
/// milliseconds: far above every measured pause (175 ms), far below what a client takes for dead.
const SWITCH_PAUSE_MS: i64 = 2_000;

pub(super) struct Fork;

#[async_trait]
impl Action for Fork {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        if cx.facts().divided {
            return Ok(Seen::Done);
        }
        Ok(if switched(cx).await? {
            Seen::Todo
        } else {
            Seen::Repeat
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let production = cx.machine(Side::Production)?;
        let upgrade = cx.machine(Side::Upgrade)?;
        if switched(cx).await? {
            // The server ended between the switch and its record.
            cx.ledger.fact(Fact::Divided(true))?;
            return finish_switch(cx, production).await;
        }
        let result = copy_and_switch(cx, production, upgrade).await;
        if result.is_err() {
            cx.show(None);
            let held = cx.exclusive().await?;
            if let Err(error) = cx.ports.machine.fork_cancel(production).await {
                cx.ledger.write(flipside_model::Record::problem(
                    flipside_model::Severity::Error,
                    &error.into(),
                ))?;
            }
            // A fork that failed has spoilt the waiting machine; a retry starts a new one.
            cx.ports.machine.end(upgrade).await?;
            cx.ledger.fact(Fact::Machine {
                side: Side::Upgrade,
                machine: None,
            })?;
            legs::reconcile(cx, &held, production).await?;
            cx.edit_book(&held, |book| {
                legs::nobody_has_the_others(book);
                book.pause_until_ms = None;
            })
            .await?;
        }
        result
    }
}

/// Says whether the legs have been taken apart and the other machine has the memory.
async fn switched(cx: &Cx) -> Step<bool> {
    let Some(upgrade) = cx.facts().upgrade else {
        return Ok(false);
    };
    let run = cx.view(upgrade).await?.run;
    if !matches!(
        run,
        RunState::Paused | RunState::Running | RunState::Shutdown | RunState::Panicked
    ) {
        return Ok(false);
    }
    let production = cx.view_of(Side::Production).await?;
    Ok(production
        .disks
        .values()
        .all(|d| matches!(&d.source, flipside_platform::DiskSource::Legs(l) if l.len() == 1)))
}

/// Records durably until when Production may be paused; the guard continues it after that.
async fn announce_pause(cx: &Cx, held: &Exclusive<'_>) -> Step<i64> {
    let until = cx.ports.clock.now_ms() + SWITCH_PAUSE_MS;
    if !planted::is("pause-not-announced") {
        cx.edit_book(held, |book| book.pause_until_ms = Some(until))
            .await?;
    }
    Ok(until)
}

async fn copy_and_switch(cx: &Cx, production: MachineId, upgrade: MachineId) -> Step {
    let mut intent = {
        // Before the copying, because its end pauses Production whether or not we are still there to see it.
        let held = cx.exclusive().await?;
        let until = announce_pause(cx, &held).await?;
        cx.ports.machine.fork_begin(production, upgrade).await?;
        until
    };
    loop {
        cx.safe_point("copying the memory")?;
        let view = cx.ports.machine.fork_poll(production).await?;
        let left_seconds = view
            .total_bytes
            .saturating_sub(view.done_bytes)
            .checked_div(view.rate);
        cx.show(Some(Progress {
            what: "Copying the memory".to_owned(),
            done_bytes: view.done_bytes,
            total_bytes: view.total_bytes,
            rate: view.rate,
            left_seconds,
        }));
        if view.ready {
            break;
        }
        if intent - cx.ports.clock.now_ms() < SWITCH_PAUSE_MS / 2 {
            let held = cx.exclusive().await?;
            intent = announce_pause(cx, &held).await?;
        }
        tokio::time::sleep(POLL).await;
    }
    let held = cx.exclusive().await?;
    // The waiting machine opens its legs for writing in the switch.
    devices::refuse_changed(cx, |_, _| true).await?;
    let mut keep: BTreeMap<DiskName, Leg> = BTreeMap::new();
    let mut broken = None;
    let until = cx.ports.clock.now_ms() + SWITCH_PAUSE_MS;
    cx.edit_book(&held, |book| {
        broken = book
            .disks
            .iter()
            .find(|(_, pair)| !pair.duplexed() && !planted::is("simplex-disk-forked"))
            .map(|(name, _)| name.clone());
        if broken.is_some() {
            return;
        }
        keep = book
            .disks
            .iter()
            .map(|(name, pair)| (name.clone(), pair.authority))
            .collect();
        if !planted::is("legs-recorded-apart-too-late") {
            take_apart(book, cx);
        }
        if !planted::is("pause-not-announced") {
            book.pause_until_ms = Some(until);
        }
    })
    .await?;
    if let Some(disk) = broken {
        return Err(Halt::Failed(
            Problem::new(
                ProblemCode::NotReady,
                format!("a leg of `{disk}` failed while the memory was copied"),
            )
            .about(disk.as_str())
            .advise("`flipside abort`, then wait until every mirror shows `None`"),
        ));
    }
    let figures = cx
        .ports
        .machine
        .fork_switch(production, upgrade, &keep)
        .await?;
    if planted::is("legs-recorded-apart-too-late") {
        cx.edit_book(&held, |book| take_apart(book, cx)).await?;
    }
    cx.ledger.fact(Fact::Divided(true))?;
    cx.ledger.fact(Fact::Forked(figures))?;
    cx.edit_book(&held, |book| book.pause_until_ms = None)
        .await?;
    cx.show(None);
    Ok(())
}

/// Records that from now on each side has its own leg of every disk.
fn take_apart(book: &mut LegBook, cx: &Cx) {
    for disk in &cx.spec.disks {
        let Some(pair) = book.disks.get_mut(&disk.name) else {
            continue;
        };
        let authority = pair.authority;
        let (here, there) = match cx.role(&disk.name) {
            DiskRole::System => (LegRole::Original, LegRole::Upgraded),
            DiskRole::Data => (LegRole::Live, LegRole::Frozen),
        };
        pair.get_mut(authority).role = here;
        pair.get_mut(authority.other()).role = there;
    }
}

/// Makes sure that Production runs after a switch that nobody saw the end of.
async fn finish_switch(cx: &Cx, production: MachineId) -> Step {
    let held = cx.exclusive().await?;
    let run = cx.view(production).await?.run;
    if matches!(
        run,
        RunState::Paused | RunState::PostMigrate | RunState::PreSwitchover
    ) {
        cx.ports.machine.resume(production).await?;
    }
    cx.edit_book(&held, |book| book.pause_until_ms = None)
        .await?;
    Ok(())
}
