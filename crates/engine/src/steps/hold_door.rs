//! Holds new connections and waits, bounded, for requests in flight: the outage begins here.

use super::{Action, Seen};
use crate::context::{Cx, Step};
use async_trait::async_trait;
use flipside_model::{Fact, Severity, Side, planted};
use flipside_platform::RunState;

pub(super) struct HoldDoor {
    /// The side that has been serving.
    pub serving: Side,
}

#[async_trait]
impl Action for HoldDoor {
    async fn observe(&self, cx: &Cx) -> Step<Seen> {
        // Without a guard there is no door yet: acting starts it.
        let Ok(view) = cx.ports.network.view().await else {
            return Ok(Seen::Todo);
        };
        let open_to = view.open_to;
        let held = (open_to.is_none() || planted::is("door-not-held")) && cx.facts().outage_open;
        // A retry after the users have moved already must not shut them out again.
        let moved = open_to.is_some()
            && open_to == cx.book().await?.owner
            && cx.gave_up(self.serving).await?;
        Ok(if held || moved {
            Seen::Done
        } else {
            Seen::Todo
        })
    }

    async fn act(&self, cx: &Cx) -> Step {
        cx.ports.network.ensure().await?;
        if !cx.facts().outage_open {
            cx.ledger.fact(Fact::OutageBegan)?;
        }
        cx.start_inside_clock();
        if planted::is("door-not-held") {
            return Ok(());
        }
        cx.ports.network.hold().await?;
        if cx.view_of(self.serving).await?.run != RunState::Running {
            return Ok(());
        }
        let bound = u64::from(cx.settings().timeouts.drain) * 1000;
        let report = cx.ports.network.drain(bound).await?;
        if report.busy > 0 {
            let text = format!(
                "{} request(s) were still in flight after {} ms",
                report.busy, report.took_ms
            );
            cx.ledger.log(Severity::Warning, text)?;
        }
        Ok(())
    }

    async fn undo(&self, cx: &Cx) -> Step {
        super::open_door::open(cx, self.serving).await
    }
}
