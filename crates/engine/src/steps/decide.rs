//! The point of no return: checked, recorded, and only then acted on (CM-13, SM-14, invariants 11 and 14).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use crate::{devices, legs, power};
use async_trait::async_trait;
use flipside_model::{Fact, LegRole, Problem, ProblemCode, Side, planted};
use flipside_platform::{DiskSource, RunState};

pub(super) struct Decide;

#[async_trait]
impl Action for Decide {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        let book = cx.book().await?;
        let undecided = book.disks.values().any(|p| {
            matches!(p.a.role, LegRole::Original | LegRole::Upgraded)
                || matches!(p.b.role, LegRole::Original | LegRole::Upgraded)
        });
        Ok(if cx.facts().committed && !undecided {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        if !cx.facts().committed {
            sources_are_the_intended(cx).await?;
            if !planted::is("commit-not-recorded") {
                cx.ledger.fact(Fact::Committed)?;
            }
        }
        let held = cx.exclusive().await?;
        cx.edit_book(&held, legs::decide).await?;
        drop(held);
        power::boot_committed(cx).await?;
        Ok(())
    }
}

/// A commit can only go forward (SM-14), so it is not begun when the new software does not serve: in Merge an Abort is
/// still open (invariant 13).
pub(crate) async fn refuse_without_upgrade_side(cx: &Cx) -> Result<(), Problem> {
    let upgrade = cx.facts().upgrade;
    let run = cx.view_of(Side::Upgrade).await?.run;
    if run == RunState::Running && cx.book().await?.owner == upgrade {
        return Ok(());
    }
    Err(Problem::new(
        ProblemCode::Refused,
        format!("`commit` is refused: the Upgrade Side does not serve the users ({run:?})"),
    )
    .about(Side::Upgrade.to_string())
    .advise("`flipside abort`"))
}

/// Says whether a machine will not run any more by itself.
fn ended(run: RunState) -> bool {
    matches!(
        run,
        RunState::Absent | RunState::Shutdown | RunState::Panicked
    )
}

/// The machine that runs must run on exactly the legs that are about to become the authority.
async fn sources_are_the_intended(cx: &Cx) -> Step {
    let view = cx.view_of(Side::Upgrade).await?;
    // A commit only goes forward (SM-14), so an Upgrade Side that has ended must not stand in its way for ever: the
    // book says which legs are its own, and it boots from them.
    if !ended(view.run) && view.run != RunState::Running {
        return Err(Problem::new(
            ProblemCode::NotReady,
            format!("the Upgrade Side is not running ({:?})", view.run),
        )
        .advise("see that it runs, then `flipside retry`")
        .into());
    }
    let book = cx.book().await?;
    if book.owner != cx.facts().upgrade {
        return Err(mismatch("owner").into());
    }
    for (name, pair) in &book.disks {
        let expected = match (
            &pair.get(pair.authority).role,
            &pair.get(pair.authority.other()).role,
        ) {
            (LegRole::Original, LegRole::Upgraded) => pair.authority.other(),
            (LegRole::Live, _) => pair.authority,
            _ => return Err(mismatch(name.as_str()).into()),
        };
        let good = ended(view.run)
            || view.disks.get(name).is_some_and(
                |d| matches!(&d.source, DiskSource::Legs(legs) if legs.first() == Some(&expected)),
            );
        if !good {
            return Err(mismatch(name.as_str()).into());
        }
    }
    Ok(devices::refuse_changed(cx, |_, _| true).await?)
}

fn mismatch(disk: &str) -> Problem {
    Problem::new(
        ProblemCode::Mismatch,
        format!("`{disk}` is not backed by the leg that the record names"),
    )
    .about(disk)
    .advise("nothing was overwritten; `flipside system show` tells what each leg holds")
}
