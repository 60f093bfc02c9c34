//! The data checkpoint: one leg of each data disk stays as it was when the users moved (design 3.9, DK-28).
//!
//! It is taken while nobody has the data open: Production has let go, the Upgrade Side has nothing yet. From the moment
//! the book calls a leg `Checkpoint` nobody opens it; the disk runs on the other one until Commit or Abort. An abort
//! either makes it the data again (`--discard-data`) or gives it up; both are in the book before anybody has the disk.
//! The bitmap of the side that wrote meanwhile says what differs, whichever of the two legs is the one that decides.

use super::{Action, Seen};
use crate::context::{Cx, Exclusive, Step};
use crate::{devices, legs};
use async_trait::async_trait;
use flipside_model::{
    DiskName, DiskRole, Fact, LegBook, LegRole, Problem, ProblemCode, Severity, Side, StaleReason,
    planted,
};
use flipside_platform::DiskSource;
use flipside_session::Step as PlanStep;
use std::collections::BTreeSet;

/// Keeps one leg of each data disk.
pub(super) struct KeepCheckpoint;

#[async_trait]
impl Action for KeepCheckpoint {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let book = cx.book().await?;
        let kept = |disk: &DiskName| {
            let pair = book.disks.get(disk);
            pair.is_some_and(|pair| pair.checkpoint().is_some())
        };
        let all = cx.disks(DiskRole::Data).iter().all(kept);
        Ok(if all { Seen::Done } else { Seen::Todo })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let held = cx.exclusive().await?;
        refuse_open(cx).await?;
        let data = cx.disks(DiskRole::Data);
        devices::refuse_changed(cx, |disk, _| data.contains(disk)).await?;
        let book = cx.book().await?;
        refuse_simplex(cx, &book)?;
        for disk in &data {
            let Some(pair) = book.disks.get(disk) else {
                continue;
            };
            if pair.checkpoint().is_some() {
                continue;
            }
            // What an earlier machine stored says nothing of what is written from here.
            cx.ports.disk.drop_carried(disk).await?;
            cx.ledger.fact(Fact::Checkpoint {
                disk: disk.clone(),
                leg: pair.authority.other(),
            })?;
        }
        cx.edit_book(&held, |book| keep(book, &data)).await?;
        Ok(())
    }

    /// The merge is taken back: if nobody can have written since, both legs are still equal.
    async fn undo(&self, cx: &Cx) -> Step {
        let held = cx.exclusive().await?;
        let given = cx
            .state()
            .attempts
            .contains_key(&PlanStep::AttachUpgrade.name());
        let role = if given || refuse_open(cx).await.is_err() {
            LegRole::Stale(StaleReason::Unclean)
        } else {
            LegRole::Live
        };
        cx.edit_book(&held, |book| legs::end_checkpoints(book, &role))
            .await?;
        Ok(())
    }
}

fn keep(book: &mut LegBook, data: &[DiskName]) {
    for disk in data {
        if let Some(pair) = book.disks.get_mut(disk) {
            let other = pair.authority.other();
            pair.get_mut(other).role = LegRole::Checkpoint;
        }
    }
}

/// A checkpoint needs a second leg that holds everything.
pub(crate) fn refuse_simplex(cx: &Cx, book: &LegBook) -> Result<(), Problem> {
    let data = cx.disks(DiskRole::Data);
    let simplex = data.iter().find(|disk| {
        let pair = book.disks.get(*disk);
        pair.is_some_and(|pair| !pair.duplexed() && pair.checkpoint().is_none())
    });
    let Some(disk) = simplex else {
        return Ok(());
    };
    let text =
        format!("no checkpoint of `{disk}` can be kept: its second leg does not hold all its data");
    Err(Problem::new(ProblemCode::NotReady, text)
        .about(disk.as_str())
        .advise("`flipside system show` tells what each leg holds; `flipside retry`, or `flipside abort` and set `checkpoint = false`"))
}

/// Nobody may have the data while it is decided which leg holds what.
async fn refuse_open(cx: &Cx) -> Result<(), Problem> {
    let data = cx.disks(DiskRole::Data);
    for side in [Side::Production, Side::Upgrade] {
        let view = cx.view_of(side).await?;
        let open = view
            .disks
            .iter()
            .find(|(name, disk)| {
                data.contains(name) && !matches!(disk.source, DiskSource::Overlay(_))
            })
            .map(|(name, _)| name.clone());
        if let Some(disk) = open {
            let text = format!("the {side} still has `{disk}`");
            return Err(Problem::new(ProblemCode::InUse, text)
                .about(disk.as_str())
                .advise(flipside_session::law::recovery(cx.state().upgrade)));
        }
    }
    Ok(())
}

/// Takes the data back to the checkpoint, or gives the checkpoint up.
pub(super) struct AbortCheckpoint;

#[async_trait]
impl Action for AbortCheckpoint {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let book = cx.book().await?;
        let open = book.disks.values().any(|p| p.checkpoint().is_some());
        Ok(if open { Seen::Todo } else { Seen::Done })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let held = cx.exclusive().await?;
        refuse_open(cx).await?;
        if cx.facts().discard_data || planted::is("data-discarded-unasked") {
            return discard(cx, &held).await;
        }
        let tracked: BTreeSet<DiskName> = cx.facts().carried.keys().cloned().collect();
        cx.edit_book(&held, |book| {
            for (disk, pair) in &mut book.disks {
                if let Some(leg) = pair.checkpoint() {
                    pair.get_mut(leg).role = LegRole::Stale(reason(&tracked, disk));
                }
            }
        })
        .await?;
        let text = "the data checkpoint is given up: what was written since the merge stays";
        cx.ledger.log(Severity::Information, text)?;
        Ok(())
    }
}

/// What differs between the two legs is in the bitmap of the side that wrote, if that could be carried out of it.
fn reason(tracked: &BTreeSet<DiskName>, disk: &DiskName) -> StaleReason {
    if tracked.contains(disk) {
        StaleReason::Session
    } else {
        StaleReason::Unclean
    }
}

async fn discard(cx: &Cx, held: &Exclusive<'_>) -> Step {
    let book = cx.book().await?;
    let kept = |disk: &DiskName, leg| {
        let pair = book.disks.get(disk);
        pair.is_some_and(|pair| pair.checkpoint() == Some(leg))
    };
    devices::refuse_changed(cx, kept).await?;
    for (disk, pair) in &book.disks {
        if let Some(from) = pair.checkpoint() {
            cx.ledger.fact(Fact::Discarding {
                disk: disk.clone(),
                from,
                to: from.other(),
            })?;
        }
    }
    let tracked: BTreeSet<DiskName> = cx.facts().carried.keys().cloned().collect();
    cx.edit_book(held, |book| {
        for (disk, pair) in &mut book.disks {
            let Some(leg) = pair.checkpoint() else {
                continue;
            };
            if planted::is("checkpoint-direction-swapped") {
                pair.get_mut(leg).role = LegRole::Stale(reason(&tracked, disk));
                continue;
            }
            pair.authority = leg;
            pair.get_mut(leg).role = LegRole::Live;
            pair.get_mut(leg.other()).role = LegRole::Stale(reason(&tracked, disk));
        }
    })
    .await?;
    let text = "the data are as they were at the merge; what was written since is discarded";
    cx.ledger.log(Severity::Warning, text)?;
    Ok(())
}
