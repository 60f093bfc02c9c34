//! What the leg book must hold before a machine goes on without a leg.

use super::{DropLeg, OWN_PAUSE_MS};
use flipside_model::{DiskName, Leg, LegBook, LegRole, MachineId, StaleReason};

/// Why a leg is stale whose part in an interrupted swap nobody knows.
const INTERRUPTED: &str = "the change of the disk's legs was interrupted";

/// Records legs that are dropped from a machine as failed, and the survivors as authority (invariant 9: before the guest
/// may write without them). A guest that `runs` and is the owner is paused for it: then the pause is recorded too, and
/// returned, so that the next guard ends it if this one dies.
pub fn record_drops(
    book: &mut LegBook,
    machine: MachineId,
    drops: &[DropLeg],
    runs: bool,
    now_ms: i64,
) -> Option<i64> {
    for drop in drops {
        if let Some(pair) = book.disks.get_mut(&drop.disk) {
            pair.get_mut(drop.bad).role = LegRole::Stale(StaleReason::Failed(drop.why.clone()));
            pair.authority = drop.survivor;
        }
    }
    let own_pause = runs && book.owner == Some(machine) && book.pause_until_ms.is_none();
    if own_pause {
        book.pause_until_ms = Some(now_ms.saturating_add(OWN_PAUSE_MS));
        return book.pause_until_ms;
    }
    None
}

/// Records that interrupted swaps are finished with one leg each, so that the other one may have missed writes.
/// `tracked` says whether that leg's change bitmap has been there all along.
pub fn record_swaps(
    book: &mut LegBook,
    swaps: &[(DiskName, Leg)],
    mut tracked: impl FnMut(&DiskName, Leg) -> bool,
) {
    for (disk, leg) in swaps {
        let tracked = tracked(disk, *leg);
        let Some(pair) = book.disks.get_mut(disk) else {
            continue;
        };
        let other = pair.get_mut(leg.other());
        match &other.role {
            LegRole::Live => {
                other.role = LegRole::Stale(StaleReason::Failed(INTERRUPTED.to_owned()));
            }
            // A bitmap made now would lack what was written before.
            LegRole::Stale(StaleReason::Session) if !tracked => {
                other.role = LegRole::Stale(StaleReason::Unclean);
            }
            _ => {}
        }
    }
}
