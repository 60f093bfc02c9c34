//! Notices legs that were changed behind our back: replaced, shrunk, linked elsewhere, gone (SP-18, fault 22).
//!
//! Every step that opens a leg, or gives one up that must be opened again, asks here first. What is changed is never
//! opened; the administrator is told disk, leg, path and what is wrong, and everything stays as it is.

use crate::context::{Cx, Exclusive};
use flipside_model::{
    DiskName, DiskRole, Leg, LegRole, Problem, ProblemCode, Record, Severity, StaleReason, planted,
};
use flipside_platform::LegChange;

/// What an administrator can do about a changed leg.
const ADVICE: &str =
    "put the original file or device back; flipside never uses a leg that it does not know";

/// Lists the legs that are not what the book means.
pub(crate) async fn changes(cx: &Cx) -> Result<Vec<LegChange>, Problem> {
    if planted::is("changed-leg-used") {
        return Ok(Vec::new());
    }
    Ok(cx.ports.host.check_legs().await?)
}

/// Fails when one of the legs that are about to be used was changed.
pub(crate) async fn refuse_changed(
    cx: &Cx,
    used: impl Fn(&DiskName, Leg) -> bool + Send,
) -> Result<(), Problem> {
    let found = changes(cx).await?;
    match found.into_iter().find(|c| used(&c.disk, c.leg)) {
        None => Ok(()),
        Some(change) => Err(refusal(change)),
    }
}

/// A line for the log.
pub(crate) fn warning(change: &LegChange) -> Record {
    Record::Log {
        severity: Severity::Warning,
        text: change.text.clone(),
        detail: None,
        component: Some(change.disk.to_string()),
        advice: Some(ADVICE.to_owned()),
    }
}

fn refusal(change: LegChange) -> Problem {
    Problem::new(ProblemCode::Mismatch, change.text)
        .about(change.disk.as_str())
        .advise(ADVICE)
}

/// Returns the live legs of a disk that are still what the book means, the first to be read first.
///
/// A changed leg beside a good one is given up: it is recorded as failed before anything is written without it, and the
/// good one decides. So an abort needs one leg of each data disk, not both.
pub(crate) async fn good_legs(
    cx: &Cx,
    held: &Exclusive<'_>,
    disk: &DiskName,
) -> Result<Vec<Leg>, Problem> {
    let book = cx.book().await?;
    let Some(pair) = book.disks.get(disk) else {
        return Ok(Vec::new());
    };
    let live = pair.live();
    let mut found = changes(cx).await?;
    found.retain(|c| c.disk == *disk && live.contains(&c.leg));
    let good: Vec<Leg> = live
        .iter()
        .copied()
        .filter(|leg| found.iter().all(|c| c.leg != *leg))
        .collect();
    let Some(change) = found.into_iter().next() else {
        return Ok(live);
    };
    let Some(survivor) = good.first().copied() else {
        return Err(refusal(change));
    };
    let text = change.text.clone();
    cx.edit_book(held, |book| {
        if let Some(pair) = book.disks.get_mut(disk) {
            pair.authority = survivor;
            pair.get_mut(survivor.other()).role = LegRole::Stale(StaleReason::Failed(text));
        }
    })
    .await?;
    cx.ledger.write(Record::Log {
        severity: Severity::Warning,
        text: format!(
            "{} The disk goes on with leg {survivor} alone.",
            change.text
        ),
        detail: None,
        component: Some(disk.as_str().to_owned()),
        advice: Some(ADVICE.to_owned()),
    })?;
    Ok(good)
}

/// Fails unless each data disk has a live leg that is still what the book means: before the side that has them open lets
/// go, because no other process could open them again. When the data go back to the checkpoint, that is the leg needed.
pub(crate) async fn refuse_without_data(cx: &Cx, discard: bool) -> Result<(), Problem> {
    let found = changes(cx).await?;
    if found.is_empty() {
        return Ok(());
    }
    let book = cx.book().await?;
    for disk in cx.disks(DiskRole::Data) {
        let Some(pair) = book.disks.get(&disk) else {
            continue;
        };
        let changed = |leg: &Leg| found.iter().find(|c| c.disk == disk && c.leg == *leg);
        let live = match pair.checkpoint().filter(|_| discard) {
            Some(leg) => vec![leg],
            None => pair.live(),
        };
        if live.iter().all(|leg| changed(leg).is_some())
            && let Some(change) = live.iter().find_map(changed)
        {
            return Err(refusal(change.clone()));
        }
    }
    Ok(())
}
