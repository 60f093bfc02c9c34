//! Changes of the leg book that more than one step makes.

use crate::context::{Cx, Exclusive};
use flipside_model::{
    DiskName, DiskRole, LegBook, LegRole, MachineId, Problem, Severity, StaleReason, SystemSpec,
    planted,
};
use flipside_platform::DiskSource;

/// Corrects the book by what the machine proves: a leg in its quorum gets every write, so it is live.
///
/// Nobody but us takes a leg into a quorum, and only after proof; so the quorum is the stronger witness, and a crash
/// between the book and the switch costs nothing.
pub(crate) async fn reconcile(
    cx: &Cx,
    held: &Exclusive<'_>,
    machine: MachineId,
) -> Result<(), Problem> {
    let view = cx.view(machine).await?;
    let mut corrected = Vec::new();
    cx.edit_book(held, |book| {
        for (name, disk) in &view.disks {
            let Some(pair) = book.disks.get_mut(name) else {
                continue;
            };
            let DiskSource::Legs(legs) = &disk.source else {
                continue;
            };
            if legs.len() == 2 && !pair.duplexed() && !planted::is("record-not-corrected") {
                pair.a.role = LegRole::Live;
                pair.b.role = LegRole::Live;
                corrected.push(name.clone());
            }
        }
    })
    .await?;
    for name in corrected {
        let text = format!("`{name}` is still written on both legs; the record was corrected");
        cx.ledger.log(Severity::Information, text)?;
    }
    Ok(())
}

/// A fork was given up after legs had been taken apart: no machine has the others, which miss writes from now on.
pub(crate) fn nobody_has_the_others(book: &mut LegBook) {
    for pair in book.disks.values_mut() {
        let other = pair.authority.other();
        if pair.get(pair.authority).role == LegRole::Original
            || pair.get(other).role == LegRole::Frozen
        {
            pair.get_mut(pair.authority).role = LegRole::Live;
            pair.get_mut(other).role = LegRole::Stale(StaleReason::Session);
        }
    }
}

/// Lets all duplexed disks be decided by the enclosure of the first system disk, so that Production keeps one
/// enclosure and the Upgrade Side gets the other (SM-25).
pub(crate) fn align_authority(book: &mut LegBook, spec: &SystemSpec) {
    let first = spec.disks_of(DiskRole::System).next();
    let Some(leader) = first
        .and_then(|d| book.disks.get(&d.name))
        .map(|p| p.authority)
    else {
        return;
    };
    for pair in book.disks.values_mut().filter(|p| p.duplexed()) {
        pair.authority = leader;
    }
}

/// Ends the checkpoints of the data: their legs get this role.
pub(crate) fn end_checkpoints(book: &mut LegBook, role: &LegRole) {
    for pair in book.disks.values_mut() {
        if let Some(leg) = pair.checkpoint() {
            pair.get_mut(leg).role = role.clone();
        }
    }
}

/// Makes the Upgrade Side's legs the authority: what the decision to commit means for the book (SM-14). The data are
/// never taken back from here: what differs from the checkpoint is in the Upgrade Side's own bitmap.
pub(crate) fn decide(book: &mut LegBook) {
    end_checkpoints(book, &LegRole::Stale(StaleReason::Session));
    for pair in book.disks.values_mut() {
        if pair.get(pair.authority).role != LegRole::Original {
            continue;
        }
        // Until Production's bitmap has been carried over, only a full compare could be trusted.
        let original = pair.authority;
        pair.get_mut(original).role = LegRole::Stale(StaleReason::Unclean);
        if planted::is("authority-not-moved") {
            continue;
        }
        pair.authority = original.other();
        pair.get_mut(original.other()).role = LegRole::Live;
    }
}

/// Records that the change bitmap of a disk does not say everything: only a full compare will do.
pub(crate) fn distrust_bitmap(book: &mut LegBook, disk: &DiskName) {
    let Some(pair) = book.disks.get_mut(disk) else {
        return;
    };
    let other = pair.authority.other();
    if pair.get(other).role == LegRole::Stale(StaleReason::Session)
        && !planted::is("bitmap-trusted-after-failure")
    {
        pair.get_mut(other).role = LegRole::Stale(StaleReason::Unclean);
    }
}

#[cfg(test)]
#[path = "legs_tests.rs"]
mod tests;
