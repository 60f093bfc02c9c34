//! The point of no return: checked, recorded, and only then acted on (CM-13, SM-14, invariants 11 and 14).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{Fact, LegRole, Problem, ProblemCode, Side, StaleReason};
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
            cx.ledger.fact(Fact::Committed)?;
        }
        let held = cx.exclusive().await?;
        cx.edit_book(&held, |book| {
            for pair in book.disks.values_mut() {
                if pair.get(pair.authority).role != LegRole::Original {
                    continue;
                }
                // Until Production's bitmap has been carried over, only a full compare could be trusted.
                let original = pair.authority;
                pair.get_mut(original).role = LegRole::Stale(StaleReason::Unclean);
                pair.authority = original.other();
                pair.get_mut(original.other()).role = LegRole::Live;
            }
        })
        .await?;
        Ok(())
    }
}

/// The machine that runs must run on exactly the legs that are about to become the authority.
async fn sources_are_the_intended(cx: &Cx) -> Step {
    let view = cx.view_of(Side::Upgrade).await?;
    if view.run != RunState::Running {
        return Err(Problem::new(
            ProblemCode::NotReady,
            format!("the Upgrade Side is not running ({:?})", view.run),
        )
        .advise("see that it runs, then `flipside commit` or `flipside abort`")
        .into());
    }
    for (name, pair) in &cx.book().await?.disks {
        let expected = match (
            &pair.get(pair.authority).role,
            &pair.get(pair.authority.other()).role,
        ) {
            (LegRole::Original, LegRole::Upgraded) => pair.authority.other(),
            (LegRole::Live, _) => pair.authority,
            _ => return Err(mismatch(name.as_str()).into()),
        };
        let good = view.disks.get(name).is_some_and(
            |d| matches!(&d.source, DiskSource::Legs(legs) if legs.first() == Some(&expected)),
        );
        if !good {
            return Err(mismatch(name.as_str()).into());
        }
    }
    if let Some((component, text)) = cx.ports.host.check_legs().await?.into_iter().next() {
        return Err(Problem::new(ProblemCode::Mismatch, text)
            .about(component)
            .into());
    }
    Ok(())
}

fn mismatch(disk: &str) -> Problem {
    Problem::new(
        ProblemCode::Mismatch,
        format!("`{disk}` is not backed by the leg that the record names"),
    )
    .about(disk)
    .advise("nothing was overwritten; `flipside system show` tells what each leg holds")
}
