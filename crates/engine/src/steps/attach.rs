//! Gives data disks and network to a side and makes it the owner (MG-18).
//!
//! For Production it also continues the paused machine, so that nothing boots (design 3.7). Only if that process is
//! gone does it boot from its own leg.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use crate::{devices, legs, power};
use async_trait::async_trait;
use flipside_model::{
    DiskName, DiskRole, Fact, Leg, LegBook, LegPair, LegRole, Problem, ProblemCode, Severity, Side,
    StaleReason, planted,
};
use flipside_platform::{DiskSource, MachineView, RunState};

pub(super) struct Attach {
    pub side: Side,
}

#[async_trait]
impl Action for Attach {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let view = cx.view_of(self.side).await?;
        let book = cx.book().await?;
        let owns = book.owner.is_some() && book.owner == cx.facts().machine(self.side);
        let whole = cx
            .disks(DiskRole::Data)
            .iter()
            .all(|d| has_live(&view, &book, d));
        let good = view.run == RunState::Running && view.link_up && owns && whole;
        Ok(if good && cx.facts().owner == self.side {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        attach(cx, self.side).await
    }
}

fn has_live(view: &MachineView, book: &LegBook, disk: &DiskName) -> bool {
    let (Some(plugged), Some(pair)) = (view.disks.get(disk), book.disks.get(disk)) else {
        return false;
    };
    matches!(&plugged.source, DiskSource::Legs(legs) if legs.contains(&pair.authority))
}

/// Makes a side the owner of data and network, and lets it run.
pub(super) async fn attach(cx: &Cx, side: Side) -> Step {
    let present = match cx.facts().machine(side) {
        Some(machine) if side == Side::Production => !power::gone(cx, machine).await?,
        Some(machine) => cx.view(machine).await?.run.is_present(),
        None => false,
    };
    if !present {
        return boot_instead(cx, side).await;
    }
    let machine = cx.machine(side)?;
    let held = cx.exclusive().await?;
    refuse_two_owners(cx, side).await?;
    // What it did not give up yet it has as the machine says, whatever was recorded of it since.
    legs::reconcile(cx, &held, machine).await?;
    if side == Side::Production {
        // A merge was taken back, and its checkpoint with it: from here it misses what Production writes.
        cx.edit_book(&held, |book| {
            legs::end_checkpoints(book, &LegRole::Stale(StaleReason::Unclean));
        })
        .await?;
    }
    for disk in cx.disks(DiskRole::Data) {
        plug(cx, &held, side, &disk).await?;
    }
    cx.ports.machine.set_link(machine, true).await?;
    cx.edit_book(&held, |book| {
        book.owner = Some(machine);
        book.pause_until_ms = None;
    })
    .await?;
    cx.ledger.fact(Fact::Owner(side))?;
    let run = cx.view(machine).await?.run;
    if run != RunState::Running {
        if let Err(error) = cx.ports.machine.resume(machine).await {
            let again = cx
                .state()
                .attempts
                .get(&flipside_session::Step::AbortAttach.name())
                .is_some_and(|attempt| *attempt > 1);
            if side == Side::Upgrade || !again {
                return Err(error.into());
            }
            // Its own boot was interrupted, or it cannot be continued for good: as good as gone (invariant 13).
            cx.ports.machine.end(machine).await?;
            drop(held);
            return boot_instead(cx, side).await;
        }
        drop(held);
        // The guest's clock stood still while it was paused.
        if !planted::is("clock-not-set")
            && let Err(error) = cx.ports.guest.set_clock(machine).await
        {
            cx.ledger.write(flipside_model::Record::problem(
                Severity::Warning,
                &error.into(),
            ))?;
        }
    }
    Ok(())
}

/// Invariant 1, on the machines' own answers: the partner has no link and no live data before we take them.
async fn refuse_two_owners(cx: &Cx, side: Side) -> Step {
    let view = cx.view_of(side.partner()).await?;
    let data = cx.disks(DiskRole::Data);
    let live = view
        .disks
        .iter()
        .find(|(name, disk)| data.contains(name) && !matches!(disk.source, DiskSource::Overlay(_)))
        .map(|(name, _)| name.clone());
    if !view.run.is_present() || (!view.link_up && live.is_none()) {
        return Ok(());
    }
    let what = live.map_or_else(|| "the network".to_owned(), |disk| format!("`{disk}`"));
    Err(Problem::new(
        ProblemCode::InUse,
        format!("the {} still has {what}", side.partner()),
    )
    .about(side.partner().to_string())
    .advise(flipside_session::law::recovery(cx.state().upgrade))
    .into())
}

/// The Upgrade Side writes nothing before the checkpoint is there.
fn no_checkpoint(disk: &DiskName) -> Problem {
    let text = format!("no leg of `{disk}` keeps the data as they were at the merge");
    Problem::new(ProblemCode::Mismatch, text)
        .about(disk.as_str())
        .advise("`flipside abort`; nothing was written to it since the Production Side let go")
}

async fn plug(cx: &Cx, held: &crate::context::Exclusive<'_>, side: Side, disk: &DiskName) -> Step {
    let machine = cx.machine(side)?;
    let live = match side {
        // Back to the old software with one leg of a mirror rather than not at all.
        Side::Production => devices::good_legs(cx, held, disk).await?,
        Side::Upgrade => {
            let book = cx.book().await?;
            let live = book.disks.get(disk).map(LegPair::live).unwrap_or_default();
            let live = if cx.facts().checkpoint && planted::is("checkpoint-not-frozen") {
                Leg::BOTH.to_vec()
            } else {
                live
            };
            let kept = book
                .disks
                .get(disk)
                .is_some_and(|p| p.checkpoint().is_some());
            if cx.facts().checkpoint && !kept {
                return Err(no_checkpoint(disk).into());
            }
            devices::refuse_changed(cx, |d, leg| d == disk && live.contains(&leg)).await?;
            live
        }
    };
    let book = cx.book().await?;
    let Some(pair) = book.disks.get(disk) else {
        return Ok(());
    };
    cx.ports.disk.plug(machine, disk, &live).await?;
    if !matches!(pair.stale(), Some((_, StaleReason::Session))) {
        return Ok(());
    }
    // An unfinished mirror: what was left of it comes along, or the whole disk is compared.
    let complete = cx.facts().carried.contains_key(disk)
        && cx.ports.disk.carry_in(machine, disk).await.is_ok();
    if !complete {
        cx.edit_book(held, |book| legs::distrust_bitmap(book, disk))
            .await?;
    }
    Ok(())
}

/// The machine is gone: it boots from its own leg, and the activity log says that this is a restart.
async fn boot_instead(cx: &Cx, side: Side) -> Step {
    if side == Side::Upgrade {
        return Err(Problem::new(
            ProblemCode::NotFound,
            "the Upgrade Side's machine has ended",
        )
        .about(side.to_string())
        .advise("its changes cannot be merged: `flipside abort`")
        .into());
    }
    cx.ledger.log(
        Severity::Warning,
        "the Production Side's machine is gone; it boots from its own disks",
    )?;
    power::boot(cx).await?;
    cx.ledger.fact(Fact::Owner(side))?;
    Ok(())
}
