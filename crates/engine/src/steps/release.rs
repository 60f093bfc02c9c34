//! Takes data disks and network from a side and pauses it.
//!
//! From the moment the book names no owner, nobody continues this machine by itself: not the guard, not a restarted
//! server. Network down here comes before network up there (invariant 18).

use super::{Action, Seen};
use crate::context::{Cx, Exclusive, Step};
use crate::{devices, legs};
use async_trait::async_trait;
use flipside_model::{
    DiskName, DiskRole, Fact, Leg, LegBook, MachineId, Severity, Side, StaleReason, planted,
};
use flipside_platform::RunState;

pub(super) struct Release {
    pub side: Side,
}

#[async_trait]
impl Action for Release {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        // Nobody becomes the owner before the other side has let go: a retry does not ask that one again, which may hang by
        // now, and must not be taken for one that still has everything.
        let book = cx.book().await?;
        let partner = cx.facts().machine(self.side.partner());
        if book.owner.is_some() && book.owner == partner {
            return Ok(Seen::Done);
        }
        let view = cx.view_of(self.side).await?;
        let plugged = cx
            .disks(DiskRole::Data)
            .iter()
            .any(|d| view.disks.contains_key(d));
        let owns = book
            .owner
            .is_some_and(|o| Some(o) == cx.facts().machine(self.side));
        // A guest that has panicked or shut itself down does not run either, and cannot be paused (fault 40).
        let still = matches!(
            view.run,
            RunState::Absent | RunState::Paused | RunState::Shutdown | RunState::Panicked
        );
        let undecided = view.run == RunState::Absent
            && may_have_written(cx, self.side, &book)
            && cx.disks(DiskRole::Data).iter().any(|d| trusts(&book, d));
        Ok(
            if !plugged && !view.link_up && !owns && still && !undecided {
                Seen::Done
            } else {
                Seen::Todo
            },
        )
    }

    async fn act(&self, cx: &Cx) -> Step {
        let Some(machine) = cx.facts().machine(self.side) else {
            return Ok(());
        };
        let held = cx.exclusive().await?;
        may_let_go(cx, self.side, machine).await?;
        let cut = cx.ports.network.cut().await?;
        if cut > 0 {
            cx.ledger.log(
                Severity::Information,
                format!("{cut} idle connection(s) were closed"),
            )?;
        }
        let view = cx.view(machine).await?;
        if view.run.is_present() {
            if !planted::is("link-left-up") {
                cx.ports.machine.set_link(machine, false).await?;
            }
            for disk in cx.disks(DiskRole::Data) {
                carry_unfinished(cx, &held, machine, &disk).await?;
                cx.ports.disk.unplug(machine, &disk).await?;
            }
        }
        let data = cx.disks(DiskRole::Data);
        cx.edit_book(&held, |book| {
            if view.run == RunState::Absent
                && (book.owner == Some(machine) || may_have_written(cx, self.side, book))
            {
                died_with_data(book, &data);
            }
            if book.owner == Some(machine) && !planted::is("owner-kept-while-disks-move") {
                book.owner = None;
            }
        })
        .await?;
        if cx.view(machine).await?.run == RunState::Running {
            cx.ports.machine.pause(machine).await?;
        }
        Ok(())
    }

    async fn undo(&self, cx: &Cx) -> Step {
        super::attach::attach(cx, self.side).await
    }
}

/// Says whether a machine that owns nothing may have had live data all the same: the Upgrade Side runs while a merge plugs
/// disks into it, before it is recorded as the owner.
fn may_have_written(cx: &Cx, side: Side, book: &LegBook) -> bool {
    let attach = flipside_session::Step::AttachUpgrade.name();
    side == Side::Upgrade && book.owner.is_none() && cx.state().attempts.contains_key(&attach)
}

/// Says whether the second leg of a disk is taken for equal, or for equal but for what a bitmap names.
fn trusts(book: &LegBook, disk: &DiskName) -> bool {
    book.disks.get(disk).is_some_and(|pair| {
        pair.duplexed() || matches!(pair.stale(), Some((_, StaleReason::Session)))
    })
}

/// It died with writes in flight, or may have: its mirrors may differ, and only the authority counts (fault 28). What was
/// left of an unfinished resynchronisation died with its bitmap: one carried into it earlier lacks what it wrote.
fn died_with_data(book: &mut LegBook, data: &[DiskName]) {
    book.mark_unclean();
    if planted::is("carried-bitmap-outlives-its-machine") {
        return;
    }
    for disk in data {
        legs::distrust_bitmap(book, disk);
    }
}

/// Fault 22: this machine may be the only one that still has the right file open. It lets go of nothing that the other
/// side could not open again.
async fn may_let_go(cx: &Cx, side: Side, machine: MachineId) -> Step {
    let data = cx.disks(DiskRole::Data);
    let plugged = cx.view(machine).await?.disks;
    if !data.iter().any(|disk| plugged.contains_key(disk)) {
        return Ok(());
    }
    if side == Side::Upgrade {
        return Ok(devices::refuse_without_data(cx, cx.facts().discard_data).await?);
    }
    let book = cx.book().await?;
    let needed = |disk: &DiskName, leg: Leg| {
        let pair = book.disks.get(disk).filter(|_| data.contains(disk));
        pair.is_some_and(|pair| pair.live().contains(&leg))
    };
    Ok(devices::refuse_changed(cx, needed).await?)
}

/// A data mirror whose resynchronisation was given up takes its remaining bitmap along (design 3.8).
async fn carry_unfinished(
    cx: &Cx,
    held: &Exclusive<'_>,
    machine: MachineId,
    disk: &DiskName,
) -> Step {
    let book = cx.book().await?;
    let stale = book.disks.get(disk).is_some_and(|p| {
        matches!(p.stale(), Some((_, StaleReason::Session))) || p.checkpoint().is_some()
    });
    let view = cx.view(machine).await?;
    let tracked = view
        .disks
        .get(disk)
        .is_some_and(|d| d.dirty_bytes.is_some());
    if !(stale && tracked) {
        return Ok(());
    }
    // There is one carrier for each disk, and storing replaces it. When this side had only begun to take the disk, what the
    // other one left is in no bitmap yet.
    if cx.facts().carried.contains_key(disk) && cx.ports.disk.carry_in(machine, disk).await.is_err()
    {
        cx.edit_book(held, |book| legs::distrust_bitmap(book, disk))
            .await?;
        return Ok(());
    }
    match cx.ports.disk.carry_out(machine, disk).await {
        Ok(carried) => {
            cx.ledger.fact(Fact::Carried(carried))?;
        }
        Err(error) => {
            // Not worth an outage: without the bitmap the whole disk is compared later.
            cx.ledger.write(flipside_model::Record::problem(
                Severity::Warning,
                &error.into(),
            ))?;
        }
    }
    Ok(())
}
