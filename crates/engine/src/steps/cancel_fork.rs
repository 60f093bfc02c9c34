//! Gives up a fork that was not completed: Production runs on as before, on both legs (AB-03).

use super::{Action, Seen};
use crate::context::{Cx, Step};
use crate::legs;
use async_trait::async_trait;
use flipside_model::{Fact, Record, Severity, Side};
use flipside_platform::RunState;

pub(super) struct CancelFork;

#[async_trait]
impl Action for CancelFork {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        Ok(if cx.facts().divided {
            Seen::Done
        } else {
            Seen::Repeat
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        let Some(production) = cx.facts().production else {
            return Ok(());
        };
        let held = cx.exclusive().await?;
        let view = cx.view(production).await?;
        if view.run.is_present() {
            let one_leg = |d: &flipside_platform::DiskView| matches!(&d.source, flipside_platform::DiskSource::Legs(legs) if legs.len() == 1);
            let upgrade = cx.view_of(Side::Upgrade).await?.run;
            if view.disks.values().all(one_leg)
                && matches!(upgrade, RunState::Paused | RunState::Running)
            {
                // The switch was made, and only its record is missing.
                cx.ledger.fact(Fact::Divided(true))?;
            } else {
                cx.ports.machine.fork_cancel(production).await?;
            }
            let run = cx.view(production).await?.run;
            if matches!(
                run,
                RunState::Paused | RunState::PostMigrate | RunState::PreSwitchover
            ) && cx.facts().owner == Side::Production
                && let Err(error) = cx.ports.machine.resume(production).await
            {
                // Its boot was interrupted, or it cannot be continued: no reason to stop here for ever (invariant 13).
                // The step that continues Production tries again, and boots it if that fails. The intent of the pause
                // stays in the book until then, so that the guard may still help.
                cx.ledger
                    .write(Record::problem(Severity::Warning, &error.into()))?;
                return Ok(legs::reconcile(cx, &held, production).await?);
            }
            legs::reconcile(cx, &held, production).await?;
        }
        cx.edit_book(&held, |book| book.pause_until_ms = None)
            .await?;
        Ok(())
    }
}
